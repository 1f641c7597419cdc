"""Weight decay of ordinary parameters, or of scale groups."""

import jax
import optax

from psi_optax._validation import check_choice, check_schedule
from psi_optax.groups import Groups, Tree, group_labels
from psi_optax.transforms.contract import floating_transform


def add_decayed_weights(
    weight_decay: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    of: str = "ordinary",
) -> optax.GradientTransformationExtraArgs:
    r"""Add decayed weights to updates, for one kind of parameter.

    \(u \mapsto u + \lambda w\). If a radius is kept, decay of scale groups
    changes the length of their steps alone. By default ordinary parameters
    decay.

    With `of="scale"` it is equivariant if updates are of degree 1, like the
    weights: after the second `scale_by_group_norm`, and before the learning
    rate. Under `psi(..., retraction=None)` that is after `psi`, as
    `chain(psi(...), add_decayed_weights(-rate * decay, groups, of="scale"))`.
    Before an optimizer it meets gradients of degree -1, and its strength
    depends on the scale of the weights.

    Args:
        weight_decay: \(\lambda\), a real number of any sign, or a schedule.
        groups: scale groups in any form.
        of: "ordinary" or "scale": the labels of `group_labels`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: the decay is neither a number nor a schedule.
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

    def mask(tree: Tree) -> Tree:
        labels = group_labels(tree, groups)
        return jax.tree.map(lambda label: label == of, labels)

    return floating_transform(
        optax.add_decayed_weights(weight_decay, mask), groups
    )
