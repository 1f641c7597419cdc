"""Flax networks with batch normalization, for examples and verification.

`psi_optax.models.linen` and `psi_optax.models.nnx` hold the same networks,
`MLP` and `CNN`, with the same parameter paths and shapes:

- `hidden_i/kernel`, followed by a batch normalization: scale-invariant;
- `norm_i/scale` and `norm_i/bias`: ordinary;
- `head/kernel` and `head/bias`: ordinary.

`scale_groups(params)` states this for the optimizers. This is the only part
of psi_optax that imports Flax (`pip install psi_optax[flax]`).
"""

from psi_optax.models import linen, nnx
from psi_optax.models.grouping import HIDDEN_KERNELS, scale_groups

__all__ = ["HIDDEN_KERNELS", "linen", "nnx", "scale_groups"]
