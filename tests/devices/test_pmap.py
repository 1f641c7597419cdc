"""Under `jax.pmap`: weights on every device, a part of the batch on each."""

import functools

import jax
import numpy as np
import pytest

from psi_optax import ScaleGroup, normalize, psi_sgd
from tests.devices.meshes import DEVICES
from tests.devices.network import (
    GROUPS,
    RECIPES,
    distance,
    loss,
    make_batch,
    make_params,
    on_one_device,
    run,
    step,
    tolerance,
)

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")


def split(batch):
    return jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), batch)


def mean_loss(params, batch):
    """The mean over the parts, each with statistics of its own."""
    return jax.vmap(loss, (None, 0))(params, split(batch)).mean()


@functools.cache
def gradient_on_devices():
    return jax.pmap(
        lambda params, batch: jax.lax.pmean(jax.grad(loss)(params, batch), "d"),
        axis_name="d",
    )


def on_devices(tx):
    """The weights, one copy a device, after a trajectory."""
    params = make_params("float64")
    copies = jax.tree.map(
        lambda x: np.stack([x] * DEVICES), (params, tx.init(params))
    )
    # Laid out as a step's results are: then one compilation does.
    params, state = jax.pmap(lambda x: x, axis_name="d")(copies)
    step_fn = jax.pmap(step(tx), axis_name="d")
    batch = split(make_batch("float64"))
    return run(gradient_on_devices(), step_fn, params, state, batch)[0]


@pytest.mark.parametrize("recipe", ["psi", "psi_sgdm"])
def test_the_trajectory_is_that_of_one_device(recipe):
    last = on_devices(RECIPES[recipe](GROUPS))
    expected = on_one_device(recipe, "float64", loss_fn=mean_loss)
    for i in range(DEVICES):
        copy = jax.tree.map(lambda x, i=i: x[i], last)
        assert distance(copy, expected) < tolerance("float64")


def test_parts_of_a_batch_are_not_the_batch():
    """Otherwise the mean over devices would be no test of anything."""
    parts = on_one_device("psi_sgd", "float64", loss_fn=mean_loss)
    whole = on_one_device("psi_sgd", "float64")
    assert distance(parts, whole) > 1e6 * tolerance("float64")


def test_a_name_for_replicated_weights_goes_elsewhere():
    path = "batch/kernel"
    groups = {**GROUPS, path: ScaleGroup(0, axis_name="d")}
    last = on_devices(psi_sgd(0.002, groups, momentum=0.9))
    copy = jax.tree.map(lambda x: x[0], last)
    expected = on_one_device("psi_sgd", "float64", loss_fn=mean_loss)
    assert distance(copy, expected) > 1e6 * tolerance("float64")


def test_a_name_sums_over_devices():
    w = np.random.RandomState(0).normal(size=(DEVICES, 2, 3))
    group = ScaleGroup(axes=0, axis_name="d")
    found = jax.pmap(lambda w: normalize(w, group), axis_name="d")(w)
    expected = w / np.linalg.norm(w, axis=(0, 1))
    # 16 squares, a root and a quotient: a few roundings of 1e-16.
    np.testing.assert_allclose(found, expected, rtol=2e-15)


def test_a_misspelled_name_is_an_error():
    group = {"w": ScaleGroup(axes=0, axis_name="model")}
    with pytest.raises(ValueError, match="'w' .*'model'.*'d'"):
        jax.pmap(lambda w: normalize({"w": w}, group), axis_name="d")(
            np.ones((DEVICES, 2, 3))
        )
