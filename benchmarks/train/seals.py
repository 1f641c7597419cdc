"""A number that tells whether a checkpoint is what was saved, in which run."""

import dataclasses
import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.train.settings import Settings

__all__ = ["seal"]

_SIZE = 2**32


def seal(tree: Any, settings: Settings, epoch: int) -> np.ndarray:
    """The sum of all bits, of the settings and the epoch, modulo 2³².

    Orbax keeps no checksums of the numbers of arrays: where a bit of them was
    flipped on the disk it reads other numbers. The sum of a leaf counts an odd
    number of times, so that one changed word always changes the seal; any other
    change does but with a chance of 2⁻³². It is the same on any mesh.

    Args:
        tree: arrays of 8, 16 or 32 bits.
        settings: of the run; its number of epochs, which may grow, is left out.
        epoch: after which the arrays were these.

    Returns:
        An array of one uint32.

    Examples:
        >>> ones = {"a": np.ones(3, np.float32), "b": np.ones(2, np.int32)}
        >>> none = seal({}, Settings(), epoch=5)
        >>> (seal(ones, Settings(), epoch=5) - none).item()
        3196059654
        >>> 3 * 0x3F800000 + 3 * 2
        3196059654
    """
    words = [_sum_of_bits(x) for x in jax.tree.leaves(tree)]
    kept = dataclasses.asdict(settings) | {"epochs": epoch}
    total = zlib.crc32(json.dumps(kept).encode())
    for index, word in enumerate(jax.device_get(words)):
        total += (2 * index + 1) * int(word)
    return np.array([total % _SIZE], np.uint32)


# For each shape: a program for all leaves would take long to compile.
@jax.jit
def _sum_of_bits(x: jax.Array) -> jax.Array:
    kind = f"uint{8 * x.dtype.itemsize}"
    bits = jax.lax.bitcast_convert_type(x, kind)
    return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)
