"""The RotationalWrapper of Kosson et al., from sources."""

from shared.optimizers.rotational_wrapper import RotationalWrapper

from tests.oracles import problem
from tests.oracles.peers.following import follow

DISTRIBUTIONS = ("torch", "numpy")
SOURCES = (
    "shared/optimizers/rotational_wrapper.py",
    "shared/optimizers/common.py",
)

INNER = {
    "sgdm": {
        "inner_type": "sgdm",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.1,
    },
    "adamw": {
        "inner_type": "adamw",
        "lr": 0.1,
        "betas": (0.9, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.1,
    },
}


def cases():
    """Yields (file name, arrays)."""
    for inner, settings in INNER.items():
        yield f"req_{inner}", _follow(problem.start(), settings, False)
        # The wrapper centers the weights that it is given: these are centered.
        yield (
            f"req_{inner}_centered",
            _follow(problem.centered_start(), settings, True),
        )


def _follow(start, settings, zero_mean):
    return follow(
        RotationalWrapper,
        start,
        problem.ordinary,
        {**settings, "zero_mean": zero_mean},
    )
