"""Reparametrizations: functions from params to params, inside of a loss.

Each makes the loss scale-invariant in the weights that it takes: `find_groups`
proves their scale groups.
"""

from psi_optax.reparametrize.normalization import normalize as normalize
from psi_optax.reparametrize.orthogonalization import orthogonal as orthogonal
from psi_optax.reparametrize.spectral_norm import spectral as spectral
from psi_optax.reparametrize.spheres import (
    centered as centered,
    unit as unit,
)
from psi_optax.reparametrize.standardization import (
    standardized as standardized,
)
from psi_optax.reparametrize.weight_normalization import (
    Reparametrization as Reparametrization,
    Reparametrized as Reparametrized,
    raw_groups as raw_groups,
    weight_normalization as weight_normalization,
)
