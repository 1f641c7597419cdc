"""Scale groups: how to state them, and the plan that everything runs on."""

from psi_optax.groups.describe import describe_groups as describe_groups
from psi_optax.groups.describe import group_labels as group_labels
from psi_optax.groups.joint import JointGroups as JointGroups
from psi_optax.groups.joint import joint_groups as joint_groups
from psi_optax.groups.plan import GroupedLeaf as GroupedLeaf
from psi_optax.groups.plan import Plan as Plan
from psi_optax.groups.plan import make_plan as make_plan
from psi_optax.groups.rules import PathRules as PathRules
from psi_optax.groups.rules import groups_from_paths as groups_from_paths
from psi_optax.groups.rules import output_channels as output_channels
from psi_optax.groups.scale_group import ScaleGroup as ScaleGroup
