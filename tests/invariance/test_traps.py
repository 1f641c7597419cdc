"""Programs that look invariant and are not, each beside one that is.

Of the first, whatever is said of it has to hold in numbers: that nothing is
found is right. Of the second, the weights `w` have to be found.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from tests.invariance.holds import analyse, broken, reached
from tests.invariance.programs import data, norm

TRAPS: dict[str, "Trap"] = {}

x = data(8, 3)
labels = np.asarray([0, 1, 0, 2, 0, 1, 2, 0])
rows = np.asarray([0, 3, 1, 2, 2, 1])
bare_rows = np.asarray([0, 3, 1, 2], np.uint32)
third = np.uint32(2)


@dataclasses.dataclass(frozen=True)
class Trap:
    """Two losses of parameters of these shapes."""

    shapes: dict[str, tuple[int, ...]]
    trap: Callable
    control: Callable
    args: tuple = ()


def trap(*args, **shapes):
    """Registers what a function returns: the trap, and its control."""

    def register(function):
        first, second = function()
        TRAPS[function.__name__] = Trap(shapes, first, second, args)
        return function

    return register


def total(y):
    return jnp.sum(jnp.tanh(y) * data(*y.shape))


def layer(p):
    return x @ p["w"] + p["b"][None]


def spread(p):
    return norm(x @ p["w"], 0)


# -- guards and small constants ---------------------------------------------


@trap(labels, w=(3, 4), v=(3, 4))
def chosen_where_data_are_zero():
    def loss(kernel):
        def of(p, labels):
            zero = (labels == 0)[:, None]
            return total(jnp.where(zero, x @ kernel(p), x @ p["w"] / spread(p)))

        return of

    return loss(lambda p: p["v"]), loss(lambda p: p["w"] / norm(p["w"], 0))


@trap(labels, w=(3, 4), v=(3, 4))
def chosen_where_data_are_not_zero():
    def loss(kernel):
        def of(p, labels):
            some = (labels != 0)[:, None]
            return total(jnp.where(some, x @ p["w"] / spread(p), x @ kernel(p)))

        return of

    return loss(lambda p: p["v"]), loss(lambda p: p["w"] / norm(p["w"], 0))


@trap(w=(3, 4))
def guard_of_what_is_often_zero():
    def ones(p):
        y = jax.nn.relu(x @ p["w"])
        return total(jnp.where(y == 0, 1.0, y) / norm(p["w"], 0))

    def safe(p):
        n = norm(p["w"], 0)
        return total(x @ p["w"] / jnp.where(n == 0, 1.0, n))

    return ones, safe


@trap(w=(3, 4))
def guard_of_a_multiple():
    def loss(number):
        def of(p):
            n = norm(p["w"], 0)
            zero = number * n == 0
            return total(x @ p["w"] / jnp.where(zero, 1.0, n))

        return of

    return loss(0.0), loss(2.0)


@trap(w=(3, 4))
def smallest_with_small_constant():
    def loss(function):
        def of(p):
            n = function(norm(p["w"], None), 1e-3)
            return total(1e3 * x @ p["w"] * n / norm(p["w"], None) ** 2)

        return of

    return loss(jnp.minimum), loss(jnp.maximum)


@trap(w=(3, 4))
def clipped_to_small_constants():
    def loss(limit):
        def of(p):
            y = jnp.clip(x @ p["w"], -limit, limit)
            return total(1e3 * y / norm(p["w"], None))

        return of

    return loss(1e-3), loss(jnp.inf)


@trap(w=(3,))
def small_steps_of_time():
    def loss(scale):
        def of(p):
            def body(t, _):
                t = t + 1e-3
                return t, x * (p["w"] * t * scale(p))[None]

            return total(1e3 * lax.scan(body, 0.0, None, length=3)[1])

        return of

    return loss(lambda p: 1.0), loss(lambda p: 1 / norm(p["w"], None))


# -- offsets and means --------------------------------------------------------


@trap(w=(3, 4), b=(4,))
def mean_of_the_negative():
    def loss(negative):
        def of(p):
            y = layer(p)
            return total((y - negative(y).mean(0)[None]) / spread(p))

        return of

    return loss(lambda y: 0.0 - y), loss(lambda y: y)


@trap(w=(3, 4), b=(4,))
def mean_with_the_wrong_sign():
    def loss(number):
        def of(p):
            y = layer(p)
            cube = jnp.full((), number) ** 3
            return total((y - y.sum(0)[None] * cube) / spread(p))

        return of

    return loss(-0.5), loss(0.5)


@trap(w=(3, 4), b=(4,))
def window_between_zeros():
    def loss(dilation):
        def of(p):
            y = lax.reduce_window(
                layer(p),
                0.0,
                lax.add,
                (1, 1),
                (1, 1),
                "VALID",
                base_dilation=(dilation, 1),
            )
            return total((y - y.mean(0)[None]) / spread(p))

        return of

    return loss(2), loss(1)


@trap(0, w=(3, 4), v=(3, 4))
def loop_without_a_turn():
    def loss(last):
        def of(p, turns):
            y = x @ p["w"]
            other = lax.fori_loop(
                0,
                turns,
                lambda _, c: jnp.broadcast_to(c.mean(0)[None], c.shape),
                x @ p["v"],
            )
            y = y + last(other)
            return total((y - y.mean(0)[None]) / spread(p))

        return of

    return loss(lambda y: y), loss(
        lambda y: jnp.broadcast_to(y.mean(0)[None], y.shape)
    )


@trap(0, w=(4, 4))
def loop_to_zero_without_a_turn():
    def zeros(p, turns):
        return total(lax.fori_loop(0, turns, lambda _, c: c * 0.0, p["w"]))

    def unit(p, turns):
        w = p["w"] / norm(p["w"], 0)
        return total(lax.fori_loop(0, turns, lambda _, c: c * 0.5, w))

    return zeros, unit


# -- parts of one parameter ---------------------------------------------------


@trap(w=(2, 3))
def halves_against_each_other():
    return (
        lambda p: total(p["w"][0] * p["w"][1]),
        lambda p: total(p["w"][0] / p["w"][1]),
    )


@trap(w=(2, 3))
def half_as_square():
    return (
        lambda p: total(p["w"][0] ** 2 / p["w"][1]),
        lambda p: total(p["w"][0] ** 2 / p["w"][1] ** 2),
    )


@trap(w=(2, 5))
def blocks_that_do_not_divide():
    def loss(start, stop):
        def of(p):
            y = jnp.repeat(p["w"], 3, axis=0)
            n = norm(p["w"], 1)
            return total(y[start:stop] / n[1:])

        return of

    return loss(2, 4), loss(3, 6)


@trap(w=(3, 5))
def groups_across_blocks():
    def loss(groups):
        kernel = data(groups, 24 // groups, 3)

        def of(p):
            n = norm(p["w"], 1)
            y = lax.conv_general_dilated(
                data(2, 24, 5) * jnp.repeat(n, 8, axis=0)[None],
                jnp.asarray(kernel),
                (1,),
                "VALID",
                feature_group_count=groups,
            )
            return sum(total(y[:, i] / n[i % 3, 0]) for i in range(groups))

        return of

    return loss(4), loss(3)


@trap(w=(3, 5))
def shards_across_blocks():
    def loss(repeats, shards):
        mesh = jax.make_mesh(
            (shards,), ("d",), axis_types=(jax.sharding.AxisType.Auto,)
        )
        spec = PartitionSpec("d")

        def of(p):
            n = norm(p["w"], 1)[:, 0]
            y = jnp.repeat(n, repeats) * data(3 * repeats)
            y = jax.shard_map(
                lambda a: norm(a, 0), mesh=mesh, in_specs=spec, out_specs=spec
            )(y)
            found = total(y[:3] / n)
            return found + total(y[3:] / n[:1]) if shards > 3 else found

        return of

    return loss(8, 4), loss(8, 3)


@trap(w=(6,), v=(4, 3))
def tie_of_other_shapes():
    def merged(p):
        w, v = p["w"].reshape(2, 3), p["v"].reshape(2, 2, 3)
        n = jnp.sqrt(w**2 + jnp.sum(v**2, 1))
        return total(w / n) + total(v / n[:, None])

    def alone(p):
        return total(p["w"] / norm(p["w"], None)) + total(p["v"])

    return merged, alone


@trap(w=(2, 12), v=(4, 6))
def tie_to_what_is_stopped():
    def loss(of_which):
        def of(p):
            n = norm(lax.stop_gradient(p[of_which]), None)
            return total(p["w"] / n)

        return of

    return loss("v"), loss("w")


@trap(w=(3, 4))
def padded_with_ones():
    def loss(value):
        def of(p):
            y = jnp.pad(x @ p["w"], ((0, 1), (0, 0)), constant_values=value)
            return total(y / norm(p["w"], None))

        return of

    return loss(1.0), loss(0.0)


@trap(w=(3, 4))
def channels_in_reversed_order():
    def trap(p):
        return total((x @ p["w"])[:, ::-1] / spread(p))

    def control(p):
        return total((x @ p["w"] / spread(p))[:, ::-1])

    return trap, control


@trap(bare_rows, w=(3, 4))
def rows_put_among_others():
    def loss(values):
        def of(p, rows):
            y = (x @ p["w"]).at[rows].set(values(p))
            return total(y / norm(p["w"], None))

        return of

    return loss(lambda p: data(4, 4)), loss(lambda p: x[4:] @ p["w"])


@trap(w=(6, 4))
def windows_over_rows():
    def windows(y):
        return lax.conv_general_dilated(
            y[None],
            data(3, 4, 5).astype(y.dtype),
            (1,),
            "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )[0]

    def trap(p):
        return total(windows(p["w"]) / norm(p["w"], 1))

    def control(p):
        return total(windows(p["w"] / norm(p["w"], 1)))

    return trap, control


# -- lookups ------------------------------------------------------------------


@trap(rows, w=(4, 3))
def lookups_along_two_axes():
    def loss(axis):
        def of(p, rows):
            a = p["w"][rows]
            first = jnp.broadcast_to(a[:, :1], (6, 6))
            norms = jnp.expand_dims(norm(a, 1)[:, 0], axis)
            norms = jnp.broadcast_to(norms, (6, 6))
            return total(jnp.ravel(first) / jnp.ravel(norms))

        return of

    return loss(0), loss(1)


def row(w, i):
    return lax.dynamic_slice(w, (i, jnp.uint32(0)), (1, w.shape[1]))


@trap(third, w=(4, 3))
def lookup_of_a_truth_value():
    def loss(other):
        def of(p, i):
            return total(row(p["w"], i) / norm(row(p["w"], other(i)), 1))

        return of

    return (
        loss(lambda i: i.astype(bool).astype(jnp.uint32)),
        loss(lambda i: i.astype(jnp.uint32)),
    )


@trap(third, w=(2, 3))
def lookup_beyond_the_end():
    def loss(times):
        def of(p, i):
            many = jnp.concatenate([p["w"]] * times)
            return total(row(p["w"], i) / norm(row(many, i), 1))

        return of

    return loss(2), loss(1)


@trap(np.asarray([2, 7]), w=(4, 3))
def lookup_filled_with_ones():
    def loss(fill):
        def of(p, rows):
            y = p["w"].at[rows].get(mode="fill", fill_value=fill)
            return total(y / norm(p["w"], None))

        return of

    return loss(1.0), loss(0.0)


# -- the rest -----------------------------------------------------------------


@trap(w=(4, 4))
def reduction_by_a_function():
    def loss(function):
        def of(p):
            y = lax.reduce(p["w"], 0.0, function, (0,))
            return total(y / norm(p["w"], 1)[:, 0])

        return of

    def control(p):
        y = lax.reduce(p["w"], 0.0, lax.add, (0,))
        return total(y / norm(p["w"], 0)[0])

    return loss(lambda a, b: a + 2 * b), control


@trap(w=(4,))
def power_that_is_nearly_rational():
    def loss(power):
        def of(p):
            y = (jnp.abs(p["w"]) ** power) ** 3
            return total(y / norm(p["w"], None))

        return of

    return loss(0.3333335), loss(1 / 3)


@trap(w=(4, 4))
def transposed_twice_over():
    def loss(axis):
        return lambda p: total(p["w"] @ p["w"].T / norm(p["w"], axis) ** 2)

    return loss(1), loss(None)


@trap(np.asarray([2]), w=(4, 3))
def one_lookup_squeezed():
    def loss(axis):
        return lambda p, i: total(p["w"][i][0][None] / norm(p["w"], axis))

    return loss(0), loss(None)


@trap(w=(4, 3))
def gather_at_the_beginning():
    numbers = lax.GatherDimensionNumbers((0,), (0,), (1,))

    def of(p):
        columns = lax.gather(p["w"], np.asarray([[1], [2]]), numbers, (1, 1))
        return total(columns / norm(p["w"], None))

    return of, lambda p: total(p["w"][:1, 1:] / norm(p["w"], None))


@trap(w=(4,))
def complex_constant():
    unit = np.complex128(1j)

    def loss(of_w):
        return lambda p: total(jnp.abs(of_w(p["w"]).astype(complex) * unit))

    return loss(lambda w: w), loss(lambda w: w / norm(w, None))


@trap(w=(4, 3))
def empty_slice():
    def loss(axis):
        def of(p):
            y = jnp.concatenate([p["w"][4:], p["w"][:4]])
            return total(y / norm(p["w"], axis))

        return of

    return lambda p: total(jnp.roll(p["w"], 4, 0)), loss(0)


@trap(w=(4, 4))
def square_matrices_and_axes():
    def loss(mean):
        def of(p):
            y = p["w"] - mean(p["w"])
            return total(y / norm(p["w"], 0))

        return of

    return loss(lambda w: w.T + 1), loss(lambda w: w.mean(0)[None])


@trap(w=(3, 4))
def whole_parts_of_what_scales():
    def loss(size):
        def of(p):
            parts = (4 * (x @ p["w"]) / size(p)).astype(jnp.int32)
            return total(x @ p["w"] / spread(p) + parts.astype(x.dtype))

        return of

    return loss(lambda p: 1.0), loss(spread)


@trap(w=(3, 4))
def angle_to_what_does_not_scale():
    def loss(side):
        return lambda p: total(jnp.arctan2(x @ p["w"], side(p)))

    return loss(lambda p: data(8, 4)), loss(lambda p: x[:, ::-1] @ p["w"])


@trap(w=(3, 4))
def product_of_four_that_scale():
    def loss(power):
        def of(p):
            product = jnp.prod(x @ p["w"], 1, keepdims=True)
            return total(product / norm(p["w"], None) ** power)

        return of

    return loss(1), loss(4)


# -- the tests ----------------------------------------------------------------


def weights(shapes):
    return {
        path: jnp.asarray(data(*shape, seed=10 + i))
        for i, (path, shape) in enumerate(shapes.items())
    }


def bound(loss, args):
    return lambda params: loss(params, *args)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TRAPS)
def test_what_is_said_holds(name):
    case = TRAPS[name]
    params = weights(case.shapes)
    verdicts = analyse(case.trap, params, *case.args)
    loss = bound(case.trap, case.args)
    assert not broken(loss, params, verdicts), verdicts
    assert not reached(loss, params, verdicts), verdicts


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TRAPS)
def test_what_is_there_is_found(name):
    case = TRAPS[name]
    params = weights(case.shapes)
    verdicts = analyse(case.control, params, *case.args)
    loss = bound(case.control, case.args)
    assert not broken(loss, params, verdicts), verdicts
    found = verdicts["w"]
    # Where each element is a group of its own, only signs matter.
    assert found.kind.startswith("proved") or "signs" in found.reason, found
