"""Norms of groups through many noisy steps."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.experiments.precision.modes import GROUPS, MODES
from benchmarks.optimizers import OPTIMIZERS
from psi_optax._compat import enable_x64


class Long(NamedTuple):
    """A run whose norms are followed; its radius is "init" or "none"."""

    mode: str
    optimizer: str = "psi_sgd"
    radius: str = "init"


RUNS = (
    Long("float32"),
    Long("float32", "psi_adam"),
    Long("float32", radius="none"),
    Long("float32", "psi_adam", radius="none"),
    Long("float16"),
    Long("bfloat16"),
    Long("bfloat16", radius="none"),
    Long("bfloat16, stochastic rounding"),
    Long("bfloat16, stochastic rounding", radius="none"),
    Long("bfloat16, master weights"),
)
# Of about 0.1 radians a step, which is much: rounding comes with movement.
RATES = {"psi_sgd": 0.05, "psi_adam": 0.015}
SHAPE = (64, 8)
STRETCHES = 100


def norms(long: Long, steps: int) -> dict[str, Any]:
    """Follow the norms of groups for a multiple of 100 steps.

    Relative deviations from the first norms, in double precision, are: the
    `largest` in size of all groups and steps, and the `early` one of the first
    tenth; `last`, with its sign, that of the group that deviates most in the
    end. `angle` is the mean angle of a step.
    """
    dtype, wrap = MODES[long.mode]
    radius = None if long.radius == "none" else long.radius
    make = OPTIMIZERS[long.optimizer].make
    tx = wrap(make(RATES[long.optimizer], GROUPS, radius=radius))
    start = np.random.default_rng(1).normal(size=SHAPE) / 8
    with enable_x64(True):
        run = jax.jit(functools.partial(_wander, tx, steps // STRETCHES))
        found = run(start.astype(jnp.dtype(dtype)))
        worst, last, angles = map(np.asarray, found)
    return {
        **long._asdict(),
        "largest": float(worst.max()),
        "early": float(worst[: STRETCHES // 10].max()),
        "last": float(last[-1]),
        "angle": float(np.mean(angles)),
    }


def _wander(tx, length, w):
    """Return the largest and the last deviation of each stretch, and angles."""
    begun = _norm(w)

    def step(noise, carry, time):
        w, state, worst, turned = carry
        z = jax.lax.dynamic_slice(noise, (time,), (w.size,)).reshape(w.shape)
        # Tangent and of length 1 in direction space, about.
        gradient = (z / (math.sqrt(len(w)) * _norm(w))).astype(w.dtype)
        updates, state = tx.update(gradient, state, w)
        new = optax.apply_updates(w, updates)
        worst = jnp.maximum(worst, jnp.abs(_norm(new) / begun - 1).max())
        turned += psi_optax.rotation(w, new, GROUPS).mean()
        return (new, state, worst, turned), None

    def stretch(carry, key):
        noise = jax.random.normal(key, length + w.size, jnp.float64)
        zero = jnp.float64(0), jnp.float32(0)
        (new, state, worst, turned), _ = jax.lax.scan(
            functools.partial(step, noise), (*carry, *zero), jnp.arange(length)
        )
        off = (_norm(new) / begun - 1).ravel()
        last = off[jnp.abs(off).argmax()]
        return (new, state), (worst, last, turned / length)

    keys = jax.random.split(jax.random.key(0), STRETCHES)
    return jax.lax.scan(stretch, (w, tx.init(w)), keys)[1]


def _norm(w):
    return jnp.linalg.norm(w.astype(jnp.float64), axis=0, keepdims=True)
