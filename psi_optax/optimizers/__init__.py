"""Optimizers on the PSI manifold: `psi` around any optimizer, and recipes."""

from psi_optax.optimizers.psi import PsiState as PsiState
from psi_optax.optimizers.psi import psi as psi
from psi_optax.optimizers.recipes import psi_adam as psi_adam
from psi_optax.optimizers.recipes import psi_sgd as psi_sgd
from psi_optax.optimizers.sgdm import PsiSgdmState as PsiSgdmState
from psi_optax.optimizers.sgdm import psi_sgdm as psi_sgdm
