"""Initializations: functions from params to better params, before training."""

from psi_optax.initialize.data_dependent import (
    data_dependent_initialization as data_dependent_initialization,
)
from psi_optax.initialize.gradient_based import (
    gradient_initialization as gradient_initialization,
)
from psi_optax.initialize.whitening import (
    WhitenedLayer as WhitenedLayer,
    whitened_layer as whitened_layer,
)
