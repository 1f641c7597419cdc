"""Laws of weight norms and rotations, and schedules derived from them."""

from psi_optax.dynamics.conversion import (
    convert_learning_rate as convert_learning_rate,
)
from psi_optax.dynamics.converted import (
    ConvertedLearningRate as ConvertedLearningRate,
)
from psi_optax.dynamics.equilibria import (
    equilibrium_norm as equilibrium_norm,
    equilibrium_rotation as equilibrium_rotation,
    equilibrium_transient as equilibrium_transient,
)
from psi_optax.dynamics.growth import (
    norm_after_step as norm_after_step,
    norms_with_momentum as norms_with_momentum,
)
from psi_optax.dynamics.matching import (
    matching_learning_rate as matching_learning_rate,
)
from psi_optax.dynamics.schedules import (
    balanced_schedule as balanced_schedule,
    directional_rate as directional_rate,
    exponential_schedule as exponential_schedule,
    exponential_trace as exponential_trace,
    next_directional_rate as next_directional_rate,
)
from psi_optax.dynamics.transfer import (
    transfer_learning_rate as transfer_learning_rate,
)
