"""Lanczos iterations by matfree, with a rule for the end of a Krylov space."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax.groups import Tree

# Of the precision, relative to the largest coefficient so far: below it a
# coupling is rounding error. A coupling of size b moves the spectrum by b.
_ROUNDINGS = 64


class Ritz(NamedTuple):
    """Ritz values of k products, in ascending order.

    The Krylov space may end after fewer than k products. Then the first values
    do not exist.

    Attributes:
        values: shape (k,).
        exists: whether each of them exists, shape (k,).
        residuals: the norm of H u - value u for each, shape (k,).
        coefficients: coordinates of their vectors in the basis, shape (k, k),
            a column for each.
        basis: a tree, leaves of shape (k, ...).
    """

    values: jax.Array
    exists: jax.Array
    residuals: jax.Array
    coefficients: jax.Array
    basis: Tree


def lanczos(
    matvec: Callable[[Tree], Tree], start: Tree, num_matvecs: int
) -> Ritz:
    """Run a Lanczos iteration, reorthogonalized in full."""
    decompose = _import_decomp().hessenberg(
        num_matvecs, reortho="full", custom_vjp=False
    )
    # A step of several dtypes is one vector for matfree.
    with (
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
    ):
        basis, matrix, rest, _ = decompose(matvec, start)
    diagonal, couplings = jnp.diagonal(matrix), jnp.diagonal(matrix, -1)
    alive, rounding = _find_end(diagonal, couplings)
    last = jnp.where(alive[-1], optax.tree.norm(rest).astype(rounding.dtype), 0)
    basis = jax.tree.map(
        lambda q: jnp.where(alive.reshape(-1, *[1] * (q.ndim - 1)), q, 0), basis
    )
    return _solve(diagonal, couplings, alive, last, rounding, basis)


def _import_decomp() -> Any:
    try:
        from matfree import decomp
    except ImportError:
        raise ImportError(
            "Lanczos iterations need matfree: pip install"
            " 'psi_optax[landscape]'"
        ) from None
    return decomp


def _find_end(
    diagonal: jax.Array, couplings: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return which vectors precede the end of the Krylov space.

    Also returns the size of a coupling that is rounding error.
    """
    sizes = jnp.abs(diagonal)
    before = jnp.concatenate([jnp.zeros(1, sizes.dtype), jnp.abs(couplings)])
    # Each coupling is compared with coefficients that precede it.
    scale = jax.lax.cummax(jnp.nan_to_num(jnp.maximum(sizes, before)))
    rounding = _ROUNDINGS * jnp.finfo(sizes.dtype).eps * scale
    goes_on = jnp.isfinite(couplings) & (couplings > rounding[:-1])
    alive = jnp.concatenate([jnp.ones(1, bool), jnp.cumprod(goes_on) == 1])
    return alive, jnp.max(jnp.where(alive, rounding, 0))


def _solve(
    diagonal: jax.Array,
    couplings: jax.Array,
    alive: jax.Array,
    last: jax.Array,
    rounding: jax.Array,
    basis: Tree,
) -> Ritz:
    """Return the Ritz values of a tridiagonal matrix and its end."""
    finite = jnp.all(jnp.where(alive, jnp.isfinite(diagonal), True))
    a = jnp.where(alive & jnp.isfinite(diagonal), diagonal, 0)
    b = jnp.where(alive[1:], couplings, 0)
    bound = jnp.max(jnp.abs(a)) + 2 * jnp.max(jnp.abs(b), initial=0)
    # Below all others, so that no eigenvector mixes the two.
    a = jnp.where(alive, a, -jnp.where(bound > 0, 2 * bound, 1))
    values, y = jnp.linalg.eigh(
        jnp.diag(a) + jnp.diag(b, 1) + jnp.diag(b, -1), symmetrize_input=False
    )
    exists = jnp.arange(len(a)) >= len(a) - alive.sum()
    residuals = jnp.abs(last * y[-1]) + rounding
    return Ritz(
        jnp.where(finite, values, jnp.nan),
        exists,
        jnp.where(finite & exists, residuals, jnp.inf),
        jnp.where(exists, y, 0),
        basis,
    )
