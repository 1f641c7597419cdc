"""Diagnostics of a run: norms, rotations, effective learning rates, spans."""

from psi_optax.diagnostics.effective_learning_rate import (
    effective_learning_rate as effective_learning_rate,
)
from psi_optax.diagnostics.input_span import (
    input_patches as input_patches,
    split_by_input_span as split_by_input_span,
)
from psi_optax.diagnostics.monitor import (
    MonitorGroupsState as MonitorGroupsState,
    monitor_groups as monitor_groups,
    read_monitor as read_monitor,
)
from psi_optax.diagnostics.norms import group_norms as group_norms
from psi_optax.diagnostics.plot import plot_monitor as plot_monitor
from psi_optax.diagnostics.rotation import rotation as rotation
from psi_optax.reparametrize import normalize as normalize
