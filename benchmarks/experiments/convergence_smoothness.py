"""How curved the loss is where descent passes, and what rates that allows."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.experiments.convergence_problem import Problem, norms

__all__ = ["block_bounds", "make_constants", "make_curvature", "normalized"]


def normalized(problem: Problem, x: jax.Array) -> jax.Array:
    """The parameters with groups of norm 1."""
    return x / norms(x, problem.ids)[problem.ids]


def block_bounds(hessian: np.ndarray, ids: np.ndarray) -> np.ndarray:
    r"""The constants of the PSI paper's theorems, of one Hessian.

    With spectral norms of its blocks, i and j for groups and g for the rest,
    \(L_i = |H_{ig}| + \sum_j |H_{ij}|\) for each of the m groups and
    \(L_g = m\,|H_{gg}| + \sum_i |H_{ig}|\).

    Args:
        hessian: of shape `(parameters, parameters)`.
        ids: those of a `Problem`.

    Returns:
        The constants, with that of the rest last.

    Examples:
        >>> hessian = np.array([[2.0, 1.0, 0], [1, 3, -1], [0, -1, 5]])
        >>> block_bounds(hessian, np.array([0, 1, -1]))
        array([ 3.,  5., 11.])
    """
    groups = ids.max() + 1
    where = [np.flatnonzero(ids == i) for i in (*range(groups), -1)]
    sizes = np.array(
        [
            [np.linalg.norm(hessian[np.ix_(a, b)], 2) for b in where]
            for a in where
        ]
    )
    sizes[-1, -1] *= groups
    return sizes.sum(1)


def make_constants(problem: Problem) -> Callable:
    """Compile what finds the constants of a path.

    Returns:
        A function of points, an iterable of parameter vectors, that returns
        the largest `block_bounds` of any of them.
    """
    hessian = jax.jit(jax.hessian(problem.loss))

    def constants(points: Iterable[jax.Array]) -> np.ndarray:
        found = [
            block_bounds(np.asarray(hessian(x)), problem.ids) for x in points
        ]
        return np.max(found, axis=0)

    return constants


def make_curvature(problem: Problem) -> Callable:
    r"""Compile the curvature that steps feel, by Lanczos iteration.

    Returns:
        A function of a point and of rates, one for each group and one for the
        rest, that returns the eigenvalue of
        \(D^{1/2} H D^{1/2}\) that is the largest in size, with D the rates and
        H the Hessian at the point: a step of descent lowers the loss for sure
        where this is below 2.
    """

    @jax.jit
    def product(x, tangent):
        return jax.jvp(jax.grad(problem.loss), (x,), (tangent,))[1]

    def largest(x: jax.Array, rates: np.ndarray) -> float:
        root = np.sqrt(rates)[problem.ids]

        def multiply(u):
            return root * np.asarray(product(x, jnp.asarray(root * u)))

        return lanczos(multiply, len(problem.ids))

    return largest


def lanczos(
    multiply: Callable[[np.ndarray], np.ndarray], size: int, steps: int = 40
) -> float:
    """The eigenvalue of a symmetric matrix that is the largest in size.

    Args:
        multiply: by the matrix.
        size: of the vectors.
        steps: how many products are made, at most one for each dimension. The
            outermost eigenvalues come out first.

    Returns:
        The eigenvalue, or very little less in size.

    Examples:
        >>> matrix = np.diag([1.0, -5.0, 3.0, 2.0])
        >>> round(lanczos(lambda v: matrix @ v, 4), 12)
        -5.0
    """
    # A start that stays the same: the result does, too.
    v = np.random.RandomState(0).normal(size=size)
    basis, images = [], []
    for _ in range(min(steps, size)):
        # Twice, as once does not leave it orthogonal to the last bit.
        for _ in range(2):
            v = v - sum((u * (u @ v) for u in basis), np.zeros(size))
        basis.append(v / np.linalg.norm(v))
        images.append(multiply(basis[-1]))
        v = images[-1]
    values = np.linalg.eigvalsh(np.array(basis) @ np.array(images).T)
    return float(values[np.abs(values).argmax()])
