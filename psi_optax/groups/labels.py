"""Labels of parameters, for optax's partitions and masks."""

from psi_optax.groups.paths import map_with_path
from psi_optax.groups.plan import make_plan
from psi_optax.groups.types import Groups, Tree


def group_labels(params: Tree, groups: Groups) -> Tree:
    """Label every parameter "scale" or "ordinary".

    The labels serve `optax.partition` and masks such as that of
    `optax.add_decayed_weights`. Pass a function there,
    `lambda tree: group_labels(tree, groups)`: a tree of labels must have the
    exact type of the updates, and `nnx.Optimizer` shows trees of different
    types to `init` and to `update`.

    Args:
        params: arrays, or leaves with shapes and dtypes.
        groups: scale groups in any form.

    Returns:
        A tree like params.

    Raises:
        ValueError: groups do not fit params; see `ScaleGroup`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
        >>> group_labels(params, {"kernel": ScaleGroup(0), "bias": None})
        {'bias': 'ordinary', 'kernel': 'scale'}
    """
    grouped = set(make_plan(groups, params).paths)
    return map_with_path(
        lambda path, _: "scale" if path in grouped else "ordinary", params
    )
