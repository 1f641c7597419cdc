"""Whitening of channels by the covariance of a batch."""

import jax
import jax.numpy as jnp

__all__ = ["METHODS", "batch_covariance", "inverse_root", "whiten"]

METHODS = ("newton_schulz", "eigh")

_EXACT = jax.lax.Precision.HIGHEST


def batch_covariance(
    x: jax.Array, num_groups: int, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Return means and covariances of channels over all other axes.

    Args:
        x: of shape `(..., channels)`.
        num_groups: number of groups of consecutive channels.
        axis_name: mapped axis that divides the batch; None for the local part.

    Returns:
        Arrays of shapes `(channels,)` and `(num_groups, n, n)` for n channels
        in a group, in at least float32.
    """
    rows = x.reshape(-1, x.shape[-1])
    rows = rows.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = _mean(rows.mean(axis=0), axis_name)
    groups = _grouped(rows - mean.reshape(1, -1), num_groups)
    products = jnp.matmul(groups.mT, groups, precision=_EXACT)
    return mean, _mean(products / len(rows), axis_name)


def _mean(x: jax.Array, axis_name: str | None) -> jax.Array:
    return x if axis_name is None else jax.lax.pmean(x, axis_name)


def _grouped(rows: jax.Array, num_groups: int) -> jax.Array:
    """Return rows of channels as `(groups, rows, channels of a group)`."""
    return rows.reshape(len(rows), num_groups, -1).swapaxes(0, 1)


def whiten(x: jax.Array, mean: jax.Array, root: jax.Array) -> jax.Array:
    """Return x minus the mean, times matrices of groups of channels.

    Args:
        x: of shape `(..., channels)`.
        mean: of shape `(channels,)`.
        root: of shape `(num_groups, n, n)`.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(mean.dtype) - mean.reshape(1, -1)
    white = jnp.matmul(_grouped(rows, len(root)), root, precision=_EXACT)
    return white.swapaxes(0, 1).reshape(x.shape)


def inverse_root(
    covariance: jax.Array, method: str, steps: int, epsilon: float
) -> jax.Array:
    r"""Return \((\Sigma + \epsilon)^{-1/2}\) of matrices, symmetric.

    Args:
        covariance: of shape `(..., n, n)`.
        method: "newton_schulz" or "eigh".
        steps: of Newton-Schulz.
        epsilon: added to the diagonal.
    """
    eye = jnp.eye(covariance.shape[-1], dtype=covariance.dtype)
    eye = jnp.broadcast_to(eye, covariance.shape)
    covariance = covariance + epsilon * eye
    if method == "eigh":
        return _by_eigenvalues(covariance)
    return _newton_schulz(covariance, eye, steps)


def _newton_schulz(
    covariance: jax.Array, eye: jax.Array, steps: int
) -> jax.Array:
    r"""Return nearly the inverse roots, by the coupled iteration.

    \[M = (3 - Z Y)/2, \qquad Y \leftarrow Y M, \qquad Z \leftarrow M Z.\]

    From the covariance over its trace, Y converges to its root and Z to the
    inverse. An iteration of Z alone diverges once it has converged.
    """
    trace = jnp.trace(covariance, axis1=-2, axis2=-1)[..., None, None]

    def step(
        _: int, pair: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        y, z = pair
        m = 1.5 * eye - 0.5 * jnp.matmul(z, y, precision=_EXACT)
        return (
            jnp.matmul(y, m, precision=_EXACT),
            jnp.matmul(m, z, precision=_EXACT),
        )

    start = covariance / trace, eye
    return jax.lax.fori_loop(0, steps, step, start)[1] / jnp.sqrt(trace)


@jax.custom_jvp
def _by_eigenvalues(covariance: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(covariance)
    return _symmetric(vectors, 1 / _roots(values))


@_by_eigenvalues.defjvp
def _derivative_by_eigenvalues(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Differentiate without differences of eigenvalues.

    That of `jnp.linalg.eigh` divides by them, and is wrong where eigenvalues
    are equal. Of an inverse root divided differences have sums of roots.
    """
    [covariance], [moved] = primals, tangents
    values, vectors = jnp.linalg.eigh(covariance)
    roots = _roots(values)
    rows, columns = roots[..., :, None], roots[..., None, :]
    inside = jnp.matmul(vectors.mT, moved, precision=_EXACT)
    inside = jnp.matmul(inside, vectors, precision=_EXACT)
    inside = inside / (rows * columns * (rows + columns))
    found = jnp.matmul(vectors, inside, precision=_EXACT)
    return (
        _symmetric(vectors, 1 / roots),
        -jnp.matmul(found, vectors.mT, precision=_EXACT),
    )


def _roots(values: jax.Array) -> jax.Array:
    """Return roots of eigenvalues, at least of the rounding error."""
    smallest = values.shape[-1] * float(jnp.finfo(values.dtype).eps)
    return jnp.sqrt(jnp.maximum(values, smallest * values[..., -1:]))


def _symmetric(vectors: jax.Array, values: jax.Array) -> jax.Array:
    scaled = vectors * values[..., None, :]
    return jnp.matmul(scaled, vectors.mT, precision=_EXACT)
