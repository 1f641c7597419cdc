"""Direction errors of runs whose first weights are rescaled.

Each optimizer of psi_optax and optax runs from four starts, and those of
torch's libraries where `make oracles` has made their environments. The exit
status is 1 if a claim about psi_optax does not hold, or a run hardly moves.
"""

from typing import Any

__all__ = ["MEASUREMENT"]


def __getattr__(name: str) -> Any:
    """Import the measurement on demand: torch's environments have no JAX."""
    if name != "MEASUREMENT":
        raise AttributeError(name)
    from benchmarks.experiments.equivariance.experiment import MEASUREMENT

    return MEASUREMENT
