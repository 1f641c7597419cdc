"""Emerging-Optimizers' ObliqueSGD and ObliqueAdam; needs Python 3.12."""

import functools

from emerging_optimizers.riemannian_optimizers import ObliqueAdam, ObliqueSGD

from tests.oracles import problem
from tests.oracles.peers.following import follow

DISTRIBUTIONS = ("emerging-optimizers", "torch", "numpy")

CASES = {
    "emerging_oblique_sgd": (ObliqueSGD, {"lr": 0.1, "momentum": 0.9}),
    "emerging_oblique_adam": (
        ObliqueAdam,
        {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-8},
    ),
}


def cases():
    """Yields (file name, arrays)."""
    for name, (optimizer, settings) in CASES.items():
        yield (
            name,
            follow(
                functools.partial(optimizer, dim=1),
                problem.unit_start(),
                problem.ordinary,
                settings,
            ),
        )
