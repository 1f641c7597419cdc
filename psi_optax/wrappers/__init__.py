"""Transformations that hold weights, or that wrap an optimizer."""

from psi_optax.wrappers.average_weights import (
    AverageWeightsState as AverageWeightsState,
    average_weights as average_weights,
    get_average as get_average,
)
from psi_optax.wrappers.master_weights import (
    MasterWeightsState as MasterWeightsState,
    master_weights as master_weights,
)
from psi_optax.wrappers.project_by_cosine import (
    ProjectByCosineState as ProjectByCosineState,
    project_by_cosine as project_by_cosine,
)
from psi_optax.wrappers.stochastic_rounding import (
    StochasticRoundingState as StochasticRoundingState,
    stochastic_rounding as stochastic_rounding,
)
