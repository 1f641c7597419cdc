"""Constants of smoothness of the theorems, and the curvature along steps."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.experiments.convergence.descent import Problem
from psi_optax import landscape

PRODUCTS = 40
"""Number of products with the matrix in a Lanczos iteration."""


class Smoothness:
    """Measures of the Hessian of a problem, compiled once."""

    def __init__(self, problem: Problem):
        self.ids = problem.ids
        self._hessian = jax.jit(jax.hessian(problem.loss))

        def curvature(x, rates):
            units = jnp.sqrt(rates)[problem.ids]
            return _outermost(landscape.hessian(problem.loss, x, units=units))

        self._curvature = jax.jit(curvature)

    def constants(self, points: Iterable[jax.Array]) -> np.ndarray:
        """Return the largest constants of any of the points."""
        hessians = (np.asarray(self._hessian(x)) for x in points)
        return np.max([block_bounds(h, self.ids) for h in hessians], axis=0)

    def curvature(self, x: jax.Array, rates: np.ndarray) -> float:
        r"""Return the eigenvalue of \(D^{1/2} H D^{1/2}\) of the largest size.

        D are the rates and H is the Hessian: below 2 a step decreases a
        quadratic loss.
        """
        return float(self._curvature(x, jnp.asarray(rates)))


def block_bounds(hessian: np.ndarray, ids: np.ndarray) -> np.ndarray:
    r"""Return the theorems' constants of a Hessian, that of the rest last.

    With spectral norms of its blocks, i and j for groups and g for the rest,
    \(L_i = |H_{ig}| + \sum_j |H_{ij}|\) for each of the m groups and
    \(L_g = m\,|H_{gg}| + \sum_i |H_{ig}|\).
    """
    groups = ids.max() + 1
    where = [np.flatnonzero(ids == i) for i in (*range(groups), -1)]
    blocks = [[hessian[np.ix_(a, b)] for b in where] for a in where]
    sizes = np.array([[np.linalg.norm(b, 2) for b in row] for row in blocks])
    sizes[-1, -1] *= groups
    return sizes.sum(1)


def _outermost(curvature):
    """Return the eigenvalue of a Hessian that is largest in size."""
    size = curvature.space.size
    # A fixed start makes the result reproducible.
    start = jnp.asarray(np.random.RandomState(0).normal(size=size))
    values = landscape.eigenpairs(
        curvature, start, num_smallest=1, num_matvecs=min(PRODUCTS, size)
    ).values
    return values[jnp.abs(values).argmax()]
