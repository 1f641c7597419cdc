"""Optax gradient transformations for weights whose scale means nothing."""

from psi_optax.diagnostics import group_norms as group_norms
from psi_optax.diagnostics import normalize as normalize
from psi_optax.diagnostics import rotation as rotation
from psi_optax.groups import ScaleGroup as ScaleGroup
from psi_optax.groups import describe_groups as describe_groups
from psi_optax.groups import group_labels as group_labels
from psi_optax.groups import groups_from_paths as groups_from_paths
from psi_optax.groups import output_channels as output_channels
from psi_optax.invariance import GroupReport as GroupReport
from psi_optax.invariance import check_groups as check_groups
from psi_optax.invariance import find_groups as find_groups
from psi_optax.optimizers import PsiSgdmState as PsiSgdmState
from psi_optax.optimizers import PsiState as PsiState
from psi_optax.optimizers import psi as psi
from psi_optax.optimizers import psi_adam as psi_adam
from psi_optax.optimizers import psi_sgd as psi_sgd
from psi_optax.optimizers import psi_sgdm as psi_sgdm
from psi_optax.transforms import RescaleWeightsState as RescaleWeightsState
from psi_optax.transforms import RetractState as RetractState
from psi_optax.transforms import clip_by_group_norm as clip_by_group_norm
from psi_optax.transforms import project_to_tangent as project_to_tangent
from psi_optax.transforms import rescale_weights as rescale_weights
from psi_optax.transforms import retract as retract
from psi_optax.transforms import scale_by_group_norm as scale_by_group_norm

__version__ = "0.1.0"

__all__ = [
    "GroupReport",
    "PsiSgdmState",
    "PsiState",
    "RescaleWeightsState",
    "RetractState",
    "ScaleGroup",
    "check_groups",
    "clip_by_group_norm",
    "describe_groups",
    "find_groups",
    "group_labels",
    "group_norms",
    "groups_from_paths",
    "normalize",
    "output_channels",
    "project_to_tangent",
    "psi",
    "psi_adam",
    "psi_sgd",
    "psi_sgdm",
    "rescale_weights",
    "retract",
    "rotation",
    "scale_by_group_norm",
]
