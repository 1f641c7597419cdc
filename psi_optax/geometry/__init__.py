"""One group's mathematics: reductions, maps between spheres, the step."""

from psi_optax.geometry.maps import Reduction as Reduction
from psi_optax.geometry.maps import Scalars as Scalars
from psi_optax.geometry.maps import angle as angle
from psi_optax.geometry.maps import center as center
from psi_optax.geometry.maps import displacement as displacement
from psi_optax.geometry.maps import factor_to as factor_to
from psi_optax.geometry.maps import largest_shrinkage as largest_shrinkage
from psi_optax.geometry.maps import norm as norm
from psi_optax.geometry.maps import project_to_sphere as project_to_sphere
from psi_optax.geometry.maps import project_to_tangent as project_to_tangent
from psi_optax.geometry.maps import reachable_radii as reachable_radii
from psi_optax.geometry.maps import retract as retract
from psi_optax.geometry.maps import safe_divide as safe_divide
from psi_optax.geometry.maps import safe_sqrt as safe_sqrt
from psi_optax.geometry.maps import scale as scale
from psi_optax.geometry.maps import transport as transport
from psi_optax.geometry.reductions import accumulator as accumulator
from psi_optax.geometry.reductions import spread_groups as spread_groups
from psi_optax.geometry.reductions import sum_groups as sum_groups
from psi_optax.geometry.reductions import widen as widen
from psi_optax.geometry.step import RETRACTIONS as RETRACTIONS
from psi_optax.geometry.step import exponential as exponential
from psi_optax.geometry.step import step as step
from psi_optax.geometry.turns import Leaves as Leaves
from psi_optax.geometry.turns import together as together
from psi_optax.geometry.turns import wait as wait
