"""Operations without parameters, for both frameworks.

Those of the networks, and four that need no layer:

- `divisive_normalization`;
- `moment_exchange`, with `mixed_labels_loss`;
- `gaussian_moments`, for normalization propagation.
"""

from psi_optax.models.functions.divisive import divisive_normalization
from psi_optax.models.functions.gaussian import gaussian_moments
from psi_optax.models.functions.moments import (
    mixed_labels_loss,
    moment_exchange,
)
from psi_optax.models.functions.network_parts import (
    flatten,
    global_average_pool,
    head_input,
    identity,
    max_pool_2x2,
    max_pool_3x3,
    position_encoding,
    squared_relu,
    tied_logits,
    tokens_with_positions,
    vgg_features,
    vgg_num_features,
    zero_pad_shortcut,
)

__all__ = [
    "divisive_normalization",
    "flatten",
    "gaussian_moments",
    "global_average_pool",
    "head_input",
    "identity",
    "max_pool_2x2",
    "max_pool_3x3",
    "mixed_labels_loss",
    "moment_exchange",
    "position_encoding",
    "squared_relu",
    "tied_logits",
    "tokens_with_positions",
    "vgg_features",
    "vgg_num_features",
    "zero_pad_shortcut",
]
