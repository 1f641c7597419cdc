"""Optax transforms on scale groups, one idea a file."""

from psi_optax.transforms.rescaling import (
    RescaleWeightsState as RescaleWeightsState,
)
from psi_optax.transforms.rescaling import rescale_weights as rescale_weights
from psi_optax.transforms.retraction import RetractState as RetractState
from psi_optax.transforms.retraction import retract as retract
from psi_optax.transforms.scaling import (
    clip_by_group_norm as clip_by_group_norm,
)
from psi_optax.transforms.scaling import (
    scale_by_group_norm as scale_by_group_norm,
)
from psi_optax.transforms.tangent import (
    project_to_tangent as project_to_tangent,
)
