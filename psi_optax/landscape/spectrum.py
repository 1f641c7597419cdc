"""Eigenvalues, spectral densities and traces of Hessians."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._validation import (
    check_choice,
    check_nonnegative,
    check_period,
)
from psi_optax.groups import Tree
from psi_optax.landscape._arpack import arpack
from psi_optax.landscape._lanczos import Ritz, lanczos
from psi_optax.landscape._mapping import map_points
from psi_optax.landscape.curvature import Curvature
from psi_optax.landscape.space import TangentSpace

# Of the length of the start, a random part beside an earlier eigenvector.
_FRESH = 0.01


class Eigenpairs(NamedTuple):
    """Eigenvalues of a Hessian, with bounds of their errors.

    Attributes:
        values: descending, shape (k,): the largest, then the smallest. -inf for
            a value that does not exist, NaN for non-finite curvature.
        vectors: a tree, leaves of shape (k, ...): orthonormal steps, zero for a
            value that does not exist.
        residuals: the norm of H u - value u, shape (k,). An eigenvalue lies
            within it of the value. Infinite where no value exists.
    """

    values: jax.Array
    vectors: Tree
    residuals: jax.Array


class Spectrum(NamedTuple):
    """A spectral density, by quadrature.

    Attributes:
        values: Ritz values, shape (probes, k); zero for a value that does not
            exist.
        weights: weights of the values, shape (probes, k); each row sums to 1.
        size: the number of eigenvalues.
    """

    values: jax.Array
    weights: jax.Array
    size: int


class Estimate(NamedTuple):
    """A mean over random probes.

    Attributes:
        value: shape ().
        error: the standard error of the value, shape ().
    """

    value: jax.Array
    error: jax.Array


def eigenpairs(
    curvature: Curvature,
    start: Any,
    *,
    num: int = 1,
    num_smallest: int = 0,
    num_matvecs: int = 32,
    method: Literal["lanczos", "arpack"] | None = None,
    tolerance: float = 1e-3,
) -> Eigenpairs:
    """Return the largest and the smallest eigenvalues, with error bounds.

    The largest value found is at most the largest eigenvalue, up to rounding.
    "lanczos" makes a fixed number of products and can be traced. "arpack"
    continues to a tolerance, on the host; choose it for convolutional networks
    on a CPU, since XLA makes convolutions in loops slow there, and for data
    sets.

    To follow a run, pass the earlier result as the start: 4 products every 100
    steps then suffice for a relative error of about 1 %.

    One start finds each eigenvalue once, whatever its multiplicity. A Lanczos
    iteration stores `num_matvecs` vectors of the size of params, twice. It is
    compiled at each call: call it inside `jax.jit` to compile once. Sharded
    weights need a mesh whose axes are automatic.

    Args:
        curvature: the result of `hessian` or `dataset_hessian`.
        start: a random key, a step, or earlier `Eigenpairs`, whose first vector
            is used with a small random part.
        num: how many of the largest eigenvalues, at least 1.
        num_smallest: how many of the smallest.
        num_matvecs: number of products of "lanczos", at most the size of the
            space; number of vectors that "arpack" stores.
        method: "lanczos" or "arpack". None for "lanczos", and for "arpack" if
            the curvature is of a data set.
        tolerance: relative error of the values of "arpack"; 0 for the
            precision of the dtype.

    Returns:
        `Eigenpairs` with `num` largest and `num_smallest` smallest values.

    Raises:
        ImportError: matfree or SciPy is missing.
        ValueError: more products than the space has dimensions, or too few for
            the values; an unknown method; "lanczos" for a data set; a start
            that is zero without its radial parts.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from psi_optax.landscape import hessian
        >>> curvature = hessian(lambda w: w @ (w / 2), jnp.ones(3))
        >>> pairs = eigenpairs(curvature, jax.random.key(0), num_matvecs=3)
        >>> [f"{x:.3f}" for x in pairs.values]
        ['1.000']

    References:
        Parlett, [The symmetric eigenvalue
        problem](https://epubs.siam.org/doi/book/10.1137/1.9781611971163), 1998,
        section 4.5, for the bound.
    """
    chosen = _check_method(curvature, method)
    _check_counts(curvature.space, num, num_smallest, num_matvecs, chosen)
    check_nonnegative("tolerance", tolerance)
    v = _read_start(curvature.space, start)
    if chosen == "lanczos":
        ritz = lanczos(curvature.matvec, v, num_matvecs)
        return _select(ritz, num, num_smallest)
    pairs, unravel = arpack(
        curvature.matvec,
        v,
        num=num,
        num_smallest=num_smallest,
        num_vectors=num_matvecs,
        tolerance=tolerance,
    )
    vectors = [unravel(jnp.asarray(x)) for x in pairs.vectors]
    return Eigenpairs(
        jnp.asarray(pairs.values),
        jax.tree.map(lambda *x: jnp.stack(x), *vectors),
        jnp.asarray(pairs.residuals),
    )


def spectral_density(
    curvature: Curvature,
    key: jax.Array,
    *,
    num_probes: int = 4,
    num_matvecs: int = 64,
) -> Spectrum:
    r"""Estimate the distribution of all eigenvalues.

    By stochastic Lanczos quadrature: \(\sum_j w_j f(\lambda_j)\), in the mean
    over probes, estimates the mean of f over the eigenvalues. It is exact for a
    polynomial of degree below 2 `num_matvecs`, up to the deviation of probes.

    Args:
        curvature: the result of `hessian`.
        key: a random key.
        num_probes: number of random starts.
        num_matvecs: number of products for each, at most the size of the space.

    Returns:
        A `Spectrum`, see `plot_spectrum`. With units it includes a zero for
        each group, since nothing is projected.

    Raises:
        ImportError: matfree is missing.
        ValueError: more products than the space has dimensions; the curvature
            is of a data set: use `average_loss`.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from psi_optax.landscape import hessian
        >>> curvature = hessian(lambda w: w @ w, jnp.ones(3))
        >>> key = jax.random.key(0)
        >>> found = spectral_density(curvature, key, num_matvecs=2)
        >>> [f"{x:.3f}" for x in (found.values * found.weights).sum(1)]
        ['2.000', '2.000', '2.000', '2.000']

    References:
        Ghorbani, Krishnan and Xiao, [An investigation into neural net
        optimization via Hessian eigenvalue
        density](https://arxiv.org/abs/1901.10159), ICML 2019.
    """
    _check_method(curvature, "lanczos")
    _check_counts(curvature.space, 1, 0, num_matvecs, "lanczos")
    check_period("num_probes", num_probes)

    def probe(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start = curvature.space.random(key)
        ritz = lanczos(curvature.matvec, start, num_matvecs)
        unknown = jnp.isnan(ritz.values)
        weights = jnp.where(unknown, jnp.nan, ritz.coefficients[0] ** 2)
        return jnp.where(ritz.exists | unknown, ritz.values, 0), weights

    keys = jax.random.split(key, num_probes)
    values, weights = jax.lax.map(probe, keys)
    return Spectrum(values, weights, curvature.space.size)


def trace(
    curvature: Curvature, key: jax.Array, *, num_probes: int = 32
) -> Estimate:
    r"""Estimate the sum of all eigenvalues, with a standard error.

    The mean over probes v of \(n\,\langle v, Hv\rangle / \langle v, v\rangle\),
    n the size of the space.

    Args:
        curvature: the result of `hessian` or `dataset_hessian`.
        key: a random key.
        num_probes: number of products, at least 2.

    Returns:
        An `Estimate`.

    Raises:
        ValueError: fewer than two probes.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from psi_optax.landscape import hessian
        >>> curvature = hessian(lambda w: w @ w, jnp.ones(3))
        >>> print(f"{trace(curvature, jax.random.key(0)).value:.3f}")
        6.000

    References:
        Hutchinson, [A stochastic estimator of the trace of the influence
        matrix](https://doi.org/10.1080/03610919008812866), 1990.
    """
    check_period("num_probes", num_probes)
    if num_probes < 2:
        raise ValueError(
            f"num_probes={num_probes}: an error needs at least 2 probes."
        )
    size = curvature.space.size

    def probe(key: jax.Array) -> jax.Array:
        v = curvature.space.random(key)
        curved = optax.tree.vdot(v, curvature.matvec(v))
        return jnp.asarray(size * curved / optax.tree.vdot(v, v))

    found = map_points(probe, jax.random.split(key, num_probes))
    return Estimate(found.mean(), found.std(ddof=1) / np.sqrt(num_probes))


def _check_method(
    curvature: Curvature, method: Literal["lanczos", "arpack"] | None
) -> str:
    """Return the method, which must fit the curvature.

    Raises:
        ValueError: an unknown method; "lanczos" for a data set.
    """
    if method is None:
        return "lanczos" if curvature.traced else "arpack"
    check_choice("method", method, ("lanczos", "arpack"))
    if method == "lanczos" and not curvature.traced:
        raise ValueError(
            "a Lanczos iteration cannot trace dataset_hessian: use eigenpairs"
            ' with method="arpack", or hessian(average_loss(loss_fn, batches),'
            " params)."
        )
    return method


def _check_counts(
    space: TangentSpace,
    num: int,
    num_smallest: int,
    num_matvecs: int,
    method: str,
) -> None:
    """Require enough products for the values, and dimensions for both.

    Raises:
        ValueError: there are too few or too many.
    """
    for name, count in (("num", num), ("num_matvecs", num_matvecs)):
        check_period(name, count)
    check_nonnegative("num_smallest", num_smallest)
    if num_matvecs > space.size:
        raise ValueError(
            f"num_matvecs={num_matvecs} exceeds the {space.size} dimensions of"
            f" the space: pass num_matvecs={space.size} or less."
        )
    wanted = num + num_smallest
    if method == "arpack":
        wanted = max(num, num_smallest) + 1
    if num_matvecs < wanted:
        raise ValueError(
            f"num_matvecs={num_matvecs} is too few for num={num} and"
            f" num_smallest={num_smallest}: pass at least {wanted}."
        )


def _read_start(space: TangentSpace, start: Any) -> Tree:
    """Return the projected step where an iteration starts.

    Raises:
        ValueError: it is known to be zero.
    """
    if isinstance(start, Eigenpairs):
        known = jax.tree.map(lambda x: jnp.nan_to_num(x[0]), start.vectors)
        # A known vector alone would never show a new top eigenvalue.
        fresh = space.random(jax.random.key(0))
        share = _FRESH / optax.tree.norm(fresh)
        start = jax.tree.map(lambda x, y: x + share * y, known, fresh)
    elif _is_key(start):
        start = space.random(start)
    projected = space.project(start)
    length = optax.tree.norm(projected)
    if not isinstance(length, jax.core.Tracer) and length == 0:
        raise ValueError(
            "the start is zero, or leads along groups alone: pass a random key."
        )
    return projected


def _is_key(start: Any) -> bool:
    if not isinstance(start, (jax.Array, np.ndarray)):
        return False
    return not jnp.issubdtype(start.dtype, jnp.floating)


def _select(ritz: Ritz, num: int, num_smallest: int) -> Eigenpairs:
    """Return the largest and the smallest of the values that exist."""
    count = len(ritz.values)
    missing = count - ritz.exists.sum()
    # Values ascend, and those that do not exist are the first.
    largest = count - 1 - jnp.arange(num)
    smallest = missing + jnp.arange(num_smallest)[::-1]
    found = jnp.concatenate([largest >= missing, smallest < count - num])
    chosen = jnp.clip(jnp.concatenate([largest, smallest]), 0, count - 1)
    values = ritz.values[chosen]
    y = jnp.where(found, ritz.coefficients[:, chosen], 0)
    return Eigenpairs(
        jnp.where(found | jnp.isnan(values), values, -jnp.inf),
        jax.tree.map(lambda q: _combine(y, q), ritz.basis),
        jnp.where(found, ritz.residuals[chosen], jnp.inf),
    )


def _combine(coefficients: jax.Array, basis: jax.Array) -> jax.Array:
    """Return combinations of the basis, one for each column."""
    return jnp.tensordot(
        coefficients.T.astype(basis.dtype),
        basis,
        1,
        precision=jax.lax.Precision.HIGHEST,
    )
