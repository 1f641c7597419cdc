"""Optax gradient transformations for weights whose scale means nothing."""

from psi_optax.batch_stats import recalibrate as recalibrate
from psi_optax.batch_stats import rescale as rescale
from psi_optax.diagnostics import MonitorGroupsState as MonitorGroupsState
from psi_optax.diagnostics import (
    effective_learning_rate as effective_learning_rate,
)
from psi_optax.diagnostics import group_norms as group_norms
from psi_optax.diagnostics import input_patches as input_patches
from psi_optax.diagnostics import monitor_groups as monitor_groups
from psi_optax.diagnostics import normalize as normalize
from psi_optax.diagnostics import plot_monitor as plot_monitor
from psi_optax.diagnostics import read_monitor as read_monitor
from psi_optax.diagnostics import rotation as rotation
from psi_optax.diagnostics import split_by_input_span as split_by_input_span
from psi_optax.dynamics import balanced_schedule as balanced_schedule
from psi_optax.dynamics import directional_rate as directional_rate
from psi_optax.dynamics import equilibrium_norm as equilibrium_norm
from psi_optax.dynamics import equilibrium_rotation as equilibrium_rotation
from psi_optax.dynamics import equilibrium_transient as equilibrium_transient
from psi_optax.dynamics import exponential_schedule as exponential_schedule
from psi_optax.dynamics import exponential_trace as exponential_trace
from psi_optax.dynamics import matching_learning_rate as matching_learning_rate
from psi_optax.dynamics import next_directional_rate as next_directional_rate
from psi_optax.dynamics import norm_after_step as norm_after_step
from psi_optax.dynamics import norms_with_momentum as norms_with_momentum
from psi_optax.groups import ScaleGroup as ScaleGroup
from psi_optax.groups import describe_groups as describe_groups
from psi_optax.groups import group_labels as group_labels
from psi_optax.groups import groups_from_paths as groups_from_paths
from psi_optax.groups import joint_groups as joint_groups
from psi_optax.groups import output_channels as output_channels
from psi_optax.invariance import GroupReport as GroupReport
from psi_optax.invariance import check_groups as check_groups
from psi_optax.invariance import find_groups as find_groups
from psi_optax.optimizers import PsiSgdmState as PsiSgdmState
from psi_optax.optimizers import PsiState as PsiState
from psi_optax.optimizers import adam_g as adam_g
from psi_optax.optimizers import adamh as adamh
from psi_optax.optimizers import adamp as adamp
from psi_optax.optimizers import hyperball as hyperball
from psi_optax.optimizers import muonh as muonh
from psi_optax.optimizers import psi as psi
from psi_optax.optimizers import psi_adam as psi_adam
from psi_optax.optimizers import psi_sgd as psi_sgd
from psi_optax.optimizers import psi_sgdm as psi_sgdm
from psi_optax.optimizers import rotational as rotational
from psi_optax.optimizers import sgd_g as sgd_g
from psi_optax.optimizers import sgdp as sgdp
from psi_optax.optimizers import weight_rescaling as weight_rescaling
from psi_optax.transforms import RescaleWeightsState as RescaleWeightsState
from psi_optax.transforms import RetractState as RetractState
from psi_optax.transforms import ScaleByGroupAdamState as ScaleByGroupAdamState
from psi_optax.transforms import ScaleByGroupRmsState as ScaleByGroupRmsState
from psi_optax.transforms import TransportedTraceState as TransportedTraceState
from psi_optax.transforms import add_decayed_weights as add_decayed_weights
from psi_optax.transforms import add_orthogonality as add_orthogonality
from psi_optax.transforms import clip_by_group_norm as clip_by_group_norm
from psi_optax.transforms import (
    normalize_by_group_norm as normalize_by_group_norm,
)
from psi_optax.transforms import project_to_tangent as project_to_tangent
from psi_optax.transforms import project_to_zero_mean as project_to_zero_mean
from psi_optax.transforms import rescale_weights as rescale_weights
from psi_optax.transforms import retract as retract
from psi_optax.transforms import scale_by_group_adam as scale_by_group_adam
from psi_optax.transforms import scale_by_group_norm as scale_by_group_norm
from psi_optax.transforms import scale_by_group_rms as scale_by_group_rms
from psi_optax.transforms import transported_trace as transported_trace
from psi_optax.wrappers import AverageWeightsState as AverageWeightsState
from psi_optax.wrappers import MasterWeightsState as MasterWeightsState
from psi_optax.wrappers import ProjectByCosineState as ProjectByCosineState
from psi_optax.wrappers import (
    StochasticRoundingState as StochasticRoundingState,
)
from psi_optax.wrappers import average_weights as average_weights
from psi_optax.wrappers import get_average as get_average
from psi_optax.wrappers import master_weights as master_weights
from psi_optax.wrappers import project_by_cosine as project_by_cosine
from psi_optax.wrappers import stochastic_rounding as stochastic_rounding

__version__ = "0.1.0"

__all__ = [
    "AverageWeightsState",
    "GroupReport",
    "MasterWeightsState",
    "MonitorGroupsState",
    "ProjectByCosineState",
    "PsiSgdmState",
    "PsiState",
    "RescaleWeightsState",
    "RetractState",
    "ScaleByGroupAdamState",
    "ScaleByGroupRmsState",
    "ScaleGroup",
    "StochasticRoundingState",
    "TransportedTraceState",
    "adam_g",
    "adamh",
    "adamp",
    "add_decayed_weights",
    "add_orthogonality",
    "average_weights",
    "averaged",
    "balanced_schedule",
    "check_groups",
    "clip_by_group_norm",
    "describe_groups",
    "directional_rate",
    "effective_learning_rate",
    "equilibrium_norm",
    "equilibrium_rotation",
    "equilibrium_transient",
    "exponential_schedule",
    "exponential_trace",
    "find_groups",
    "group_labels",
    "group_norms",
    "groups_from_paths",
    "hyperball",
    "input_patches",
    "joint_groups",
    "master_weights",
    "matching_learning_rate",
    "monitor_groups",
    "monitored",
    "muonh",
    "next_directional_rate",
    "norm_after_step",
    "normalize",
    "normalize_by_group_norm",
    "norms_with_momentum",
    "output_channels",
    "plot_monitor",
    "project_by_cosine",
    "project_to_tangent",
    "project_to_zero_mean",
    "psi",
    "psi_adam",
    "psi_sgd",
    "psi_sgdm",
    "recalibrate_batch_stats",
    "rescale_batch_stats",
    "rescale_weights",
    "retract",
    "rotation",
    "rotational",
    "scale_by_group_adam",
    "scale_by_group_norm",
    "scale_by_group_rms",
    "sgd_g",
    "sgdp",
    "split_by_input_span",
    "stochastic_rounding",
    "transported_trace",
    "weight_rescaling",
]
