"""Programs that look invariant and are not, each beside one that is.

Of the first, whatever is said of it has to hold in numbers: that nothing is
found is right. Of the second, the weights `w` have to be found.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from tests.invariance.holds import analyse, broken, reached
from tests.invariance.programs import data, norm

TRAPS = {}

x = data(8, 3)
labels = np.asarray([0, 1, 0, 2, 0, 1, 2, 0])
rows = np.asarray([0, 3, 1, 2, 2, 1])
bare_rows = np.asarray([0, 3, 1, 2], np.uint32)
third = np.uint32(2)


def trap(*args, between, **shapes):
    """Register a loss of one of two things: a trap with the first alone."""

    def register(function):
        TRAPS[function.__name__] = function, between, args, shapes
        return function

    return register


def total(y):
    return jnp.sum(jnp.tanh(y) * data(*y.shape))


def layer(p):
    return x @ p["w"] + p["b"][None]


def spread(p):
    return norm(x @ p["w"], 0)


# -- guards and small constants ---------------------------------------------

KERNELS = (lambda p: p["v"], lambda p: p["w"] / norm(p["w"], 0))


@trap(labels, between=KERNELS, w=(3, 4), v=(3, 4))
def chosen_where_data_are_zero(kernel, p, labels):
    zero = (labels == 0)[:, None]
    return total(jnp.where(zero, x @ kernel(p), x @ p["w"] / spread(p)))


@trap(labels, between=KERNELS, w=(3, 4), v=(3, 4))
def chosen_where_data_are_not_zero(kernel, p, labels):
    some = (labels != 0)[:, None]
    return total(jnp.where(some, x @ p["w"] / spread(p), x @ kernel(p)))


@trap(between=(False, True), w=(3, 4))
def guard_of_what_is_often_zero(of_norm, p):
    y, n = jax.nn.relu(x @ p["w"]), norm(p["w"], 0)
    guarded = n if of_norm else y
    guarded = jnp.where(guarded == 0, 1.0, guarded)
    return total(y / guarded if of_norm else guarded / n)


@trap(between=(0.0, 2.0), w=(3, 4))
def guard_of_a_multiple(number, p):
    n = norm(p["w"], 0)
    zero = number * n == 0
    return total(x @ p["w"] / jnp.where(zero, 1.0, n))


@trap(between=(jnp.minimum, jnp.maximum), w=(3, 4))
def smallest_with_small_constant(function, p):
    n = function(norm(p["w"], None), 1e-3)
    return total(1e3 * x @ p["w"] * n / norm(p["w"], None) ** 2)


@trap(between=(1e-3, jnp.inf), w=(3, 4))
def clipped_to_small_constants(limit, p):
    y = jnp.clip(x @ p["w"], -limit, limit)
    return total(1e3 * y / norm(p["w"], None))


@trap(between=(lambda p: 1.0, lambda p: 1 / norm(p["w"], None)), w=(3,))
def small_steps_of_time(scale, p):
    def body(t, _):
        t = t + 1e-3
        return t, x * (p["w"] * t * scale(p))[None]

    return total(1e3 * lax.scan(body, 0.0, None, length=3)[1])


# -- offsets and means --------------------------------------------------------


@trap(between=(lambda y: 0.0 - y, lambda y: y), w=(3, 4), b=(4,))
def mean_of_the_negative(negative, p):
    y = layer(p)
    return total((y - negative(y).mean(0)[None]) / spread(p))


@trap(between=(-0.5, 0.5), w=(3, 4), b=(4,))
def mean_with_the_wrong_sign(number, p):
    y = layer(p)
    cube = jnp.full((), number) ** 3
    return total((y - y.sum(0)[None] * cube) / spread(p))


@trap(between=(2, 1), w=(3, 4), b=(4,))
def window_between_zeros(dilation, p):
    window = {"window_dimensions": (1, 1), "window_strides": (1, 1)}
    window |= {"padding": "VALID", "base_dilation": (dilation, 1)}
    y = lax.reduce_window(layer(p), 0.0, lax.add, **window)
    return total((y - y.mean(0)[None]) / spread(p))


def equal_rows(y):
    return jnp.broadcast_to(y.mean(0)[None], y.shape)


@trap(0, between=(lambda y: y, equal_rows), w=(3, 4), v=(3, 4))
def loop_without_a_turn(last, p, turns):
    other = lax.fori_loop(0, turns, lambda _, c: equal_rows(c), x @ p["v"])
    y = x @ p["w"] + last(other)
    return total((y - y.mean(0)[None]) / spread(p))


@trap(0, between=(0.0, 0.5), w=(4, 4))
def loop_to_zero_without_a_turn(factor, p, turns):
    w = p["w"] / norm(p["w"], 0) if factor else p["w"]
    return total(lax.fori_loop(0, turns, lambda _, c: c * factor, w))


# -- parts of one parameter ---------------------------------------------------


@trap(between=(jnp.multiply, jnp.divide), w=(2, 3))
def halves_against_each_other(function, p):
    return total(function(p["w"][0], p["w"][1]))


@trap(between=(1, 2), w=(2, 3))
def half_as_square(power, p):
    return total(p["w"][0] ** 2 / p["w"][1] ** power)


@trap(between=(slice(2, 4), slice(3, 6)), w=(2, 5))
def blocks_that_do_not_divide(rows, p):
    return total(jnp.repeat(p["w"], 3, axis=0)[rows] / norm(p["w"], 1)[1:])


@trap(between=(4, 3), w=(3, 5))
def groups_across_blocks(groups, p):
    kernel = data(groups, 24 // groups, 3)
    n = norm(p["w"], 1)
    y = lax.conv_general_dilated(
        data(2, 24, 5) * jnp.repeat(n, 8, axis=0)[None],
        jnp.asarray(kernel),
        (1,),
        "VALID",
        feature_group_count=groups,
    )
    return sum(total(y[:, i] / n[i % 3, 0]) for i in range(groups))


@trap(between=(4, 3), w=(3, 5))
def shards_across_blocks(shards, p):
    axis = jax.sharding.AxisType.Auto
    mesh, spec = jax.make_mesh((shards,), ("d",), (axis,)), PartitionSpec("d")
    n = norm(p["w"], 1)[:, 0]
    y = jnp.repeat(n, 8) * data(24)
    y = jax.shard_map(
        lambda a: norm(a, 0), mesh=mesh, in_specs=spec, out_specs=spec
    )(y)
    return total(y[:3] / n) + total(y[3:] / n[:1])


@trap(between=(True, False), w=(6,), v=(4, 3))
def tie_of_other_shapes(tied, p):
    if not tied:
        return total(p["w"] / norm(p["w"], None)) + total(p["v"])
    w, v = p["w"].reshape(2, 3), p["v"].reshape(2, 2, 3)
    n = jnp.sqrt(w**2 + jnp.sum(v**2, 1))
    return total(w / n) + total(v / n[:, None])


@trap(between=("v", "w"), w=(2, 12), v=(4, 6))
def tie_to_what_is_stopped(of_which, p):
    n = norm(lax.stop_gradient(p[of_which]), None)
    return total(p["w"] / n)


@trap(between=(1.0, 0.0), w=(3, 4))
def padded_with_ones(value, p):
    y = jnp.pad(x @ p["w"], ((0, 1), (0, 0)), constant_values=value)
    return total(y / norm(p["w"], None))


@trap(between=(False, True), w=(3, 4))
def channels_in_reversed_order(after, p):
    y, n = x @ p["w"], spread(p)
    return total((y / n)[:, ::-1] if after else y[:, ::-1] / n)


@trap(
    bare_rows,
    between=(lambda p: data(4, 4), lambda p: x[4:] @ p["w"]),
    w=(3, 4),
)
def rows_put_among_others(values, p, rows):
    y = (x @ p["w"]).at[rows].set(values(p))
    return total(y / norm(p["w"], None))


@trap(between=(False, True), w=(6, 4))
def windows_over_rows(before, p):
    def windows(y):
        kernel, axes = data(3, 4, 5).astype(y.dtype), ("NWC", "WIO", "NWC")
        return lax.conv_general_dilated(
            y[None], kernel, (1,), "SAME", dimension_numbers=axes
        )[0]

    w, n = p["w"], norm(p["w"], 1)
    return total(windows(w / n) if before else windows(w) / n)


# -- lookups ------------------------------------------------------------------


@trap(rows, between=(0, 1), w=(4, 3))
def lookups_along_two_axes(axis, p, rows):
    a = p["w"][rows]
    first = jnp.broadcast_to(a[:, :1], (6, 6))
    norms = jnp.expand_dims(norm(a, 1)[:, 0], axis)
    norms = jnp.broadcast_to(norms, (6, 6))
    return total(jnp.ravel(first) / jnp.ravel(norms))


def row(w, i):
    return lax.dynamic_slice(w, (i, jnp.uint32(0)), (1, w.shape[1]))


@trap(third, between=(bool, np.uint32), w=(4, 3))
def lookup_of_a_truth_value(dtype, p, i):
    other = i.astype(dtype).astype(jnp.uint32)
    return total(row(p["w"], i) / norm(row(p["w"], other), 1))


@trap(third, between=(2, 1), w=(2, 3))
def lookup_beyond_the_end(times, p, i):
    many = jnp.concatenate([p["w"]] * times)
    return total(row(p["w"], i) / norm(row(many, i), 1))


@trap(np.asarray([2, 7]), between=(1.0, 0.0), w=(4, 3))
def lookup_filled_with_ones(fill, p, rows):
    y = p["w"].at[rows].get(mode="fill", fill_value=fill)
    return total(y / norm(p["w"], None))


# -- the rest -----------------------------------------------------------------


@trap(between=((lambda a, b: a + 2 * b, 1), (lax.add, 0)), w=(4, 4))
def reduction_by_a_function(function_and_axis, p):
    function, axis = function_and_axis
    y = lax.reduce(p["w"], 0.0, function, (0,))
    return total(y / norm(p["w"], axis).ravel())


@trap(between=(0.3333335, 1 / 3), w=(4,))
def power_that_is_nearly_rational(power, p):
    y = (jnp.abs(p["w"]) ** power) ** 3
    return total(y / norm(p["w"], None))


@trap(between=(1, None), w=(4, 4))
def transposed_twice_over(axis, p):
    return total(p["w"] @ p["w"].T / norm(p["w"], axis) ** 2)


@trap(np.asarray([2]), between=(0, None), w=(4, 3))
def one_lookup_squeezed(axis, p, i):
    return total(p["w"][i][0][None] / norm(p["w"], axis))


@trap(between=(True, False), w=(4, 3))
def gather_at_the_beginning(gathered, p):
    numbers = lax.GatherDimensionNumbers((0,), (0,), (1,))
    columns = lax.gather(p["w"], np.asarray([[1], [2]]), numbers, (1, 1))
    return total((columns if gathered else p["w"][:1, 1:]) / norm(p["w"], None))


@trap(between=(lambda w: w, lambda w: w / norm(w, None)), w=(4,))
def complex_constant(of_w, p):
    return total(jnp.abs(of_w(p["w"]).astype(complex) * np.complex128(1j)))


@trap(between=(True, False), w=(4, 3))
def empty_slice(rolled, p):
    if rolled:
        return total(jnp.roll(p["w"], 4, 0))
    y = jnp.concatenate([p["w"][4:], p["w"][:4]])
    return total(y / norm(p["w"], 0))


@trap(between=(lambda w: w.T + 1, lambda w: w.mean(0)[None]), w=(4, 4))
def square_matrices_and_axes(mean, p):
    y = p["w"] - mean(p["w"])
    return total(y / norm(p["w"], 0))


@trap(between=(lambda p: 1.0, spread), w=(3, 4))
def whole_parts_of_what_scales(size, p):
    parts = (4 * (x @ p["w"]) / size(p)).astype(jnp.int32)
    return total(x @ p["w"] / spread(p) + parts.astype(x.dtype))


@trap(between=(lambda p: data(8, 4), lambda p: x[:, ::-1] @ p["w"]), w=(3, 4))
def angle_to_what_does_not_scale(side, p):
    return total(jnp.arctan2(x @ p["w"], side(p)))


@trap(between=(1, 4), w=(3, 4))
def product_of_four_that_scale(power, p):
    product = jnp.prod(x @ p["w"], 1, keepdims=True)
    return total(product / norm(p["w"], None) ** power)


# -- the tests ----------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("name", TRAPS)
def test_what_is_said_holds(name, control):
    function, between, args, shapes = TRAPS[name]
    one = functools.partial(function, between[control])
    params = {
        path: jnp.asarray(data(*shape, seed=10 + i))
        for i, (path, shape) in enumerate(shapes.items())
    }
    verdicts = analyse(one, params, *args)

    def loss(params):
        return one(params, *args)

    assert not broken(loss, params, verdicts), verdicts
    assert not reached(loss, params, verdicts), verdicts
    if control:
        found = verdicts["w"]
        # Where each element is a group of its own, only signs matter.
        assert found.kind.startswith("proved") or "signs" in found.reason
