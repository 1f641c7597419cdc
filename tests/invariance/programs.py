"""Instructions of random programs: functions of two arrays and a number.

The shapes that are there decide on what each does, so that any list of numbers
is a program.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def data(*shape, seed=0):
    """Numbers that are no parameters, none of them special."""
    return np.random.RandomState(seed + sum(shape)).normal(size=shape)


def indices(count, below, seed=0):
    return np.random.RandomState(seed).randint(0, below, size=count)


# -- instructions -----------------------------------------------------------


def fitted(x, shape):
    """An array of this shape that is made of another one."""
    if x.shape == shape:
        return x
    if x.T.shape == shape:
        return x.T
    if x.size == math.prod(shape):
        return x.reshape(shape)
    for axis in range(len(shape)):
        if x.shape == shape[:axis] + shape[axis + 1 :]:
            return jnp.broadcast_to(jnp.expand_dims(x, axis), shape)
        if x.shape == (shape[axis],):
            own = [1] * len(shape)
            own[axis] = shape[axis]
            return jnp.broadcast_to(x.reshape(own), shape)
    return jnp.broadcast_to(norm(x, None), shape)


def norm(x, axis):
    return jnp.sqrt(jnp.sum(x * x, axis=axis, keepdims=axis is not None))


def wide(x, rank=2):
    """Add axes until there are at least so many."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def axis_of(x, k):
    return k % x.ndim


