"""Find scale groups: the proof, the measurement, the report."""

from psi_optax.invariance.checker import check_groups as check_groups
from psi_optax.invariance.finder import find_groups as find_groups
from psi_optax.invariance.finding import Finding as Finding
from psi_optax.invariance.report import GroupReport as GroupReport
