"""Flax networks with batch normalization, for examples and verification.

`psi_optax.models.linen` and `psi_optax.models.nnx` hold the same networks,
`MLP` and `CNN`, with the same parameter paths and shapes:

- `hidden_i/kernel`, followed by a batch normalization: its output channels
  are scale groups;
- `norm_i/scale` and `norm_i/bias`: together one scale group, but for the last
  ones, which the head sees;
- `head/kernel` and `head/bias`: ordinary.

`psi_optax.find_groups` finds this from the training loss. This is the only
part of psi_optax that imports Flax (`pip install psi_optax[flax]`).
"""

from psi_optax.models import linen, nnx

__all__ = ["linen", "nnx"]
