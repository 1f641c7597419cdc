"""Sums over groups against numpy, sharded and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.groups.reductions import (
    accumulation_dtype,
    broadcast_groups,
    sum_groups,
    to_accumulator,
)

CASES = [
    ((4, 6), (0,), ()),
    ((4, 6), (0, 1), ()),
    ((4, 6), (), ()),
    ((3, 3, 4, 6), (0, 1, 2), ()),
    ((3, 3, 4, 6), (0, 2), ()),
    ((4, 6), (0, 1), ((1, 3),)),
    ((4, 6), (0, 1), ((0, 2), (1, 3))),
    ((4, 6), (1,), ((1, 2),)),
    ((2, 6, 5, 4), (1, 3), ((1, 3), (3, 2))),
    ((4, 6), (0, 1), ((1, 1),)),
    ((4, 6), (0, 1), ((1, 6),)),
    ((0, 3), (0,), ()),
    ((0, 3), (0,), ((0, 2),)),
]


def numpy_blocks(x, axes, blocks):
    """The same by reshaping, which a numpy array does not mind."""
    counts = dict(blocks)
    shape, summed = [], []
    for axis, length in enumerate(x.shape):
        if axis in counts:
            shape += [counts[axis], length // counts[axis]]
            summed.append(len(shape) - 1)
        else:
            if axis in axes:
                summed.append(len(shape))
            shape.append(length)
    return np.sum(x.reshape(shape), axis=tuple(summed))


@pytest.mark.parametrize(("shape", "axes", "blocks"), CASES)
def test_sums_are_those_of_numpy(shape, axes, blocks):
    # Small integers: every order of summation gives the same float32.
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)
    total = sum_groups(jnp.asarray(x), axes, blocks)
    np.testing.assert_array_equal(total, numpy_blocks(x, axes, blocks))


@pytest.mark.parametrize(("shape", "axes", "blocks"), CASES)
def test_spreading_is_the_transpose_of_summing(shape, axes, blocks):
    def total(x):
        return sum_groups(x, axes, blocks)

    x = jnp.zeros(shape)
    out, transpose = jax.vjp(total, x)
    s = jnp.arange(1.0, out.size + 1).reshape(out.shape)
    spread = jnp.broadcast_to(broadcast_groups(s, shape, axes, blocks), shape)
    np.testing.assert_array_equal(spread, transpose(s)[0])


def test_one_block_does_not_see_what_is_wrong_in_another():
    x = jnp.array([1.0, 2.0, jnp.nan, 4.0])
    assert sum_groups(x, (0,), ((0, 2),))[0] == 3
    s = jnp.array([5.0, jnp.inf])
    assert broadcast_groups(s, (4,), (0,), ((0, 2),))[:2].tolist() == [5, 5]


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_three_blocks_on_an_axis_sharded_eight_ways(kind):
    types = (getattr(jax.sharding.AxisType, kind),)
    mesh = jax.make_mesh((8,), ("d",), axis_types=types)
    x = np.arange(4 * 24, dtype=np.float32).reshape(4, 24)
    spec = jax.sharding.NamedSharding(mesh, jax.P(None, "d"))
    blocks = ((1, 3),)

    @jax.jit
    def there_and_back(x):
        total = sum_groups(x, (0, 1), blocks)
        return total, x + broadcast_groups(total, x.shape, (0, 1), blocks)

    with jax.set_mesh(mesh):
        total, spread = there_and_back(jax.device_put(x, spec))
        # What the core avoids, and why: blocks are no multiple of shards.
        if kind == "Explicit":
            with pytest.raises(Exception, match="(?i)shard"):
                jax.jit(lambda x: x.reshape(4, 3, 8))(jax.device_put(x, spec))
    expected = numpy_blocks(x, (0, 1), blocks)
    np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(spread, x + np.repeat(expected, 8)[None])
    assert spread.sharding.spec == jax.P(None, "d")


def test_nothing_narrower_than_float32_accumulates(x64):
    for narrow in ["float16", "bfloat16", "float32"]:
        assert accumulation_dtype(narrow) == jnp.float32
        assert to_accumulator(jnp.ones(2, narrow)).dtype == jnp.float32
    assert accumulation_dtype("float64") == jnp.float64
    # 300 squared is beyond float16, and 4096 ones stall a bfloat16 sum.
    big = jnp.full(4, 300.0, jnp.float16)
    assert (
        sum_groups(to_accumulator(big) * to_accumulator(big), (0,), ())
        == 360000
    )
    assert (
        sum_groups(to_accumulator(jnp.ones(4096, jnp.bfloat16)), (0,), ())
        == 4096
    )
