"""Matrices of orthonormal rows, nearest to given ones or made in turn."""

import jax
import jax.numpy as jnp

# Orthonormal up to rounding: the default of a GPU rounds products to 10 bits.
_EXACT = jax.lax.Precision.HIGHEST


def newton_schulz(z: jax.Array, steps: int) -> jax.Array:
    r"""Return nearly the polar factor of matrices of Frobenius norm at most 1.

    \[X \leftarrow \tfrac32 X - \tfrac12 (X X^\top) X.\]

    The iteration of \((Z Z^\top)^{-1/2}\), a Gram form, diverges once it has
    converged: rounding makes its factors cease to commute. This one does not.

    Args:
        z: shape (..., rows, columns), with at most as many rows as columns.
        steps: number of iterations.
    """

    def step(_: int, x: jax.Array) -> jax.Array:
        gram = jnp.matmul(x, x.mT, precision=_EXACT)
        return 1.5 * x - 0.5 * jnp.matmul(gram, x, precision=_EXACT)

    return jax.lax.fori_loop(0, steps, step, z)


@jax.custom_jvp
def polar_factor(z: jax.Array) -> jax.Array:
    r"""Return \(U V^\top\) of the singular value decomposition.

    Directions of singular values that are zero up to rounding are omitted.

    Args:
        z: shape (..., rows, columns), with at most as many rows as columns.
    """
    u, s, vt = jnp.linalg.svd(z, full_matrices=False)
    return jnp.matmul(u * _has_rank(z, s)[..., None, :], vt, precision=_EXACT)


@polar_factor.defjvp
def _derivative_of_polar_factor(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    r"""Differentiate without differences of singular values.

    With \(M = U^\top \dot Z V\), the derivative is

    \[U \frac{M_{ij} - M_{ji}}{s_i + s_j} V^\top
      + U\, \mathrm{diag}(1/s)\, U^\top \dot Z (1 - V V^\top).\]

    That of `jnp.linalg.svd` divides by differences, and is wrong where singular
    values are equal.
    """
    [z], [dz] = primals, tangents
    u, s, vt = jnp.linalg.svd(z, full_matrices=False)
    keep = _has_rank(z, s)
    value = jnp.matmul(u * keep[..., None, :], vt, precision=_EXACT)
    along = jnp.matmul(u.mT, dz, precision=_EXACT)
    m = jnp.matmul(along, vt.mT, precision=_EXACT)
    both = keep[..., :, None] * keep[..., None, :]
    sums = s[..., :, None] + s[..., None, :]
    inside = both * (m - m.mT) / jnp.where(both == 0, 1, sums)
    beyond = along - jnp.matmul(m, vt, precision=_EXACT)
    beyond = (keep / jnp.where(keep == 0, 1, s))[..., None] * beyond
    inside = jnp.matmul(inside, vt, precision=_EXACT)
    return value, jnp.matmul(u, inside + beyond, precision=_EXACT)


def _has_rank(z: jax.Array, s: jax.Array) -> jax.Array:
    """Return 1 for singular values that are not rounding errors, else 0."""
    smallest = max(z.shape[-2:]) * float(jnp.finfo(z.dtype).eps)
    return (s > smallest * s[..., :1]).astype(z.dtype)


def gram_schmidt(z: jax.Array, replacement: jax.Array) -> jax.Array:
    """Return rows that are made orthonormal one after another.

    A row keeps its sign, and depends on those before it alone. Zero rows stay
    zero, and others do not depend on them.

    Args:
        z: shape (..., rows, columns), with at most as many rows as columns.
        replacement: shape (rows, columns), for rows that are zero.
    """
    is_zero = jnp.sum(z * z, axis=-1) == 0
    # Zero rows are the last, so that no other is orthogonal to a replacement.
    order = jnp.argsort(is_zero, axis=-1, stable=True)
    replacement = jnp.broadcast_to(replacement, z.shape)
    z = jnp.where(is_zero[..., None], replacement, z)
    z = jnp.take_along_axis(z, order[..., None], axis=-2)
    q, r = jnp.linalg.qr(z.mT)
    signs = jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))
    rows = q.mT * jnp.where(signs == 0, 1, signs)[..., None]
    back = jnp.argsort(order, axis=-1)
    rows = jnp.take_along_axis(rows, back[..., None], axis=-2)
    return jnp.where(is_zero[..., None], 0, rows)
