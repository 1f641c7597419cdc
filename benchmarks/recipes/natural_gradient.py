r"""Natural gradients of small networks, by a dense Fisher matrix.

A damped natural gradient is \((F + \delta I)^{-1} g\). For a group of norm r in
weight space, F is proportional to \(r^{-2}\), so the effect of the damping
depends on r. Inside `psi` the transform sees the direction w/r as the parameter
and its gradient r g. The Fisher matrix at directions is \(r F r\), and a run
does not depend on the norms of the weights:

    psi_direction(0.5, scale_by_inverse_fisher(fisher, 0.01), groups)

References:
    Amari, Natural gradient works efficiently in learning, Neural Computation
    10(2), 1998.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree


def fisher_matrix(
    logits_fn: Callable[[Any], jax.Array], params: Any
) -> jax.Array:
    r"""Return the Fisher matrix of softmax outputs.

    With the Jacobian \(J_{ic}\) of the logit of class c of example i,

    \[F = \frac{1}{n} \sum_{i,c} p_{ic}\, d_{ic} d_{ic}^T, \qquad
      d_{ic} = J_{ic} - \sum_k p_{ik} J_{ik}.\]

    Args:
        logits_fn: called as logits_fn(params); returns logits, shape
            (examples, classes).
        params: a tree of floating arrays, with P elements.

    Returns:
        A positive semidefinite matrix of shape (P, P), in the order of
        `jax.flatten_util.ravel_pytree`.

    Examples:
        >>> matrix = fisher_matrix(lambda w: w[None], jnp.zeros(2))
        >>> print(matrix.round(4))
        [[ 0.25 -0.25]
         [-0.25  0.25]]
    """
    flat, unravel = ravel_pytree(params)

    def logits_of(x: jax.Array) -> jax.Array:
        return logits_fn(unravel(x))

    probabilities = jax.nn.softmax(logits_of(flat))
    roots = centered_roots(probabilities, jax.jacrev(logits_of)(flat))
    return jnp.einsum("icx,icy->xy", roots, roots) / len(roots)


def centered_roots(probabilities: jax.Array, jacobian: jax.Array) -> jax.Array:
    r"""Return \(\sqrt{p_{ic}}\,(J_{ic} - \sum_k p_{ik} J_{ik})\).

    Args:
        probabilities: of classes, shape (examples, classes).
        jacobian: of logits, shape (examples, classes, ...).

    Returns:
        An array like the Jacobian.
    """
    p = probabilities.reshape(*probabilities.shape, *[1] * (jacobian.ndim - 2))
    mean = (p * jacobian).sum(1, keepdims=True)
    return jnp.sqrt(p) * (jacobian - mean)


def scale_by_inverse_fisher(
    fisher_fn: Callable[[Any], jax.Array], damping: float
) -> optax.GradientTransformation:
    """Multiply updates by the inverse of a damped Fisher matrix.

    The damping is in the space of the parameters that the transform sees:
    directions inside of `psi`, weights elsewhere.

    Args:
        fisher_fn: called as fisher_fn(params); returns a matrix in the order of
            `jax.flatten_util.ravel_pytree`, such as that of `fisher_matrix`.
        damping: added to the diagonal, positive.

    Returns:
        A stateless transform that needs params.

    Raises:
        ValueError: damping is not positive; params are missing in `update`.

    Examples:
        >>> tx = scale_by_inverse_fisher(lambda w: jnp.diag(w), 1.0)
        >>> w, g = jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])
        >>> print(tx.update(g, tx.init(w), w)[0].round(4))
        [0.5  0.25]
    """

    def solve(updates: Any, params: Any) -> Any:
        flat, unravel = ravel_pytree(updates)
        matrix = fisher_fn(params)
        matrix = matrix + damping * jnp.eye(len(flat), dtype=matrix.dtype)
        return unravel(jax.scipy.linalg.solve(matrix, flat, assume_a="pos"))

    return preconditioner(solve, damping)


def preconditioner(
    solve: Callable[[Any, Any], Any], damping: float
) -> optax.GradientTransformation:
    """Return the transform solve(updates, params), after checks.

    Raises:
        ValueError: damping is not positive; params are missing in `update`.
    """
    if not damping > 0:
        raise ValueError(f"damping is {damping}: pass a positive number.")

    def checked(updates: Any, params: Any) -> Any:
        if params is None:
            raise ValueError(
                "pass params to update: Fisher matrices need them."
            )
        return solve(updates, params)

    return optax.stateless(checked)
