"""A switch to psi_optax takes three lines, and trains as well."""

import importlib
import inspect
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from psi_optax import find_groups, psi
from psi_optax.dynamics import convert_learning_rate
from tests.scripts import (
    haiku_cnn_after,
    haiku_cnn_before,
    nnx_resnet_before,
    ppo_after,
)
from tests.scripts.changes import count_changes, lines

HERE = pathlib.Path(__file__).parent
# Half of the loss of a guess among ten digits.
DIGITS = np.log(10) / 2


def entropy_of_letters():
    """Return the loss of a model of text that knows no context."""
    _, counts = np.unique(list(inspect.getsource(inspect)), return_counts=True)
    shares = counts / counts.sum()
    return -np.sum(shares * np.log(shares))


class Case(NamedTuple):
    """Known facts of a script.

    Attributes:
        grouped: parameters with groups, counted in the architecture.
        bound: of the loss in the end.
        optimizer: before the switch.
        noise: factor between the losses of two runs, at most.
    """

    grouped: int
    bound: float
    optimizer: str
    # The end has 1,280 images, whose losses differ as much as their mean is
    # large: three standard deviations of a ratio are 3 * sqrt(2 / 1280) = 0.12.
    noise: float = 1.12


CASES = {
    # Seven kernels; the scale and bias of each norm but those at the end.
    "nnx_resnet": Case(7 + 2 * 5, DIGITS, "sgd"),
    # All that writes to the residual stream: embeddings, and two layers with
    # biases in each block.
    "linen_lm": Case(2 + 2 * 4, entropy_of_letters(), "adam"),
    # Both kernels, the bias that dropout keeps from cancelling, and a norm.
    "nnx_dropout": Case(2 + 1 + 2, DIGITS, "adam"),
    # Four kernels and the norms in front of two of them.
    "linen_imagenet": Case(4 + 2 * 2, DIGITS, "sgd"),
    "haiku_cnn": Case(3 + 2 * 2, DIGITS, "sgd"),
    # A linear layer, a norm, and a matrix under a spectral norm.
    "equinox_stateful": Case(1 + 2 + 1, DIGITS, "adam"),
    # Queries and keys of both blocks.
    "nnx_gpt": Case(2 * 2, entropy_of_letters(), "adam"),
    # Four hidden layers with biases. The pole falls in one of 40 steps under a
    # policy that has learned nothing, and about 100 times in the end:
    # 3 * sqrt(2 / 100) = 0.42.
    "ppo": Case(4 * 2, 1 / 80, "adam", 1.42),
}
each_script = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def _as_users():
    """Run under JAX's own rules, as scripts do."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def source(name):
    return (HERE / f"{name}.py").read_text()


def end(losses):
    """Return the mean of the last ten."""
    return np.mean(losses[-10:])


def weights_of(model):
    """Return the tree that an optimizer gets."""
    if isinstance(model, nnx.Module):
        return nnx.state(model, nnx.Param)
    if isinstance(model, eqx.Module):
        return eqx.filter(model, eqx.is_inexact_array)
    if isinstance(model, Mapping) and "batch_stats" in model:
        return model["params"]
    return model


def copied(model):
    """Return a copy of the weights, which training does not change."""
    return jax.tree.map(
        lambda x: x.copy() if isinstance(x, jax.Array) else x, weights_of(model)
    )


def train_with_report(script, monkeypatch):
    """Return the losses, the report of the script, and its first weights."""
    found = []

    def find_groups(loss_fn, model, *args, **kwargs):
        weights = copied(model)
        report = original(loss_fn, model, *args, **kwargs)
        found.append((report, weights))
        return report

    original = script.find_groups
    monkeypatch.setattr(script, "find_groups", find_groups)
    losses = script.main()
    assert len(found) == 1
    return losses, *found[0]


@each_script
def test_a_switch_changes_three_lines(name):
    before, after = source(f"{name}_before"), source(f"{name}_after")
    assert 0 < count_changes(before, after) <= 3
    imports = set(after.splitlines()) - set(before.splitlines())
    assert any(line.startswith("from psi_optax import") for line in imports)


def converted(weights, report, optimizer):
    """Return the learning rate of groups for one of 1."""
    return convert_learning_rate(
        1.0, weights, report, optimizer=optimizer
    ).learning_rate


def verdicts(case, before, after, groups):
    """Return the conditions of a switch, and whether they hold."""
    grouped = sum(group is not None for group in groups.values())
    return {
        "groups": grouped == case.grouped,
        "trains": max(end(before), end(after)) < case.bound < before[0],
        # Far from rounding, which 60 steps let grow.
        "differs": abs(end(after) / end(before) - 1) > 1e-4,
        "as well": end(after) < case.noise * end(before),
    }


@each_script
def test_a_switched_script_trains_as_well(name, monkeypatch):
    case = CASES[name]
    before = importlib.import_module(f"tests.scripts.{name}_before").main()
    script = importlib.import_module(f"tests.scripts.{name}_after")
    after, report, weights = train_with_report(script, monkeypatch)
    found = verdicts(case, before, after, report.groups_for(weights))
    assert all(found.values()), found
    if hasattr(script, "psi"):  # With the learning rate of before.
        assert 0.5 < converted(weights, report, case.optimizer) < 2


def test_scripts_that_do_not_switch_or_train_are_noticed(monkeypatch):
    case, before = CASES["haiku_cnn"], haiku_cnn_before.main()
    found = verdicts(case, before, before, {})
    assert not found["groups"]
    assert not found["differs"]
    monkeypatch.setattr(haiku_cnn_after, "LEARNING_RATE", 0.0)
    found = verdicts(case, before, haiku_cnn_after.main(), {})
    assert not found["trains"]
    assert not found["as well"]


def test_a_penalty_that_is_left_in_the_loss_is_named():
    script = nnx_resnet_before
    model, images = script.ResNet(nnx.Rngs(0)), np.ones((4, 8, 8, 1), "f")
    batch = {"image": images, "label": np.arange(4)}
    report = find_groups(script.loss_fn, model, batch, True, has_aux=True)
    assert not any(jax.tree.leaves(report.groups))
    rows = source("nnx_resnet_before").splitlines()
    place = 1 + next(i for i, x in enumerate(rows) if "loss + L2" in x)
    for path in ("stem/kernel", "block2/conv1/kernel"):
        assert f"nnx_resnet_before.py:{place} " in report[path].reason
    with pytest.warns(UserWarning, match="penalty"):
        psi(optax.sgd(0.1), report).init(weights_of(model))


def test_ppo_has_the_converted_rate():
    network, observations = ppo_after.ActorCritic(), np.ones((8, 4))
    params = network.init(jax.random.key(0), observations)
    report = find_groups(network.apply, params, observations)
    # Norms of 32 outputs differ by a tenth between layers.
    assert abs(converted(params, report, "adam") * 32**0.5 - 1) < 0.2


def test_what_counts_as_a_change():
    before = source("haiku_cnn_before")
    same = before
    for old, new in [
        ("import haiku as hk\n", "import haiku as hk\nimport numpy\n"),
        ("    losses = []\n", "    # Of all steps.\n\n    losses = []\n"),
    ]:
        assert same.count(old) == 1
        same = same.replace(old, new)
    assert count_changes(before, same) == 0
    wrapped = same.replace("optimizer.init(params)", "optimizer.init(\nparams)")
    assert count_changes(before, wrapped) == 2
    indented = before.replace("    opt_state = opt", "opt_state = opt")
    assert count_changes(before, indented) == 1
    more = source("haiku_cnn_after").replace("losses = []", "losses = [0]")
    assert count_changes(before, more) == 4
    assert len(lines(before)) > 30
