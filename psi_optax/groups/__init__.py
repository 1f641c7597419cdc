"""Scale groups: statements by hand, and the plan they are resolved to."""

from psi_optax.groups.describe import describe_groups as describe_groups
from psi_optax.groups.joint import (
    JointGroups as JointGroups,
    joint_groups as joint_groups,
)
from psi_optax.groups.labels import group_labels as group_labels
from psi_optax.groups.output_channels import output_channels as output_channels
from psi_optax.groups.path_rules import (
    PathRules as PathRules,
    groups_from_paths as groups_from_paths,
)
from psi_optax.groups.plan import (
    GroupedLeaf as GroupedLeaf,
    Plan as Plan,
    make_plan as make_plan,
)
from psi_optax.groups.scale_group import ScaleGroup as ScaleGroup
from psi_optax.groups.types import (
    GroupRule as GroupRule,
    Groups as Groups,
    Leaves as Leaves,
    Scalars as Scalars,
    Tree as Tree,
)
