"""The experiment on convergence: its constants, its bounds and its report."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import data
from benchmarks.experiments import command, convergence, convergence_report
from benchmarks.experiments.convergence_problem import (
    make_descent,
    make_problem,
    norms,
)
from benchmarks.experiments.convergence_smoothness import (
    block_bounds,
    lanczos,
    make_curvature,
    normalized,
)
from benchmarks.experiments.results import Results

pytestmark = pytest.mark.usefixtures("optax_promotion")

IDS = np.array([0, 0, 0, 1, 1, -1, -1])


def symmetric(seed, size=7):
    matrix = np.random.RandomState(seed).normal(size=(size, size))
    return matrix + matrix.T


@functools.cache
def problem():
    digits = data.load("digits")
    small = digits._replace(
        train_images=digits.train_images[:200, 2:6, 2:6],
        train_labels=digits.train_labels[:200],
    )
    return make_problem(small, width=2)


def test_constants_are_sums_of_the_norms_of_blocks():
    hessian = symmetric(0)
    a, b, rest = slice(0, 3), slice(3, 5), slice(5, 7)
    norm = functools.partial(np.linalg.norm, ord=2)
    expected = [
        norm(hessian[a, a]) + norm(hessian[a, b]) + norm(hessian[a, rest]),
        norm(hessian[b, a]) + norm(hessian[b, b]) + norm(hessian[b, rest]),
        norm(hessian[rest, a])
        + norm(hessian[rest, b])
        + 2 * norm(hessian[rest, rest]),
    ]
    np.testing.assert_allclose(block_bounds(hessian, IDS), expected, 1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_at_rates_of_one_over_the_constants_no_curvature_exceeds_1(seed):
    hessian = symmetric(seed)
    root = np.sqrt(1 / block_bounds(hessian, IDS))[IDS]
    scaled = root[:, None] * hessian * root
    assert np.abs(np.linalg.eigvalsh(scaled)).max() <= 1
    # The control: the blocks of the diagonal alone would not do.
    alone = np.where(IDS[:, None] == IDS, hessian, 0.0)
    root = np.sqrt(1 / block_bounds(alone, IDS))[IDS]
    scaled = root[:, None] * hessian * root
    assert np.abs(np.linalg.eigvalsh(scaled)).max() > 1


@pytest.mark.parametrize("size", [1, 7, 60])
def test_lanczos_finds_the_outermost_eigenvalue(size):
    matrix = symmetric(1, size)
    values = np.linalg.eigvalsh(matrix)
    expected = values[np.abs(values).argmax()]
    # 40 steps of 60: far more than an eigenvalue with a gap needs.
    found = lanczos(lambda v: matrix @ v, size)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_groups_are_those_whose_scale_does_not_matter():
    p = problem()
    assert p.ids.max() + 1 == 2 + 10
    assert p.start.dtype == np.float64
    r = np.asarray(norms(p.start, p.ids))
    unit = np.asarray(norms(normalized(p, p.start), p.ids))
    np.testing.assert_allclose(unit, 1, rtol=1e-15)
    assert r.max() > 1.1
    factors = jnp.asarray(np.append(10.0 ** np.linspace(-2, 2, 12), 1.0))
    loss = jax.jit(p.loss)
    # A mean of 200 losses of size 2, each rounded to 2e-16 several times.
    np.testing.assert_allclose(
        loss(factors[p.ids] * p.start), loss(p.start), rtol=1e-13
    )
    other = jnp.where(p.ids < 0, 2.0, 1.0) * p.start
    assert abs(loss(other) - loss(p.start)) > 0.01


@pytest.mark.usefixtures("x64")
def test_curvature_is_that_of_the_scaled_hessian():
    p = problem()
    rates = np.linspace(0.5, 2.0, 13)
    root = np.sqrt(rates)[p.ids]
    hessian = np.asarray(jax.jit(jax.hessian(p.loss))(p.start))
    values = np.linalg.eigvalsh(root[:, None] * hessian * root)
    expected = values[np.abs(values).argmax()]
    np.testing.assert_allclose(
        make_curvature(p)(p.start, rates), expected, rtol=1e-3
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("psi", [True, False])
def test_only_gradient_descent_sees_the_scale(psi):
    p = problem()
    descend = make_descent(p, psi, steps=20)
    rates = jnp.full(13, 0.1)
    # Rounding, 2e-16, that 20 steps of a smooth descent amplify little.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-11)
    one = descend(p.start, rates)
    ten = descend(jnp.where(p.ids < 0, 1.0, 10.0) * p.start, rates)
    close(one.direction[0], ten.direction[0])
    assert ten.euclidean[0] < 0.9 * one.euclidean[0]
    if psi:
        close(one.loss, ten.loss)
        close(normalized(p, one.points[-1]), normalized(p, ten.points[-1]))
    else:
        assert ten.loss[-1] > one.loss[-1] + 0.01
    # Promised: the squared gradient that is descended along, times rate/2.
    felt = one.direction if psi else one.euclidean
    close(one.promised, 0.05 * felt)


def test_the_smoke_run_is_whole_and_goes_on(tmp_path, monkeypatch, capsys):
    arguments = ["--smoke", "--out", str(tmp_path)]
    command.main(convergence.EXPERIMENT, arguments)
    printed = capsys.readouterr().out
    assert (tmp_path / "convergence-smoke.png").stat().st_size > 10_000
    content = json.loads((tmp_path / "convergence-smoke.json").read_text())
    parts = content["parts"]
    for name, run in parts.items():
        step = np.array(run["step"][1:])
        if "theorem" in name:
            gradient = "direction" if name.startswith("PSI") else "euclidean"
            least = np.array(run[gradient][:-1])
            assert np.all(least <= convergence_report.bound(run, step))
            assert run["excess"] <= 1
            assert run["broken"] == run["rises"] == 0
            assert max(map(abs, run["curvature"])) <= 1
    # The controls: beyond the theorem's rates there is no promise to keep,
    large = parts["PSI-GD, multiple 30"]
    assert large["broken"] > 0
    assert max(map(abs, large["curvature"])) > 2
    # and gradient descent's rates are those of one scale.
    one, ten = (parts[f"GD, rate kept, scale {x}"]["loss"][-1] for x in (1, 10))
    assert ten > one + 0.1
    one, ten = (
        parts[f"PSI-GD, rate kept, scale {x}"]["loss"][-1] for x in (1, 10)
    )
    assert abs(ten - one) < 1e-9

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(convergence._Descent, "path", again)
    experiment = convergence.EXPERIMENT
    path = tmp_path / "convergence-smoke.json"
    results = Results(path, experiment.smoke._asdict())
    experiment.measure(experiment.smoke, results)
    assert experiment.table(results.content) in printed
