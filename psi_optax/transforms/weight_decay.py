"""Weight decay by kind of parameter."""

from typing import Any

import jax
import optax

from psi_optax._validation import check_choice, check_schedule
from psi_optax.groups import group_labels
from psi_optax.transforms.contract import on_floats


def add_decayed_weights(
    weight_decay: optax.ScalarOrSchedule, groups: Any, *, of: str = "ordinary"
) -> optax.GradientTransformationExtraArgs:
    r"""Adds a multiple of the weights to updates, of one kind of parameter.

    \(u \mapsto u + \lambda w\). Where a radius is kept, decay of scale groups
    changes nothing but the length of their steps, so by default it is ordinary
    parameters that decay.

    With `of="scale"` it is equivariant where updates are of degree 1, like the
    weights: *behind* the second `scale_by_group_norm`, and in front of the
    rate; under `psi(..., retraction=None)` that is behind `psi`, as
    `chain(psi(...), add_decayed_weights(-rate * decay, groups, of="scale"))`. In
    front of an optimizer it meets gradients of degree -1, and the scale of the
    weights decides how much of it there is.

    Args:
        weight_decay: \(\lambda\), a real number of any sign, or a schedule.
        groups: scale groups in any form.
        of: "ordinary" or "scale": the labels of `group_labels`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: the decay is no number and no schedule.
        ValueError: groups do not fit params; params are missing in `update`;
            an unknown kind.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> groups = {"kernel": ScaleGroup(axes=0), "bias": None}
        >>> tx = add_decayed_weights(0.5, groups)
        >>> w = {"kernel": jnp.ones(2), "bias": jnp.ones(1)}
        >>> u = jax.tree.map(jnp.zeros_like, w)
        >>> tx.update(u, tx.init(w), w)[0]["bias"].tolist()
        [0.5]

    References:
        Loshchilov and Hutter, [Decoupled weight decay
        regularization](https://arxiv.org/abs/1711.05101), ICLR 2019.
    """
    weight_decay = check_schedule("weight_decay", weight_decay)
    check_choice("of", of, ("ordinary", "scale"))

    def mask(tree):
        labels = group_labels(tree, groups)
        return jax.tree.map(lambda label: label == of, labels)

    return on_floats(optax.add_decayed_weights(weight_decay, mask), groups)
