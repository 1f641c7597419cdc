"""Eigenpairs by SciPy's ARPACK around a product that runs on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from psi_optax.groups import Tree


class Pairs(NamedTuple):
    """Eigenpairs, in descending order.

    Attributes:
        values: shape (k,).
        vectors: shape (k, n).
        residuals: the norm of H u - value u for each, shape (k,).
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray


class _NonFiniteError(Exception):
    pass


def arpack(
    matvec: Callable[[Tree], Tree],
    start: Tree,
    *,
    num: int,
    num_smallest: int,
    num_vectors: int,
    tolerance: float,
) -> tuple[Pairs, Callable[[jax.Array], Tree]]:
    """Return pairs of the largest and smallest values, and an unraveler."""
    with jax.numpy_dtype_promotion("standard"):
        flat, unravel = ravel_pytree(start)

    def product(v: np.ndarray) -> np.ndarray:
        image = matvec(unravel(jax.numpy.asarray(v.ravel(), flat.dtype)))
        with jax.numpy_dtype_promotion("standard"):
            found = np.asarray(ravel_pytree(image)[0])
        if not np.all(np.isfinite(found)):
            raise _NonFiniteError
        return found

    v0 = np.asarray(flat)
    options = {"v0": v0, "ncv": num_vectors, "tol": tolerance}
    try:
        parts = [
            _extreme(product, which, k, options)
            for which, k in (("LA", num), ("SA", num_smallest))
            if k
        ]
    except _NonFiniteError:
        parts = [_not_a_number(num + num_smallest, v0)]
    pairs = Pairs(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    return pairs, unravel


def _extreme(
    product: Callable[[np.ndarray], np.ndarray],
    which: str,
    k: int,
    options: dict[str, Any],
) -> Pairs:
    """Return k eigenpairs of the largest ("LA") or smallest ("SA") values."""
    linalg = _import_linalg()
    v0 = options["v0"]
    operator = linalg.LinearOperator(
        (v0.size, v0.size), matvec=product, dtype=v0.dtype
    )
    try:
        # By default SciPy finds the largest modulus, which may be negative.
        values, vectors = linalg.eigsh(operator, k, which=which, **options)
    except linalg.ArpackError:
        if product(v0).any():
            raise
        return _of_kernel(v0, k)
    order = np.argsort(-values)
    values, vectors = values[order], vectors.T[order]
    residuals = [
        np.linalg.norm(product(v) - value * v)
        for value, v in zip(values, vectors, strict=True)
    ]
    return Pairs(values, vectors, np.array(residuals, v0.dtype))


def _of_kernel(v0: np.ndarray, k: int) -> Pairs:
    """Return the only pair that is found if the start's product is zero."""
    pairs = _not_a_number(k, v0)
    pairs.values[:], pairs.vectors[:] = -np.inf, 0
    pairs.values[0], pairs.residuals[0] = 0, 0
    pairs.vectors[0] = v0 / np.linalg.norm(v0)
    return pairs


def _not_a_number(k: int, v0: np.ndarray) -> Pairs:
    return Pairs(
        np.full(k, np.nan, v0.dtype),
        np.full((k, v0.size), np.nan, v0.dtype),
        np.full(k, np.inf, v0.dtype),
    )


def _import_linalg() -> Any:
    try:
        from scipy.sparse import linalg
    except ImportError:
        raise ImportError(
            "ARPACK needs SciPy: pip install 'psi_optax[landscape]'"
        ) from None
    return linalg
