"""The mathematics of scale groups: maps between spheres, and the step."""

from psi_optax.geometry.maps import (
    angle as angle,
    center as center,
    direction as direction,
    norm as norm,
    project_to_sphere as project_to_sphere,
    project_to_tangent as project_to_tangent,
    rescaling_factor as rescaling_factor,
    scale as scale,
    transport as transport,
)
from psi_optax.geometry.numerics import (
    replace_value as replace_value,
    safe_divide as safe_divide,
    safe_sqrt as safe_sqrt,
)
from psi_optax.geometry.one_sum import (
    OneSum as OneSum,
    one_sum_parts as one_sum_parts,
    one_sum_step as one_sum_step,
)
from psi_optax.geometry.retraction import (
    apply_retraction_factor as apply_retraction_factor,
    retract as retract,
    retraction_factor as retraction_factor,
    retraction_sums as retraction_sums,
)
from psi_optax.geometry.rounding import rounded_update as rounded_update
from psi_optax.geometry.stacks import (
    Stacks as Stacks,
    stack_leaves as stack_leaves,
)
from psi_optax.geometry.step import RETRACTIONS as RETRACTIONS, step as step
from psi_optax.geometry.sums import (
    StepSums as StepSums,
    split_direction as split_direction,
    step_sums as step_sums,
)
from psi_optax.geometry.transported_step import (
    Momentum as Momentum,
    momentum_sums as momentum_sums,
    transported_step as transported_step,
)
from psi_optax.geometry.update_parts import (
    UpdateParts as UpdateParts,
    measure_parts as measure_parts,
    remember_parts as remember_parts,
    update_parts as update_parts,
)
