"""geoopt on spheres, whose points are the rows."""

import functools

import geoopt

from tests.oracles import problem
from tests.oracles.peers.following import follow

DISTRIBUTIONS = ("geoopt", "torch", "numpy")

SGD = geoopt.optim.RiemannianSGD
ADAM = geoopt.optim.RiemannianAdam
CASES = {
    "geoopt_sgd": (SGD, geoopt.Sphere(), {"lr": 0.1}),
    "geoopt_sgd_exact": (SGD, geoopt.SphereExact(), {"lr": 0.1}),
    "geoopt_sgd_momentum": (
        SGD,
        geoopt.Sphere(),
        {"lr": 0.05, "momentum": 0.9},
    ),
    "geoopt_adam": (
        ADAM,
        geoopt.Sphere(),
        {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-8},
    ),
}


def cases():
    """Yields (file name, arrays)."""
    for name, (optimizer, manifold, settings) in CASES.items():
        yield (
            name,
            follow(
                optimizer,
                problem.unit_start(),
                problem.ordinary,
                settings,
                functools.partial(geoopt.ManifoldParameter, manifold=manifold),
            ),
        )
