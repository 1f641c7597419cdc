"""Optax gradient transformations for scale-invariant weights."""

from typing import TYPE_CHECKING

from psi_optax import (
    batch_stats as batch_stats,
    diagnostics as diagnostics,
    dynamics as dynamics,
    initialize as initialize,
    landscape as landscape,
    optimizers as optimizers,
    reparametrize as reparametrize,
    transforms as transforms,
    wrappers as wrappers,
)
from psi_optax.diagnostics import (
    group_norms as group_norms,
    rotation as rotation,
)
from psi_optax.groups import (
    ScaleGroup as ScaleGroup,
    describe_groups as describe_groups,
    group_labels as group_labels,
    groups_from_paths as groups_from_paths,
    joint_groups as joint_groups,
    output_channels as output_channels,
)
from psi_optax.invariance import (
    GroupReport as GroupReport,
    check_groups as check_groups,
    find_groups as find_groups,
)
from psi_optax.optimizers import (
    adam_g as adam_g,
    adamh as adamh,
    adamp as adamp,
    hyperball as hyperball,
    muonh as muonh,
    psi as psi,
    psi_adam as psi_adam,
    psi_direction as psi_direction,
    psi_sgd as psi_sgd,
    psi_sgdm as psi_sgdm,
    rotational as rotational,
    sgd_g as sgd_g,
    sgdp as sgdp,
    weight_rescaling as weight_rescaling,
)
from psi_optax.reparametrize import normalize as normalize

__version__ = "0.1.0"

_ROOMS = (
    transforms,
    wrappers,
    optimizers,
    reparametrize,
    initialize,
    diagnostics,
    dynamics,
    landscape,
    batch_stats,
)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Name the module that has a name which this one does not export."""
        places = [
            f"{room.__name__}.{name}" for room in _ROOMS if hasattr(room, name)
        ]
        also = f": use {places[0]}" if places else ""
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}{also}"
        )
