"""The share of a training step that the optimizer takes.

    python -m benchmarks.training_share
    python -m benchmarks.training_share --docs  # and docs/step-time.md anew

A step is the forward and backward pass of a batch, the new statistics of the
batch normalizations, and the optimizer; one jitted, donated call. It has its
turn beside the same without an optimizer, which writes the gradients down, and
the optimizer's share is what that lacks, turn by turn: 1 - without/with. A
share that is smaller than what the times vary by may come out negative; so the
optimizer is timed by itself too, as in `benchmarks.step_time`, over the time of
the whole step. By itself it reads gradients from memory that in the whole step
may be at hand still.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks import pages
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.options import at_least, one_of
from benchmarks.step_time import machine
from benchmarks.step_time_cases import ADAM, SGD, baseline, optimizers
from benchmarks.step_time_report import cell, duration
from benchmarks.step_time_steps import Case, build as build_alone, compile_case
from benchmarks.step_time_turns import quartiles, time_in_turns
from psi_optax.models import architectures, linen

Row = dict[str, Any]

PASSES = "forward and backward pass"

OPTIMIZERS = (SGD, "psi_sgd(momentum)", ADAM, "psi_adam", "optax.lamb")


class Network(NamedTuple):
    """What is trained.

    Attributes:
        model: a Linen model of `psi_optax.models`.
        image: the shape of one of its images.
        grouped: a pattern of paths; each output channel there is a group.
    """

    model: nn.Module
    image: tuple[int, int, int]
    grouped: str


NETWORKS = {
    "cnn": Network(linen.CNN(), (28, 28, 1), r"hidden_\d+/kernel"),
    "resnet20": Network(
        linen.ResNet(architectures.cifar_resnet(20)),
        (32, 32, 3),
        r".*/conv/kernel",
    ),
}


def draw(network: Network, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """Initial variables, and a batch of images and labels of no meaning."""
    random = np.random.default_rng(0)
    images = random.standard_normal((batch, *network.image), np.float32)
    labels = jnp.asarray(random.integers(10, size=batch), jnp.int32)

    @jax.jit
    def init(images):
        return network.model.init(jax.random.key(0), images, train=False)

    return init(images), (jnp.asarray(images), labels)


def build(
    network: Network,
    variables: Any,
    tx: optax.GradientTransformation | None,
) -> Case:
    """A step of training on copies of the variables, not compiled yet.

    Args:
        network: what is trained.
        variables: initial ones.
        tx: the optimizer; without one the gradients are the state.
    """

    def loss(params, statistics, images, labels):
        logits, new = network.model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels
        return losses(logits, labels).mean(), new["batch_stats"]

    def step(params, state, batch):
        statistics, inner = state
        gradients, statistics = jax.grad(loss, has_aux=True)(
            params, statistics, *batch
        )
        if tx is None:
            return params, (statistics, gradients)
        updates, inner = tx.update(gradients, inner, params)
        return optax.apply_updates(params, updates), (statistics, inner)

    params, statistics = jax.tree.map(
        jnp.copy, (variables["params"], variables["batch_stats"])
    )
    inner = jax.tree.map(jnp.copy, params)
    if tx is not None:
        inner = jax.jit(tx.init)(params)
    return Case(step, params, (statistics, inner))


def measure(network: Network, batch: int, turns: int, steps: int) -> list[Row]:
    """Times a network's training steps.

    Args:
        network: what is trained.
        batch: number of images.
        turns: how often each case has its turn.
        steps: how many steps a turn has at most.

    Returns:
        What `report` returns.
    """
    variables, data = draw(network, batch)
    found = optimizers(variables["params"], network.grouped, family=False)
    gradients = jax.tree.map(lambda w: 1e-3 * w, variables["params"])

    def compiled(case, *arguments):
        return compile_case(case, *arguments)[0].run(*arguments)

    runs = {PASSES: compiled(build(network, variables, None), data)}
    for name in OPTIMIZERS:
        tx = found[name]
        runs[name] = compiled(build(network, variables, tx), data)
        alone = build_alone(tx, variables["params"])
        runs[alone_name(name)] = compiled(alone, gradients)
    return report(time_in_turns(runs, turns, steps))


def alone_name(name: str) -> str:
    """What an optimizer is called where it is timed by itself."""
    return f"{name}, alone"


def report(seconds: dict[str, list[float]]) -> list[Row]:
    """One row an optimizer: its share, and the step's ratio to a baseline.

    Args:
        seconds: of the passes, and of every optimizer both the whole step and
            the optimizer alone; a figure each turn.

    Examples:
        >>> rows = report(
        ...     {PASSES: [3.0], SGD: [4.0], alone_name(SGD): [2.0]}
        ... )
        >>> [(row["share"], row["alone"], row["ratio"]) for row in rows]
        [(0.25, 0.5, 1.0)]
    """
    rows = []
    for name in [name for name in seconds if alone_name(name) in seconds]:
        own, base = seconds[name], baseline(name)
        most, left, least = (1 - x for x in quartiles(seconds[PASSES], own))
        _, alone, _ = quartiles(seconds[alone_name(name)], own)
        low, middle, high = quartiles(own, seconds[base])
        rows.append(
            {
                "optimizer": name,
                "baseline": base,
                "milliseconds": 1e3 * statistics.median(own),
                "share": left,
                "share_quartiles": [least, most],
                "alone": alone,
                "ratio": middle,
                "quartiles": [low, high],
            }
        )
    return rows


def table(networks: dict[str, list[Row]], device: str) -> str:
    """The rows of all networks, in Markdown."""
    head = [f"training step on {device}", "optimizer", "ms", "its share"]
    head += ["alone", "whole step"]
    lines = [
        [
            f"`{name}`",
            f"`{row['optimizer']}`",
            duration(row["milliseconds"]),
            "{:.1f} % ({:.1f} to {:.1f})".format(
                *(100 * x for x in (row["share"], *row["share_quartiles"]))
            ),
            f"{100 * row['alone']:.2f} %",
            cell(row["ratio"], row["quartiles"]),
            f"`{row['baseline']}`",
        ]
        for name, rows in networks.items()
        for row in rows
    ]
    return pages.table([[*head, "to"], *lines])


@one_message()
def main(argv: Sequence[str] | None = None) -> None:
    """Times all networks; prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        type=one_of(NETWORKS),
        default=list(NETWORKS),
    )
    add("--batch", type=at_least(1), default=128)
    add("--turns", type=at_least(1), default=15)
    add("--steps", type=at_least(1), default=10, help="of a turn, at most")
    add("--docs", action="store_true", help="put the table into the docs")
    add("--out", type=pathlib.Path, default="results")
    args = parser.parse_args(argv)
    files.make_folder(args.out)
    where = machine()
    page = pages.DOCS / "step-time.md"
    name = f"{where['platform']} training share"
    if args.docs:
        pages.check(page, name)
    networks = {
        name: measure(NETWORKS[name], args.batch, args.turns, args.steps)
        for name in args.networks
    }
    text = table(networks, where["device"])
    print(text)
    path = args.out / "training_share.json"
    found = {"machine": where, "batch": args.batch, "networks": networks}
    files.write(path, json.dumps(found, indent=1))
    print(f"\nNumbers: {path}")
    if args.docs:
        pages.refill(page, name, text)
        pages.keep(path, page)


if __name__ == "__main__":
    main()
