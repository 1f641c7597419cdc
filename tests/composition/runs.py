"""Runs of optimizers that stand in something else, and their paths.

The problem is that of `tests.theory.networks.rayleigh`: columns without a
scale, another matrix at every step, and a gradient that is one line of numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.compilation import quick_jit
from tests.theory.networks import rayleigh, rayleigh_gradient
from tests.theory.scales import powers_of_two, rescaled
from tests.theory.training import to_numpy

STEPS = 60
COLUMNS = rayleigh(STEPS, noise=0.1)
SINGLE = rayleigh(STEPS, noise=0.1, dtype=np.float32)


def same(params):
    """Of weights that are the params, the weights."""
    return params


def run(tx, problem=COLUMNS, start=None, **options):
    """Params and states after each step; see `runner`."""
    start = problem.params if start is None else start
    return runner(tx, problem, **options)(start)


def runner(tx, problem, *, read=same, wrap=same, **extra):
    """Params and states after each step, as numpy arrays, from any start.

    Args:
        tx: the optimizer; one executable holds the gradient and the step.
        problem: see `tests.theory.networks`.
        read: from params to the weights that the loss is to see.
        wrap: from weights to the params that the optimizer wants.
        extra: arguments of `tx.update`, made from the batch.
    """
    tx = optax.with_extra_args_support(tx)

    def step(params, state, batch):
        gradient = jax.grad(problem.loss)(read(params), batch)
        more = {name: make(batch) for name, make in extra.items()}
        updates, state = tx.update(gradient, state, params, **more)
        return optax.apply_updates(params, updates), state

    step = quick_jit(step)

    def go(start):
        params = wrap(jax.tree.map(jnp.asarray, start))
        state, history = tx.init(params), []
        for batch in problem.batches:
            params, state = step(params, state, batch)
            history.append((params, state))
        return to_numpy(history)

    return go


def uniform(count):
    """A decay that weighs all steps alike, in the widest precision there is."""
    count = jnp.asarray(count, float)
    return count / (count + 1)


def lengths(w):
    """The norms of columns over those that they began with."""
    wide = np.asarray(w, np.float64)
    return np.linalg.norm(wide, axis=0) / np.linalg.norm(COLUMNS.params, axis=0)


def gradient(w, batch):
    """The gradient of the columns' loss, in numpy."""
    norms = np.linalg.norm(w, axis=0)
    return rayleigh_gradient(w / norms, batch) / norms


def by_hand(w, d):
    """A step of psi along d, in numpy: back to the norms they have."""
    norms = np.linalg.norm(w, axis=0)
    v = w / norms
    v = v + d - v * (v * d).sum(0)
    return v * (norms / np.linalg.norm(v, axis=0))


def scales_exactly(tx, *, read=same, **options):
    """Whether a rescaled float32 run is the run, rescaled, to the last bit."""
    factors = powers_of_two(SINGLE.ids)
    go = runner(tx, SINGLE, read=read, **options)
    one = go(SINGLE.params)[-1][0]
    other = go(rescaled(SINGLE.params, SINGLE.ids, factors))[-1][0]
    expected = rescaled(read(one), SINGLE.ids, factors)
    assert np.isfinite(expected).all()
    return np.array_equal(expected, read(other))
