"""Optimizers on the PSI manifold, and other optimizers with scale groups."""

from psi_optax.optimizers.adamp import adamp as adamp, sgdp as sgdp
from psi_optax.optimizers.continuing import carry_moments as carry_moments
from psi_optax.optimizers.hyperball import (
    adamh as adamh,
    hyperball as hyperball,
    muonh as muonh,
)
from psi_optax.optimizers.names import (
    get_optimizer as get_optimizer,
    list_optimizers as list_optimizers,
)
from psi_optax.optimizers.psi import (
    PsiState as PsiState,
    psi as psi,
    psi_direction as psi_direction,
)
from psi_optax.optimizers.psi_adam import psi_adam as psi_adam
from psi_optax.optimizers.psi_sgd import psi_sgd as psi_sgd
from psi_optax.optimizers.psi_sgdm import (
    PsiSgdmState as PsiSgdmState,
    psi_sgdm as psi_sgdm,
)
from psi_optax.optimizers.riemannian import adam_g as adam_g, sgd_g as sgd_g
from psi_optax.optimizers.rotational import rotational as rotational
from psi_optax.optimizers.weight_rescaling import (
    weight_rescaling as weight_rescaling,
)
