"""Methods on coarser groups: layer by layer, and the sphere of a network."""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.columns import COLUMNS
from tests.compilation import quick_jit
from tests.theory.networks import (
    bn_mlp,
    mixed_network,
)
from tests.theory.scales import norms
from tests.theory.training import path_of

pytestmark = pytest.mark.usefixtures("x64")


def test_weight_rescaling_layer_by_layer_keeps_ratios_within_a_layer():
    problem = bn_mlp(50)
    layers = psi_optax.joint_groups(problem.groups)
    tx = psi_optax.weight_rescaling(
        optax.sgd(0.1), layers, every=5, radius="init"
    )
    path = path_of(tx, problem)
    plain = path_of(optax.sgd(0.1), problem)
    for layer in ("first", "second"):
        whole = np.linalg.norm(path[layer], axis=(1, 2))
        due = np.arange(1, 51) % 5 == 0
        start = np.linalg.norm(problem.params[layer])
        np.testing.assert_allclose(whole[due], start, rtol=1e-15)
        assert np.all(np.abs(whole[~due] / start - 1) > 1e-6)
        # Until the first rescaling nothing is different; it is by one factor.
        now, then = path[layer][4], plain[layer][4]
        np.testing.assert_array_equal(path[layer][:4], plain[layer][:4])
        factor = now / then
        np.testing.assert_allclose(factor, factor[0, 0], rtol=1e-13)


def test_the_sphere_of_a_whole_network():
    """Training at a fixed effective learning rate, as Kodryan et al. do.

    SGD with the rate ELR |W|^2, then all weights are rescaled together to the
    norm that they had together.
    """
    problem, rate = bn_mlp(100), 0.02
    sphere = psi_optax.joint_groups(problem.groups, tie="network")
    tx = psi_optax.psi_sgd(rate, sphere, ordinary=optax.sgd(0.1))
    path = path_of(tx, problem)

    gradient = quick_jit(jax.grad(problem.loss))
    params = problem.params
    kernels = ("first", "second")
    radius = np.sqrt(sum((params[k] ** 2).sum() for k in kernels))
    for time in range(100):
        batch = jax.tree.map(lambda x, t=time: x[t], problem.batches)
        slope = gradient(params, batch)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, slope) | {
            k: params[k] + (0.1 - 0.1 - rate * radius**2) * slope[k]
            for k in kernels
        }
        norm = np.sqrt(sum((params[k] ** 2).sum() for k in kernels))
        params |= {k: params[k] * radius / norm for k in kernels}
    for k in params:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x[-1], y, atol=1e-10),
            path[k],
            params[k],
        )
    # Filters exchange norm, which the spheres of filters do not allow.
    moved = norms(path, problem.ids)[-1] / norms(problem.params, problem.ids)
    assert np.ptp(moved) > 0.05


def test_joint_groups_keep_ties_and_need_the_groups_to_fit():
    problem = mixed_network(1)
    found = psi_optax.joint_groups(problem.groups).groups_for(problem.params)
    assert found["batch"] == ScaleGroup((0, 1))
    assert found["layer/kernel"] == ScaleGroup((0, 1), tie="layer")
    assert found["layer/bias"] == ScaleGroup(0, tie="layer")
    assert found["group"] == ScaleGroup((0, 1))
    assert found["head/kernel"] is None
    assert (
        psi_optax.group_norms(
            problem.params, psi_optax.joint_groups(problem.groups, tie="all")
        )["batch"].shape
        == ()
    )
    wrong = psi_optax.joint_groups({"other": COLUMNS})
    with pytest.raises(ValueError, match=r"'batch' of shape \(12, 16\)"):
        psi_optax.group_norms(problem.params, wrong)


@pytest.mark.parametrize("groups", [COLUMNS, {"a": COLUMNS, "c": COLUMNS}])
def test_a_mask_may_not_cut_a_joint_group(groups):
    params = {"a": np.ones((3, 2)), "c": np.ones((3, 2))}
    for tie in ("network", None):
        joint = psi_optax.joint_groups(groups, tie=tie)
        for hidden in ("a", "c"):
            mask = {"a": True, "c": True, hidden: False}
            tx = optax.masked(psi_optax.psi_sgd(0.1, joint), mask)
            if tie is None:
                tx.init(params)
                continue
            with pytest.raises(ValueError, match="mask all"):
                tx.init(params)
