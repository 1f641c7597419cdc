"""One group's mathematics: reductions, maps between spheres, the step."""

from psi_optax.geometry._scheduling import after as after
from psi_optax.geometry._scheduling import barrier as barrier
from psi_optax.geometry.maps import Reduction as Reduction
from psi_optax.geometry.maps import angle as angle
from psi_optax.geometry.maps import center as center
from psi_optax.geometry.maps import norm as norm
from psi_optax.geometry.maps import project_to_sphere as project_to_sphere
from psi_optax.geometry.maps import project_to_tangent as project_to_tangent
from psi_optax.geometry.maps import rescaling_factor as rescaling_factor
from psi_optax.geometry.maps import retract as retract
from psi_optax.geometry.maps import scale as scale
from psi_optax.geometry.maps import transport as transport
from psi_optax.geometry.numerics import safe_divide as safe_divide
from psi_optax.geometry.numerics import safe_sqrt as safe_sqrt
from psi_optax.geometry.rounding import largest_shrinkage as largest_shrinkage
from psi_optax.geometry.rounding import reachable_radii as reachable_radii
from psi_optax.geometry.rounding import rounded_update as rounded_update
from psi_optax.geometry.step import RETRACTIONS as RETRACTIONS
from psi_optax.geometry.step import exponential as exponential
from psi_optax.geometry.step import step as step
from psi_optax.groups.reductions import accumulation_dtype as accumulation_dtype
from psi_optax.groups.reductions import broadcast_groups as broadcast_groups
from psi_optax.groups.reductions import sum_groups as sum_groups
from psi_optax.groups.reductions import to_accumulator as to_accumulator
from psi_optax.groups.types import Leaves as Leaves
from psi_optax.groups.types import Scalars as Scalars
