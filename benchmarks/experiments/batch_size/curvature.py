"""Hessians of batches, beside that of all examples."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.experiments.dense import columns
from psi_optax.landscape import eigenpairs, hessian


def outlier(value: float, radius: float) -> float:
    r"""Return the top eigenvalue of a matrix with noise, by random matrices.

    An eigenvalue \(\lambda\) plus a symmetric matrix of independent entries
    whose spectrum is a semicircle of radius 2R: \(\lambda + R^2/\lambda\) for
    \(\lambda > R\), and the edge 2R otherwise.

    Examples:
        >>> outlier(2.0, 1.0), outlier(0.5, 1.0)
        (2.5, 2.0)
    """
    return value + radius**2 / value if value > radius else 2 * radius


class BatchCurvature:
    """Top eigenvalues and noise of Hessians, compiled once for each size.

    Args:
        loss: called as loss(params, images, labels).
        params: where the Hessians are; the columns of kernels are groups.
        data: all images and labels.
        products: number of products of a Lanczos iteration.
        probes: number of random steps for each batch.
    """

    def __init__(
        self,
        loss: Callable[..., jax.Array],
        params: Any,
        data: tuple[Any, Any],
        products: int,
        probes: int,
    ):
        self.loss, self.params, self.products = loss, params, products
        self.data = jax.tree.map(jnp.asarray, data)
        self.probes, self.groups = probes, columns(params)
        self.full = jax.jit(self._top)(*self.data)
        self._noise = jax.jit(self.noise)

    def _top(self, images, labels):
        curvature = self._hessian(images, labels)
        start = jax.random.key(0)
        return eigenpairs(curvature, start, num_matvecs=self.products)

    def _hessian(self, images, labels):
        batch = images, labels
        return hessian(self.loss, self.params, *batch, groups=self.groups)

    def batches(self, size: int, seeds: Sequence[int]) -> dict[str, Any]:
        """Return each measure of one batch of a size for each seed.

        The square of R is the mean of |N u|²/|u|² over random u, with N the
        Hessian of a batch less that of all examples. With the top eigenvector
        of the latter in place of u it is "along", and <u, N u> is "shift".
        """
        randoms = map(np.random.RandomState, seeds)
        count = len(self.data[1])
        chosen = np.stack([x.permutation(count)[:size] for x in randoms])
        keys = jax.random.split(jax.random.key(size), len(chosen))
        found = self._noise(self.data, keys, chosen)
        return {name: np.asarray(x).tolist() for name, x in found.items()}

    def noise(self, data, keys, chosen):
        """Return the measures of each of several batches of one size."""
        whole = self._hessian(*data)
        e = jax.tree.map(lambda x: x[0], self.full.vectors)

        def measure(given):
            key, indices = given
            part = jax.tree.map(lambda x: x[indices], data)
            curvature, pairs = self._hessian(*part), self._top(*part)

            def product(u):
                return optax.tree.sub(curvature.matvec(u), whole.matvec(u))

            def size(key):
                u = whole.space.random(key)
                ratio = optax.tree.norm(product(u)) / optax.tree.norm(u)
                return ratio**2

            along = product(e)
            return {
                "top": pairs.values[0],
                "residual": pairs.residuals[0],
                "square": jax.lax.map(
                    size, jax.random.split(key, self.probes)
                ).mean(),
                "along": optax.tree.norm(along, squared=True),
                "shift": optax.tree.vdot(e, along),
            }

        return jax.lax.map(measure, (keys, chosen))
