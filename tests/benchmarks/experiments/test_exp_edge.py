"""The edge of stability: its descent, its units, and the numbers kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matfree")

from benchmarks.experiments.edge.methods import B2, EPS, METHODS, adam_units
from benchmarks.experiments.edge.report import (
    figures,
    ratios,
    report,
    runs,
)
from benchmarks.experiments.full_batch import (
    Lengths,
    make_descent,
    make_problem,
    warm_errors,
)
from benchmarks.experiments.noisy_data import split
from benchmarks.harness import pages, results
from benchmarks.harness.files import InputError
from psi_optax.landscape import eigenpairs, hessian

pytestmark = pytest.mark.usefixtures("optax_promotion")


@pytest.fixture(scope="module")
def problem():
    _, digits = split("digits", 100, 0, 2, 0.0)
    with jax.numpy_dtype_promotion("standard"):
        return make_problem(digits, (4,), seed=0)


def test_the_loss_ignores_the_scale_of_hidden_kernels_alone(problem):
    params = problem.params
    assert problem.groups["hidden_0"]["kernel"].axes == (0,)
    assert problem.groups["head"]["kernel"] is None
    hidden = jax.tree.map(lambda x: 4 * x, params["hidden_0"])
    head = jax.tree.map(lambda x: 4 * x, params["head"])
    before = problem.loss(params)
    assert problem.loss(params | {"hidden_0": hidden}) == before
    assert abs(problem.loss(params | {"head": head}) - before) > 0.1


def test_a_descent_is_that_of_its_optimizer_with_its_eigenvalues(problem):
    method = METHODS["psi_sgd"]
    descend = make_descent(
        problem,
        lambda rate: method.build(rate, problem.groups),
        lambda *where: {"top": method.curvature(problem, *where)},
        Lengths(total=8, record=2, check=4),
    )
    found = descend(0.1)
    assert found["loss"].shape == (8,)
    assert found["warm"]["top"].shape == (4,)
    assert found["cold"]["top"].shape == (2,)

    tx, params, losses = method.build(0.1, problem.groups), problem.params, []
    state, update = tx.init(params), jax.jit(tx.update)
    step = jax.jit(jax.value_and_grad(problem.loss))
    for _ in range(8):
        loss, gradient = step(params)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    # Rounding of float32, which 8 smooth steps amplify little.
    np.testing.assert_allclose(found["loss"], losses, rtol=1e-5)

    def top(groups):
        curvature = hessian(problem.loss, params, groups=groups)
        pairs = eigenpairs(curvature, jax.random.key(1), num_matvecs=40)
        return pairs.values[0]

    expected, plain = jax.jit(lambda: (top(problem.groups), top(None)))()
    np.testing.assert_allclose(found["cold"]["top"][-1], expected, rtol=1e-3)
    assert abs(plain / expected - 1) > 0.01


@pytest.mark.parametrize("lengths", [(9, 2, 4), (8, 3, 4)])
def test_lengths_are_multiples(problem, lengths):
    with pytest.raises(InputError, match="multiple"):
        make_descent(problem, optax.sgd, lambda *_: {}, Lengths(*lengths))


def test_units_of_adam_are_those_of_its_steps(problem):
    method, params = METHODS["psi_adam"], problem.params
    tx = method.build(1e-3, problem.groups)
    gradient = jax.jit(jax.grad(problem.loss))(params)
    updates, state = jax.jit(tx.update)(gradient, tx.init(params), params)
    units = adam_units(state)
    # After one step both moments are those of one gradient: c² g is the step.
    head, bias = gradient["head"]["bias"], units["head"]["bias"]
    expected = -1e-3 * bias**2 * head
    np.testing.assert_allclose(updates["head"]["bias"], expected, rtol=1e-3)
    np.testing.assert_allclose(bias**-2, jnp.abs(head) + EPS, rtol=1e-3)
    # Without the correction of bias it is another size.
    assert B2 < 1
    raw = optax.tree.get(state, "nu")["head"]["bias"] ** 0.5
    assert jnp.all(raw < 0.1 * bias**-2)


def test_losses_rise_where_the_threshold_is_exceeded_and_only_there():
    content = results.read(pages.DOCS / "numbers" / "edge.json")
    stable, unstable = [], []
    for _, multiple, run in runs(content):
        above = ratios(run).max() > 1
        (unstable if above else stable).append(run["rises"])
        if multiple == max(content["settings"]["multiples"]):
            assert above
    assert max(stable) < 0.002
    assert min(unstable) > 0.05


def test_warm_eigenvalues_are_those_of_cold_starts():
    content = results.read(pages.DOCS / "numbers" / "edge.json")
    for _, multiple, run in runs(content):
        residual = np.array(run["residual"]) / np.array(run["cold"])
        assert residual.max() < 1e-4
        errors = warm_errors(run["warm"], run["cold"])
        assert np.median(errors) < 0.02
        if multiple == min(content["settings"]["multiples"]):
            assert errors.max() < 0.01


def test_a_diverged_run_shows():
    settings = {"methods": ["gd"], "multiples": [1.0], "record": 1, "check": 2}
    lost = [None, None]
    run = {"rate": 1.0, "threshold": 2.0, "warm": lost, "cold": [None]}
    run |= {"residual": [None], "loss": lost, "rises": 0.5}
    content = {"settings": settings, "parts": {"gd, 1": run}}
    assert report(content).count("diverged") == 2
    figures(content)
