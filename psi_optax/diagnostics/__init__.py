"""Looking at a run, and preparing one."""

from psi_optax.diagnostics.norms import group_norms as group_norms
from psi_optax.diagnostics.norms import normalize as normalize
from psi_optax.diagnostics.rotation import rotation as rotation
