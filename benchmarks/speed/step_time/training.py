"""Share of a training step that the optimizer takes.

The forward and backward pass of a batch and the step of each optimizer are
timed in turns. The share is the optimizer's part of the sum of both.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks import training
from benchmarks.speed import steps
from benchmarks.speed.step_time.cases import ADAM, SGD, build
from benchmarks.speed.turns import Times, quartiles, time_in_turns
from psi_optax.models import linen
from psi_optax.models.architectures import cifar_resnet

PASSES = "forward and backward pass"

OPTIMIZERS = (SGD, "psi_sgd(momentum)", ADAM, "psi_adam")


class Network(NamedTuple):
    """A Linen model, the shape of an image, and paths of grouped kernels."""

    model: nn.Module
    image: tuple[int, int, int]
    grouped: str


NETWORKS = {
    "cnn": Network(linen.CNN(), (28, 28, 1), r"hidden_\d+/kernel"),
    "resnet20": Network(
        linen.ResNet(cifar_resnet(20)), (32, 32, 3), r".*/conv/kernel"
    ),
}


def measure_share(
    network: Network, batch: int, turns: int, count: int
) -> dict[str, Any]:
    """Return the optimizers' shares of CPU time, and their quartiles."""
    variables, data = draw(network, batch)
    passes = build_passes(network, variables)
    runs = {PASSES: steps.compile_case(passes, data)[0].run(data)}
    params = by_path(variables["params"])
    gradients = jax.tree.map(lambda w: 1e-3 * w, params)
    for name in OPTIMIZERS:
        case = build(name, params, network.grouped)
        runs[name] = steps.compile_case(case, gradients)[0].run(gradients)
    return shares(time_in_turns(runs, turns, count))


def shares(times: Times) -> dict[str, Any]:
    """Return the share of each optimizer, from times of passes and steps."""

    def share(name: str) -> dict[str, Any]:
        ratios = quartiles(times.cpu[name], times.cpu[PASSES])
        low, middle, high = (x / (1 + x) for x in ratios)
        return {"share": middle, "quartiles": [low, high]}

    return {name: share(name) for name in times.cpu if name != PASSES}


def draw(network: Network, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """Draw initial variables, and images and labels of no meaning."""
    random = np.random.default_rng(0)
    images = random.standard_normal((batch, *network.image), np.float32)
    labels = jnp.asarray(random.integers(10, size=batch), jnp.int32)
    init = jax.jit(functools.partial(network.model.init, train=False))
    return init(jax.random.key(0), images), (jnp.asarray(images), labels)


def build_passes(network: Network, variables: Any) -> steps.Case:
    """Build the passes, which write gradients and statistics of the batch."""
    gradient = jax.grad(training.make_loss(network.model), has_aux=True)

    def step(params, state, batch):
        rest, _ = state
        gradients, rest = gradient(params, rest, *batch)
        return params, (rest, gradients)

    rest = jax.tree.map(jnp.copy, variables)
    params = rest.pop("params")
    return steps.Case(step, params, (rest, jax.tree.map(jnp.copy, params)))


def by_path(params: Any) -> dict[str, jax.Array]:
    """Return parameters as a flat mapping."""
    leaves, _ = jax.tree.flatten_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): w
        for path, w in leaves
    }
