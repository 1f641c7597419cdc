"""Transformations that hold weights, wrap an optimizer, or need `grad_fn`."""

from psi_optax.wrappers.average_weights import (
    AverageWeightsState as AverageWeightsState,
    average_weights as average_weights,
    get_average as get_average,
)
from psi_optax.wrappers.local_entropy import (
    LocalEntropyState as LocalEntropyState,
    local_entropy as local_entropy,
)
from psi_optax.wrappers.master_weights import (
    MasterWeightsState as MasterWeightsState,
    master_weights as master_weights,
)
from psi_optax.wrappers.perturb_weights import (
    PerturbWeightsState as PerturbWeightsState,
    get_center as get_center,
    perturb_weights as perturb_weights,
)
from psi_optax.wrappers.project_by_cosine import (
    ProjectByCosineState as ProjectByCosineState,
    project_by_cosine as project_by_cosine,
)
from psi_optax.wrappers.stochastic_rounding import (
    StochasticRoundingState as StochasticRoundingState,
    stochastic_rounding as stochastic_rounding,
)