def factorizations(size):
    found = [(size,)]
    for a in range(2, size):
        if size % a == 0:
            found.append((a, size // a))
            for b in range(2, size // a):
                if size // a % b == 0:
                    found.append((a, b, size // a // b))
    return found


def blocks(x, k):
    """Along which axis, and how many: 2 or 3 if its length allows."""
    axis = axis_of(x, k)
    for count in ((2, 3), (3, 2))[k // 4 % 2]:
        if x.shape[axis] % count == 0:
            return axis, count
    return axis, 1


def reshaped(x, y, k):
    shapes = factorizations(x.size)
    return x.reshape(shapes[k % len(shapes)])


def one_block(x, y, k):
    axis, count = blocks(x, k)
    return jnp.split(x, count, axis)[k // 8 % count]


def odd_slice(x, y, k):
    axis = axis_of(x, k)
    start = k // 4 % x.shape[axis]
    return lax.slice_in_dim(x, start, x.shape[axis], axis=axis)


def swapped_blocks(x, y, k):
    axis, count = blocks(x, k)
    return jnp.concatenate(jnp.split(x, count, axis)[::-1], axis)


def block_by_block(x, y, k):
    """Another function for each block."""
    axis, count = blocks(x, k)
    parts = jnp.split(x, count, axis)
    shapes = [-1 if k % 3 else axis, None]
    for i in range(1, count):
        own = shapes[i % 2]
        if own is None or i + k & 1:
            parts[i] = parts[i] / norm(parts[i], own)
    return jnp.concatenate(parts, axis)


def joined(x, y, k):
    axis = axis_of(x, k)
    shape = list(x.shape)
    if k // 4 % 2 and shape[axis] > 1:
        shape[axis] //= 2
    return jnp.concatenate([x, fitted(y, tuple(shape))], axis)


def repeated(x, y, k):
    return jnp.repeat(x, 2 + k // 4 % 2, axis=axis_of(x, k))


def tiled(x, y, k):
    times = [1] * x.ndim
    times[axis_of(x, k)] = 2 + k // 4 % 2
    return jnp.tile(x, times)


def centered(x, y, k):
    axis = axis_of(x, k)
    other = fitted(y, x.shape) if k // 4 % 4 == 0 else x
    return x - jnp.mean(other, axis=axis, keepdims=True)


def centered_wrongly(x, y, k):
    """Subtract the mean along one axis along another one if it fits."""
    axis = axis_of(x, k)
    mean = jnp.mean(x, axis=axis)
    return x - fitted(mean, x.shape)


def standardized(x, y, k):
    axis = (axis_of(x, k), None)[k // 4 % 3 == 2]
    x = x - jnp.mean(x, axis=axis, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x * x, axis=axis, keepdims=True))


def by_moments(x, y, k):
    axis = axis_of(x, k)
    mean = jnp.mean(x, axis=axis, keepdims=True)
    of = fitted(y, x.shape) if k // 4 % 5 == 0 else x
    square = jnp.mean(lax.square(of), axis=axis, keepdims=True)
    return (x - mean) / jnp.sqrt(jnp.abs(square - lax.square(mean)))


def normalized(x, y, k):
    return x / norm(x, (axis_of(x, k), None)[k // 4 % 3 == 2])


def normalized_by(x, y, k):
    return x / norm(fitted(y, x.shape), axis_of(x, k))


def offset(x, y, k):
    """A sum with what is constant along an axis."""
    axis = axis_of(x, k)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return x + jnp.expand_dims(fitted(y, shape), axis)


def matrix(x, y, k):
    x = wide(x)
    return jnp.matmul(x, data(x.shape[-1], (4, 6, x.shape[-1])[k % 3]))


def product(x, y, k):
    """A product of two arrays, with a batch axis if they have one."""
    x, y = wide(x), wide(y)
    if x.ndim == y.ndim == 3 and x.shape[0] == y.shape[0]:
        if x.shape[2] == y.shape[2]:
            return jnp.einsum("bij,bkj->bik", x, y)
        if x.shape[1] == y.shape[1]:
            return jnp.einsum("bji,bjk->bik", x, y)
    if x.shape[-1] == y.shape[0]:
        return jnp.tensordot(x, y, 1)
    if x.shape[0] == y.shape[0]:
        return jnp.tensordot(x, y, ((0,), (0,)))
    return matrix(x, y, k)


def gram(x, y, k):
    x = wide(x).reshape(-1, x.shape[-1])
    return x @ x.T if k % 2 else x.T @ x


def reduced(x, y, k):
    function = (jnp.sum, jnp.mean, jnp.max, jnp.prod)[k // 4 % 4]
    return function(x, axis=axis_of(x, k), keepdims=bool(k // 16 % 2))


def ordered(x, y, k):
    axis = axis_of(x, k)
    if k // 4 % 3 == 0:
        return jnp.cumsum(x, axis=axis)
    if k // 4 % 3 == 1:
        return jnp.sort(x, axis=axis)
    order = jnp.argsort(fitted(y, x.shape), axis=axis)
    return jnp.take_along_axis(x, order, axis=axis)


def looked_up(x, y, k):
    axis = axis_of(x, k)
    length = x.shape[axis]
    return jnp.take(x, indices(length, length, k), axis=axis)


def looked_up_twice(x, y, k):
    """Divide two arrays at the same rows."""
    x = wide(x)
    where = indices(4, x.shape[0], k).astype(np.uint32)
    n = norm(x, 1) if k % 2 else norm(fitted(y, x.shape), 1)
    return x[where] / n[where]


def moved(x, y, k):
    axis = axis_of(x, k)
    kind = k // 4 % 3
    if kind == 0:
        return jnp.flip(x, axis)
    if kind == 1:
        return jnp.roll(x, 1 + k // 12 % 3, axis)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (k // 12 % 2, 1)
    return jnp.pad(x, pad)


def chosen(x, y, k):
    y = fitted(y, x.shape)
    if k % 3 == 0:
        return jnp.where(data(*x.shape) > 0, x, y)
    if k % 3 == 1:
        return jnp.where(y > 0, x, jnp.zeros_like(x))
    whole = indices(x.shape, 3)
    return jnp.where(whole == 0, x, y)


def convolved(x, y, k):
    x = wide(x, 3)[:, :, :]
    channels = x.shape[1]
    groups = [g for g in (1, 2, 3, 4) if channels % g == 0]
    group = groups[k % len(groups)]
    kernel = data(2 * group, channels // group, 2)
    if k // 4 % 2:
        kernel = fitted(y, kernel.shape)
    return lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (1 + k // 8 % 2,),
        ((1, 1),),
        feature_group_count=group,
    )


def scanned(x, y, k):
    """A loop over the first axis, with a carry."""

    def body(carry, row):
        if k % 3 == 0:
            carry = carry + row
        elif k % 3 == 1:
            carry = norm(carry, None) + norm(row, None) + 0 * carry
        else:
            carry = row
        return carry, row / norm(carry, None) if k // 4 % 2 else carry

    begin = jnp.zeros(x.shape[1:])
    if k // 8 % 2:
        begin = begin + fitted(y, x.shape[1:])
    last, rows = lax.scan(body, begin, x)
    return (rows, last)[k // 16 % 2]


def at_each_turn(x, y, k):
    """A loop over an index with which rows are looked up."""
    x, y = wide(x), wide(y)

    def body(i, total):
        row = lax.dynamic_index_in_dim(x, i, keepdims=False)
        n = norm(lax.dynamic_index_in_dim(y, i, keepdims=False), None)
        return total + row / (n if k % 2 else norm(row, None))

    return lax.fori_loop(0, x.shape[0], body, jnp.zeros(x.shape[1:]))


def wrapped(x, y, k):
    function = (normalized, centered, offset, swapped_blocks)[k % 4]
    wrap = (jax.jit, jax.checkpoint)[k // 4 % 2]
    return wrap(lambda a, b: function(a, b, k // 8))(x, y)


def branched(x, y, k):
    index = indices(1, 2, k)[0]
    return lax.cond(
        jnp.asarray(index == 0),
        lambda a, b: a * 2.0,
        lambda a, b: jnp.flip(a, 0) if k % 2 else b,
        x,
        fitted(y, x.shape),
    )


def summed_segments(x, y, k):
    return jax.ops.segment_sum(x, indices(x.shape[0], 3, k), 3)


INSTRUCTIONS = [
    lambda x, y, k: x + fitted(y, x.shape),
    lambda x, y, k: x - fitted(y, x.shape),
    lambda x, y, k: x * fitted(y, x.shape),
    lambda x, y, k: x / fitted(y, x.shape),
    lambda x, y, k: jnp.maximum(x, fitted(y, x.shape)),
    lambda x, y, k: jax.nn.relu(x),
    lambda x, y, k: jnp.abs(x) * 3.0,
    lambda x, y, k: jnp.square(x) if k % 2 else x**3,
    lambda x, y, k: jnp.sqrt(jnp.abs(x)),
    lambda x, y, k: -x if k % 2 else 0.0 - x,
    lambda x, y, k: x * data(*x.shape),
    lambda x, y, k: x.T,
    lambda x, y, k: jnp.swapaxes(wide(x), 0, k % 2),
    lambda x, y, k: lax.stop_gradient(x),
    lambda x, y, k: jnp.tanh(x / norm(x, None)),
    reshaped,
    reshaped,
    one_block,
    odd_slice,
    swapped_blocks,
    block_by_block,
    joined,
    repeated,
    tiled,
    centered,
    centered_wrongly,
    standardized,
    by_moments,
    normalized,
    normalized,
    normalized_by,
    offset,
    offset,
    matrix,
    product,
    gram,
    reduced,
    ordered,
    looked_up,
    looked_up_twice,
    moved,
    chosen,
    convolved,
    scanned,
    at_each_turn,
    wrapped,
    branched,
    summed_segments,
]
FINISHES = [
    lambda x, y, k: x,
    normalized,
    normalized_by,
    standardized,
    lambda x, y, k: x / norm(x, None),
    lambda x, y, k: x / norm(y, None),
]
