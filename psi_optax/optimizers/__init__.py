"""Optimizers on the PSI manifold: `psi` around any optimizer, and recipes."""

from psi_optax.optimizers.adamp import adamp as adamp
from psi_optax.optimizers.adamp import sgdp as sgdp
from psi_optax.optimizers.hyperball import adamh as adamh
from psi_optax.optimizers.hyperball import hyperball as hyperball
from psi_optax.optimizers.hyperball import muonh as muonh
from psi_optax.optimizers.psi import PsiState as PsiState
from psi_optax.optimizers.psi import psi as psi
from psi_optax.optimizers.psi_sgdm import PsiSgdmState as PsiSgdmState
from psi_optax.optimizers.psi_sgdm import psi_sgdm as psi_sgdm
from psi_optax.optimizers.recipes import psi_adam as psi_adam
from psi_optax.optimizers.recipes import psi_sgd as psi_sgd
from psi_optax.optimizers.riemannian import adam_g as adam_g
from psi_optax.optimizers.riemannian import sgd_g as sgd_g
from psi_optax.optimizers.rotational import rotational as rotational
from psi_optax.optimizers.weight_rescaling import (
    weight_rescaling as weight_rescaling,
)
