"""Warning of directions and optimizers whose steps have the wrong sign."""

import functools
import warnings
from typing import Any

import jax
import numpy as np
import optax

from psi_optax.groups import Tree
from psi_optax.optimizers._warnings import warn_user
from psi_optax.transforms.state_checks import find_states

# The least cosine, in absolute value, between a first step and the gradient
# that has a clear sign: added noise alone has less.
_CLEAR_COSINE = 0.5


def warn_of_ascent(
    tx: optax.GradientTransformation,
    inner: optax.GradientTransformation,
    *,
    scaled: bool,
) -> optax.GradientTransformationExtraArgs:
    """Return the recipe, with an `init` that warns if it would ascend.

    A first step of the inner transform is tried, once, on a matrix with a
    constant gradient. A transform that cannot be tried so passes: its rate is
    traced, it has side effects, it needs a certain tree, or a mask hides the
    matrix.

    Args:
        tx: the recipe, as it is returned.
        inner: the optimizer or the direction in it.
        scaled: whether the inner transform is an optimizer, with its own
            learning rate and sign.
    """
    first_cosine = functools.cache(lambda: _first_cosine(inner))

    def init_fn(params: Tree) -> Any:
        # Errors of what cannot run inside come first.
        state = tx.init(params)
        cosine = first_cosine()
        if scaled and cosine > _CLEAR_COSINE:
            warn_user(
                "training would ascend: a first step of this optimizer has the"
                " sign of the gradient. A direction without a learning rate,"
                " such as optax.trace(0.9), belongs in psi_direction("
                "learning_rate, direction, groups); psi takes an optimizer,"
                " such as optax.sgd(0.1, momentum=0.9)."
            )
        if not scaled and cosine < -_CLEAR_COSINE:
            warn_user(
                "training would ascend: a first step of this direction has the"
                " sign of an optimizer's, and learning_rate changes it again."
                " Pass a direction without a learning rate, such as"
                " optax.trace(0.9) in the place of optax.sgd(0.1,"
                " momentum=0.9); an optimizer belongs in psi(optimizer,"
                " groups)."
            )

        return state

    tx = optax.with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(init_fn, tx.update)


def _first_cosine(inner: optax.GradientTransformation) -> float:
    """Return the cosine between a first step and its gradient, or 0."""
    inner = optax.with_extra_args_support(inner)
    w = np.full((4, 4), 0.25, np.float32)
    g = np.tile(np.array([1, -1], np.float32), (4, 2))

    def first_step(w: jax.Array, g: jax.Array) -> tuple[Tree, bool]:
        state = inner.init(w)
        masked = any(find_states(state, optax.MaskedState))
        return inner.update(g, state, w)[0], masked

    try:
        with warnings.catch_warnings(), jax.disable_jit(False):
            warnings.simplefilter("ignore")
            # Evaluation at compile time would already call back here.
            traced = jax.jit(first_step).trace(w, g)
            if traced.jaxpr.effects:
                return 0.0
            with jax.ensure_compile_time_eval():
                u, masked = traced.lower().compile()(w, g)
            # A mask passes the gradient of a hidden leaf as it is.
            if masked and np.array_equal(u, g):
                return 0.0
            return _cosine(np.asarray(u, np.float64), g)
    except Exception:
        return 0.0


def _cosine(u: np.ndarray, g: np.ndarray) -> float:
    """Return the cosine between arrays; 0 for zeros and for other shapes."""
    norms = np.linalg.norm(u) * np.linalg.norm(g)
    known = u.shape == g.shape and norms > 0
    return float(np.sum(u * g) / norms) if known else 0.0
