"""pymanopt's maps between spheres; its points are columns, and so are these."""

import numpy as np
from pymanopt.manifolds import Oblique

from tests.oracles import problem

DISTRIBUTIONS = ("pymanopt", "numpy")

# The lengths of the steps in radians, all below pi, where log is unique.
ANGLES = (0.3, 1.2, 2.8)


def cases():
    """Yields (file name, arrays)."""
    manifold = Oblique(problem.SIZE, problem.FILTERS)
    point = problem.unit_start().T
    vector = problem.ordinary(0, point.T).T
    tangent = manifold.projection(point, vector)
    step = np.asarray(ANGLES) * tangent / np.linalg.norm(tangent, axis=0)
    other = problem.ordinary(1, point.T).T
    end = manifold.exp(point, step)
    yield (
        "pymanopt_oblique",
        {
            "point": point,
            "vector": vector,
            "projection": tangent,
            "step": step,
            "retraction": manifold.retraction(point, step),
            "exponential": end,
            "other": other,
            "transport": manifold.transport(point, end, other),
            "logarithm": manifold.log(end, point),
        },
    )
