"""States that conflict with a transform that moves weights by itself."""

from collections.abc import Mapping

import optax

from psi_optax.wrappers.average_weights import AverageWeightsState
from psi_optax.wrappers.master_weights import MasterWeightsState
from psi_optax.wrappers.nesting import Conflict
from psi_optax.wrappers.perturb_weights import PerturbWeightsState
from psi_optax.wrappers.stochastic_rounding import StochasticRoundingState

_COPIES = "it keeps its own weights, which {outer} would leave behind"
_AROUND = "Put {outer} inside of it."
_OTHER = "Choose another optimizer."

CONFLICTS: Mapping[type, Conflict] = {
    AverageWeightsState: Conflict(_COPIES, "Put it after {outer}.", "average"),
    MasterWeightsState: Conflict(_COPIES, _AROUND, "weights"),
    PerturbWeightsState: Conflict(_COPIES, _AROUND, "center"),
    StochasticRoundingState: Conflict("its rounding would be lost", _AROUND),
    optax.LookaheadState: Conflict("its params are pairs", _AROUND),
    optax.ScaleByLBFGSState: Conflict(_COPIES, _OTHER, "params"),
    optax.contrib.COCOBState: Conflict(_COPIES, _OTHER, "init_particles"),
    optax.contrib.SAMState: Conflict(
        _COPIES,
        "Put {outer} inside of it, or choose opaque_mode=True.",
        "cache",
    ),
    optax.contrib.ScheduleFreeState: Conflict(
        _COPIES,
        "Around {outer} its weights leave their norms: put average_weights"
        " after {outer} in its place.",
        "z",
    ),
}
