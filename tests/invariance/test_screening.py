"""One gradient in place of many rescalings finds the same groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import find_groups
from psi_optax.invariance import jaxprs
from psi_optax.invariance.probe import screening
from psi_optax.invariance.probe.costs import (
    count_operations,
    is_gradient_cheaper,
)
from psi_optax.invariance.probe.evaluation import Evaluator
from psi_optax.invariance.probe.screening import CANDIDATE, Screen, Sums

X = jax.random.normal(jax.random.key(0), (5, 4))


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def median_norm(h):
    """Subtract a median, which the analysis does not know as a mean."""
    center = jnp.median(h, axis=0, keepdims=True)
    return (h - center) / jnp.std(h, axis=0, keepdims=True)


def linear(layer, x):
    return x @ layer["w"] + layer["u"][None]


PARAMS = {
    "layer": {"w": normal(1, 4, 4), "u": normal(2, 4)},
    "head": {"v": 0.3 * normal(3, 4, 2), "c": normal(4, 2)},
}
HIDDEN = {
    "alone": lambda p, x: jnp.sin(p["u"])[None] + x @ p["w"] / jnp.max(p["w"]),
    "channels": lambda p, x: median_norm(linear(p, x)),
    "pair": lambda p, x: linear(p, x) / jnp.max(jnp.abs(linear(p, x))),
    "nothing": lambda p, x: jnp.sin(linear(p, x)),
}
# Findings of the probe alone on the two parameters of the layer.
KINDS = {
    "alone": {"w": "measured", "u": "ordinary"},
    "channels": {"w": "measured", "u": "inert"},
    "pair": {"w": "measured", "u": "measured"},
    "nothing": {"w": "ordinary", "u": "ordinary"},
}


def loss_with(hidden):
    def loss(params, x):
        h = jnp.tanh(hidden(params["layer"], x) @ params["head"]["v"])
        return jnp.sum((h + params["head"]["c"][None]) ** 3)

    return loss


@pytest.fixture
def evaluations(monkeypatch):
    """Count the evaluations without a gradient, and those with one."""
    counts = [0, 0]
    call = Evaluator.__call__

    def counted(self, weights, data, paths=frozenset()):
        counts[bool(paths)] += 1
        return call(self, weights, data, paths)

    monkeypatch.setattr(Evaluator, "__call__", counted)
    return counts


def use_screen(patch, is_used):
    def is_cheaper(_, evaluations):
        return is_used and evaluations > 0

    patch.setattr(screening, "is_gradient_cheaper", is_cheaper)


def facts(report):
    return {
        path: (one.kind, one.group, one.reason)
        for path, one in report.findings.items()
    }


@pytest.mark.parametrize("method", ["both", "probe"])
@pytest.mark.parametrize("name", HIDDEN)
def test_the_report_is_that_of_all_rescalings(name, method, monkeypatch):
    loss, found = loss_with(HIDDEN[name]), []
    for is_used in (False, True):
        use_screen(monkeypatch, is_used)
        report = find_groups(loss, PARAMS, X, method=method)
        found.append(facts(report))
    assert found[0] == found[1]
    kinds = {key: report[f"layer/{key}"].kind for key in ("w", "u")}
    assert method == "both" or kinds == KINDS[name]


def chain(depth):
    """Layers with a scale each."""
    params = [{"k": normal(i, 4, 4), "b": normal(-i, 4)} for i in range(depth)]

    def loss(params, x):
        for p in params:
            x = jnp.tanh(x @ p["k"] + p["b"][None])
        return jnp.sum(x**3)

    return loss, params


def count(evaluations, depth):
    evaluations[:] = [0, 0]
    loss, params = chain(depth)
    find_groups(loss, params, X)
    return list(evaluations)


def test_the_evaluations_do_not_grow_with_depth(evaluations, monkeypatch):
    use_screen(monkeypatch, True)
    assert count(evaluations, 4) == count(evaluations, 8)
    # The control: at least one for each parameter, and no gradient.
    use_screen(monkeypatch, False)
    few, many = (count(evaluations, depth) for depth in (4, 8))
    assert many[0] - few[0] >= 8
    assert few[1] == many[1] == 0


def test_a_loss_without_a_derivative_is_measured(monkeypatch):
    """A gradient that is not needed is no reason to measure nothing."""

    def twice(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: 2 * x, shape, x)

    def loss(params, x):
        w = params["w"] / jnp.linalg.norm(params["w"], axis=0, keepdims=True)
        return jnp.sum(jnp.tanh(twice(x @ w) @ params["v"]) ** 3)

    params, reports = {"w": normal(1, 4, 4), "v": normal(2, 4, 2)}, []
    for is_used in (False, True):
        use_screen(monkeypatch, is_used)
        reports.append(find_groups(loss, params, X))
    assert reports[0] == reports[1]
    assert reports[1]["w"].deviation is not None


# -- sums ---------------------------------------------------------------------


def sums(terms):
    return Sums(terms.sum(), np.abs(terms).sum(), terms.size)


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_groups_whose_sums_vanish_pass(groups):
    """Terms at the bounds of the search: c of the size, t of the largest."""
    random, tolerance = np.random.default_rng(groups), 1e-9
    terms = random.normal(size=(groups, 64 // groups + 1))
    terms -= terms.mean(1, keepdims=True)
    size = np.abs(terms).sum(1, keepdims=True)
    allowed = CANDIDATE * size + tolerance * size.max()
    terms += 0.99 * allowed / terms.shape[1]
    found = {"a": sums(terms), "b": sums(-terms + 1), "c": sums(terms - 1)}
    screen = Screen(found, ["b"], tolerance)
    assert screen.passes("a")
    # b has no gradient, b and c cancel, and nothing is known of d.
    assert screen.passes("b")
    assert screen.may_vanish("b", "c")
    assert screen.passes("d")
    assert screen.may_vanish("c", "d")
    # The control: sums of c alone do not vanish.
    assert not screen.passes("c")
    assert not screen.may_vanish("a", "c")


def test_many_groups_of_rounding_pass():
    """Each of n sums may be t of the largest: n t of all, with one large."""
    terms, tolerance = np.full(1000, 1e-5), 1e-5
    terms[:2] = 1.0, -1.0
    assert Screen({"a": sums(terms)}, (), tolerance).passes("a")
    assert not Screen({"a": sums(terms)}, (), 0.0).passes("a")


def test_a_gradient_that_is_not_finite_rules_out():
    assert not Screen({"a": Sums(np.nan, np.nan, 3)}, (), 1e-9).passes("a")


# -- costs --------------------------------------------------------------------


def program(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jaxprs.make_jaxpr(function, *arrays)[0]


def convolve(x, kernel):
    return jax.lax.conv(x, kernel, (1, 1), "SAME")


def test_operations_are_counted():
    dot = program(jnp.dot, (2, 3), (3, 5))
    assert count_operations(dot) == 2 * 3 * 5
    # Four times those of a product of matrices.
    images = program(convolve, (2, 6, 8, 8), (5, 6, 3, 3))
    assert count_operations(images) == 4 * (2 * 5 * 8 * 8) * (6 * 3 * 3)

    def loop(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=7)[0]

    looped = program(loop, (2, 3), (3, 3))
    assert count_operations(looped) == 7 * 2 * 3 * 3


def test_a_gradient_pays_for_many_evaluations_of_much_work():
    small, large = (program(jnp.dot, (n, n), (n, n)) for n in (8, 1024))
    assert not is_gradient_cheaper(small, 1000)
    assert not is_gradient_cheaper(large, 0)
    assert is_gradient_cheaper(large, 1000)
