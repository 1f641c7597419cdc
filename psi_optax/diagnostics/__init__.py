"""Looking at a run, and preparing one."""

from psi_optax.batch_stats import recalibrate as recalibrate
from psi_optax.batch_stats import rescale as rescale
from psi_optax.diagnostics.effective_learning_rate import (
    effective_learning_rate as effective_learning_rate,
)
from psi_optax.diagnostics.input_span import input_patches as input_patches
from psi_optax.diagnostics.input_span import (
    split_by_input_span as split_by_input_span,
)
from psi_optax.diagnostics.monitor import (
    MonitorGroupsState as MonitorGroupsState,
)
from psi_optax.diagnostics.monitor import monitor_groups as monitor_groups
from psi_optax.diagnostics.monitor import read_monitor as read_monitor
from psi_optax.diagnostics.norms import group_norms as group_norms
from psi_optax.diagnostics.norms import normalize as normalize
from psi_optax.diagnostics.plot import plot_monitor as plot_monitor
from psi_optax.diagnostics.rotation import rotation as rotation
from psi_optax.dynamics.equilibria import equilibrium_norm as equilibrium_norm
from psi_optax.dynamics.equilibria import (
    equilibrium_rotation as equilibrium_rotation,
)
from psi_optax.dynamics.equilibria import (
    equilibrium_transient as equilibrium_transient,
)
from psi_optax.dynamics.growth import norm_after_step as norm_after_step
from psi_optax.dynamics.growth import norms_with_momentum as norms_with_momentum
from psi_optax.dynamics.matching import (
    matching_learning_rate as matching_learning_rate,
)
from psi_optax.dynamics.schedules import balanced_schedule as balanced_schedule
from psi_optax.dynamics.schedules import directional_rate as directional_rate
from psi_optax.dynamics.schedules import (
    exponential_schedule as exponential_schedule,
)
from psi_optax.dynamics.schedules import exponential_trace as exponential_trace
from psi_optax.dynamics.schedules import (
    next_directional_rate as next_directional_rate,
)
