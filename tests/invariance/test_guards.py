"""Numbers that guard a norm: each found where it is one, and not elsewhere."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.invariance.losses import arrays, normalized, report_on

X, W = arrays(x=(8, 6), w=(6, 4)).values()
METHODS = ["analysis", "both"]
MATRIX = ScaleGroup((0, 1))

pytestmark = pytest.mark.usefixtures("promotion")


@pytest.fixture
def promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


def finding(function, *args, method="analysis", w=W, x=X):
    def of_product(params, x, *args):
        return function(x @ params["w"], *args)

    return report_on(of_product, {"w": w}, x, *args, method=method)["w"]


def with_epsilon(h, epsilon):
    return normalized(h, epsilon=epsilon)


# -- numbers in the place of infinities --------------------------------------


LARGEST = float(jnp.finfo(jnp.float32).max)


@pytest.mark.parametrize("method", METHODS)
def test_infinities_that_become_the_largest_number(method):
    for function in (
        jnp.nan_to_num,
        lambda h: jnp.where(h == jnp.inf, LARGEST, h),
        lambda h: jnp.where(h != -jnp.inf, h, -LARGEST),
        lambda h: jnp.where(jnp.isfinite(h), h, 0.0),
    ):
        found = finding(lambda h, f=function: normalized(f(h)), method=method)
        assert found.group == ScaleGroup(0)


@pytest.mark.parametrize(
    "function",
    [
        # Where an array is NaN or infinite, data decide: a mask, a gap.
        lambda h: jnp.nan_to_num(h, nan=1.0),
        lambda h: jnp.nan_to_num(h, posinf=1.0),
        lambda h: jnp.where(jnp.isfinite(h), h, 1.0),
        lambda h: jnp.where(h == jnp.inf, 1.0, h),
        # Elsewhere it is not as good as infinite.
        lambda h: jnp.where(h == jnp.inf, h, LARGEST),
        lambda h: jnp.where(h[::-1] == jnp.inf, LARGEST, h),
        lambda h: jnp.where(h == 1e30, LARGEST, h),
    ],
)
def test_other_numbers_in_their_place(function):
    def masked(h):
        mask = jnp.arange(8)[:, None] % 2 == 0
        return jnp.where(mask, h, jnp.inf)

    assert finding(lambda h: normalized(function(h))).group is None
    assert finding(lambda h: normalized(function(masked(h)))).group is None


# -- an epsilon that is an argument ------------------------------------------


def of_rows(h, bound, epsilon):
    return h / bound(jnp.linalg.norm(h, axis=-1, keepdims=True), epsilon)


def safe(size, epsilon):
    return jnp.where(size <= epsilon, epsilon, size)


SMALL = {
    "a variance": (with_epsilon, ScaleGroup(0)),
    "the largest": (lambda h, e: of_rows(h, jnp.maximum, e), MATRIX),
    "a guard": (lambda h, e: of_rows(h, safe, e), MATRIX),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SMALL)
def test_an_epsilon_that_is_an_argument(name, method):
    function, group = SMALL[name]
    for epsilon in (jnp.float32(1e-5), np.full((1, 1), 1e-5, np.float32)):
        found = finding(function, epsilon, method=method)
        assert found.group == group
        assert found.epsilon == pytest.approx(1e-5)
    closed = jnp.full((), 1e-5)
    found = finding(lambda h: function(h, closed), method=method)
    assert found.group == group


@pytest.mark.parametrize("name", SMALL)
def test_arguments_that_are_no_epsilon(name):
    function, _ = SMALL[name]
    for number in (0.0, -1e-5, 0.1, jnp.nan):
        assert finding(function, jnp.float32(number)).group is None
    for other in (jnp.full((2, 4, 1), 1e-5), jnp.full(4, 1e-5)):
        assert finding(
            lambda h, e: function(h, e.ravel()[:1]), other
        ).group is (None)
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    found = finding(function, shape)
    assert found.group is None
    assert "argument" in found.reason


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "function",
    [
        lambda h, e: normalized(h) + e * h,
        lambda h, e: h / jnp.where(h.std(0) == e, 1.0, h.std(0)) * (1 + e * h),
        lambda h, e: of_rows(h, jnp.minimum, e),
        lambda h, e: jnp.where(e == 0, normalized(h), h),
        lambda h, e: normalized(h) + jnp.where(jnp.maximum(e, 0) > 0, h, 0.0),
    ],
)
def test_a_small_argument_is_data_otherwise(function, method):
    assert finding(function, jnp.float32(1e-4), method=method).group is None


# -- clips that do not act ---------------------------------------------------


def clipped(low, high, epsilon=0.0):
    return lambda h: with_epsilon(jnp.clip(h, low, high), epsilon)


WIDE = {
    "both sides": clipped(-1e4, 1e4),
    "below": lambda h: normalized(jnp.maximum(h, -1e4)),
    "above": lambda h: normalized(jnp.minimum(h, 1e4)),
    "relu": clipped(0.0, 1e4),
    "clamp": lambda h: normalized(jax.lax.clamp(-1e4, h, 1e4)),
    "with an epsilon": clipped(-1e4, 1e4, 1e-5),
    "twice": lambda h: normalized(jnp.clip(jnp.clip(h, -1e4, 1e4), -1e5, 1e5)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", WIDE)
def test_a_clip_that_is_wide_is_recorded(name, method):
    found = finding(WIDE[name], method=method)
    assert found.group == ScaleGroup(0)
    assert found.bound == pytest.approx(1e4)
    assert found.kind == "proved within a bound"
    assert (found.epsilon > 0) == (name == "with an epsilon")


@pytest.mark.parametrize("method", METHODS)
def test_a_clip_that_cannot_act_is_no_bound(method):
    for function in (
        clipped(-jnp.inf, jnp.inf),
        clipped(-LARGEST, LARGEST),
        # What is clipped has no scale.
        lambda h: jnp.arccos(jnp.clip(h / jnp.abs(h).sum(0), -0.9, 0.9)),
        lambda h: jnp.log(jnp.clip(jax.nn.softmax(normalized(h)), 1e-7, 1.0)),
        lambda h: jnp.clip(normalized(h), -1e4, 1e4),
    ):
        found = finding(function, method=method)
        assert found.group == ScaleGroup(0)
        assert found.kind == "proved"
        assert found.bound == math.inf


@pytest.mark.parametrize(
    "function",
    [
        clipped(-999.0, 1e4),
        clipped(-1e4, 999.0),
        clipped(-1.0, 1.0),
        # What is always at its bound, or would be.
        clipped(1e4, 1e5),
        lambda h: normalized(jnp.maximum(h, 1e4)),
        lambda h: normalized(jnp.minimum(h, -1e4)),
        lambda h: jnp.clip(h, -1e4, 1e4),
        lambda h: normalized(jnp.where(h > 1e4, 1e4, h)),
    ],
)
def test_what_is_not_wide(function):
    assert finding(function).group is None


def test_a_bound_is_as_wide_as_an_epsilon_is_small():
    def found(**options):
        def product(params):
            return clipped(-1e4, 1e4)(X @ params["w"])

        return report_on(product, {"w": W}, **options)["w"]

    assert found().group == found(max_epsilon=1e-4).group == ScaleGroup(0)
    for small in (1e-5, 0.0):
        assert found(max_epsilon=small).group is None


@pytest.mark.parametrize("epsilon", [0.0, 1e-5])
def test_a_clip_that_acts_is_not_proved(epsilon):
    """On some of the values at the given weights, or on all of them."""
    function = clipped(-1e4, 1e4, epsilon)
    for size in (1.0, 100.0):
        found = finding(function, method="both", w=W * size)
        assert found.group == ScaleGroup(0)
    for size in (3e3, 1e4, 1e5, 1e7):
        found = finding(function, method="both", w=W * size)
        assert not found.kind.startswith("proved")
    # The control: nothing clips, at any size.
    for size in (1.0, 1e7):
        found = finding(normalized, method="both", w=W * size)
        assert found.kind == "proved"


def test_rows_that_reach_a_bound_one_after_another():
    """However large the weights are, some of the rows are clipped."""

    def function(h):
        h = jnp.clip(h, -2e3, 2e3)
        return h / jnp.linalg.norm(h, axis=-1, keepdims=True)

    rows = X * 10.0 ** -jnp.arange(0.0, 16.0, 2.0)[:, None]
    found = finding(function, method="both", x=rows)
    assert found.group == ScaleGroup((0, 1))
    assert found.bound == pytest.approx(2e3)
    # The control: some of them are at the given weights.
    found = finding(function, method="both", x=rows, w=1e6 * W)
    assert not found.kind.startswith("proved")


@pytest.mark.parametrize("method", METHODS)
def test_the_least_bound_of_what_scales_counts(method):
    """Other parameters have bounds of their own, or none."""
    params = {"a": W, **arrays(seed=2, b=(6, 4), c=(6, 4))}

    def product(params, x):
        a, b, c = (x @ params[path] for path in "abc")
        return clipped(-1e4, 1e5)(a) * clipped(-1e6, 1e7)(b) * normalized(c)

    report = report_on(product, params, X, method=method)
    bounds = [report[path].bound for path in "abc"]
    assert bounds == [pytest.approx(1e4), pytest.approx(1e6), math.inf]
    assert "1e+04" in str(report)


# -- guards of norms, behind other guards ------------------------------------


def safe_norm(w, axis=0):
    """Return a norm whose derivative at zero is zero."""
    square = jnp.sum(w * w, axis, keepdims=True)
    zero = square == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def over_norm(w, norm):
    """Divide by a norm as `geometry` does."""
    zero = norm == 0
    factor = jnp.where(zero, 0.0, 1.0) / jnp.where(zero, 1.0, norm)
    return w * jnp.where(factor == 0, 0.0, factor)


def of_weights(function, method="analysis"):
    def product(params, x):
        return x @ function(params["w"])

    return report_on(product, {"w": W}, X, method=method)["w"]


@pytest.mark.parametrize("method", METHODS)
def test_a_norm_of_weights_is_known_behind_its_guards(method):
    for function in (
        lambda w: over_norm(w, safe_norm(w)),
        lambda w: over_norm(w, 2 * safe_norm(w) ** 1.0),
        lambda w: w / jnp.where(safe_norm(w) == 0, 1.0, safe_norm(w)),
        lambda w: over_norm(w, jnp.where(safe_norm(w) == 0, 1.0, safe_norm(w))),
        lambda w: psi_optax.normalize(w, ScaleGroup(0), 2.0),
    ):
        found = of_weights(function, method=method)
        assert found.kind == "proved"
        assert found.group == ScaleGroup(0)


def masked(h):
    return jnp.where(jnp.arange(8)[:, None] % 2 == 0, h, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_norm_that_may_be_zero_is_not_known_behind_guards(method):
    """Rows that a mask has made zero take the other case, which scales."""

    def function(h):
        norm = safe_norm(masked(h), -1)
        units = h / jnp.linalg.norm(h, axis=-1, keepdims=True)
        return jnp.where(norm == 0, h, units)

    assert finding(function, method=method).group is None
    # The control: without zero rows the case is never taken.
    found = of_weights(
        lambda w: jnp.where(safe_norm(w) == 0, w, over_norm(w, safe_norm(w)))
    )
    assert found.group == ScaleGroup(0)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_of_such_a_guard_may_be_zero(method):
    """Where the tested norm may be zero, so may the result, though w is not."""

    def function(params, x):
        w = params["w"]
        zero = jnp.sum(masked(x @ w) ** 2, -1, keepdims=True) == 0
        size = jnp.where(zero, 0.0, jnp.sum(w * w)[None, None])
        return jnp.where(size == 0, x @ w, x @ w / jnp.sqrt(jnp.sum(w * w)))

    found = report_on(function, {"w": W}, X, method=method)["w"]
    assert found.group is None
