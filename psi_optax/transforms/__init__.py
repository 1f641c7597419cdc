"""Gradient transformations of scale groups, for `optax.chain`."""

from psi_optax.transforms.group_norm import (
    clip_by_group_norm as clip_by_group_norm,
    normalize_by_group_norm as normalize_by_group_norm,
    scale_by_group_norm as scale_by_group_norm,
)
from psi_optax.transforms.mixing import (
    mix_with_neighbors as mix_with_neighbors,
)
from psi_optax.transforms.moments import (
    ScaleByGroupAdamState as ScaleByGroupAdamState,
    ScaleByGroupRmsState as ScaleByGroupRmsState,
    scale_by_group_adam as scale_by_group_adam,
    scale_by_group_rms as scale_by_group_rms,
)
from psi_optax.transforms.momentum import (
    TransportedTraceState as TransportedTraceState,
    transported_trace as transported_trace,
)
from psi_optax.transforms.orthogonality import (
    add_orthogonality as add_orthogonality,
)
from psi_optax.transforms.projection import (
    project_to_tangent as project_to_tangent,
    project_to_zero_mean as project_to_zero_mean,
)
from psi_optax.transforms.relative_ascent import (
    relative_ascent as relative_ascent,
)
from psi_optax.transforms.rescaling import (
    RescaleWeightsState as RescaleWeightsState,
    rescale_weights as rescale_weights,
)
from psi_optax.transforms.retraction import (
    RetractState as RetractState,
    retract as retract,
)
from psi_optax.transforms.weight_decay import (
    add_decayed_weights as add_decayed_weights,
)
