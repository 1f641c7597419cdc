"""Optax transforms on scale groups, one idea a file."""

from psi_optax.transforms.moments import (
    ScaleByGroupAdamState as ScaleByGroupAdamState,
)
from psi_optax.transforms.moments import (
    ScaleByGroupRmsState as ScaleByGroupRmsState,
)
from psi_optax.transforms.moments import (
    scale_by_group_adam as scale_by_group_adam,
)
from psi_optax.transforms.moments import (
    scale_by_group_rms as scale_by_group_rms,
)
from psi_optax.transforms.momentum import (
    TransportedTraceState as TransportedTraceState,
)
from psi_optax.transforms.momentum import transported_trace as transported_trace
from psi_optax.transforms.orthogonality import (
    add_orthogonality as add_orthogonality,
)
from psi_optax.transforms.projection import (
    project_to_tangent as project_to_tangent,
)
from psi_optax.transforms.projection import (
    project_to_zero_mean as project_to_zero_mean,
)
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
    normalize_by_group_norm as normalize_by_group_norm,
)
from psi_optax.transforms.scaling import (
    scale_by_group_norm as scale_by_group_norm,
)
from psi_optax.transforms.weight_decay import (
    add_decayed_weights as add_decayed_weights,
)
from psi_optax.wrappers.average_weights import (
    AverageWeightsState as AverageWeightsState,
)
from psi_optax.wrappers.average_weights import (
    average_weights as average_weights,
)
from psi_optax.wrappers.average_weights import get_average as get_average
from psi_optax.wrappers.master_weights import (
    MasterWeightsState as MasterWeightsState,
)
from psi_optax.wrappers.master_weights import master_weights as master_weights
from psi_optax.wrappers.project_by_cosine import (
    ProjectByCosineState as ProjectByCosineState,
)
from psi_optax.wrappers.project_by_cosine import (
    project_by_cosine as project_by_cosine,
)
from psi_optax.wrappers.stochastic_rounding import (
    StochasticRoundingState as StochasticRoundingState,
)
from psi_optax.wrappers.stochastic_rounding import (
    stochastic_rounding as stochastic_rounding,
)
