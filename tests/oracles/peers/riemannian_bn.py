"""SGD-G and Adam-G of the PyTorch port of Cho and Lee's code, from sources."""

import functools

from grassmann_optimizer import SGDG, AdamG

from tests.oracles import problem
from tests.oracles.peers.following import follow

DISTRIBUTIONS = ("torch", "numpy")
SOURCES = ("grassmann_optimizer.py", "gutils.py")

SETTINGS = {"lr": 0.1, "momentum": 0.9}
# Between the shortest and the longest of the gradients.
CLIP = {**SETTINGS, "grad_clip": 0.5}
CASES = {
    "rbn_sgd_g": (SGDG, SETTINGS),
    "rbn_sgd_g_clip": (SGDG, CLIP),
    "rbn_adam_g": (AdamG, SETTINGS),
    "rbn_adam_g_clip": (AdamG, CLIP),
}


def cases():
    """Yields (file name, arrays)."""
    for name, (optimizer, settings) in CASES.items():
        yield (
            name,
            follow(
                functools.partial(optimizer, grassmann=True),
                problem.unit_start(),
                problem.ordinary,
                settings,
            ),
        )
