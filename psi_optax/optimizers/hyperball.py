"""Hyperball: steps of one length, and weights back on their sphere."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from psi_optax._validation import (
    check_decay,
    check_flag,
    check_learning_rate,
    check_nonnegative,
    check_transformation,
)
from psi_optax.groups import group_labels, joint_groups
from psi_optax.optimizers.psi import psi
from psi_optax.transforms import (
    normalize_by_group_norm,
    retract,
    scale_by_group_norm,
)
from psi_optax.transforms._sharding import automatic_sharding
from psi_optax.transforms.contract import on_floats
from psi_optax.transforms.radius import Radius
from psi_optax.wrappers.nesting import with_nesting_check


def hyperball(
    learning_rate: optax.ScalarOrSchedule,
    direction: optax.GradientTransformation,
    groups: Any,
    *,
    per_tensor: bool = True,
    equivariant: bool = True,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""A direction of which only the direction counts, on a sphere.

    \[w \leftarrow R\,N\bigl(w - \eta\,R\,N(u)\bigr), \qquad N(x) = x/|x|.\]

    The step is not projected to the tangent space: what of it lies along the
    weights makes it longer or shorter. Zero directions and zero weights stay
    where they are.

    Inside `shard_map` each `axis_name` has to name all mesh axes that its
    parameter is sharded over, those across groups too, unless
    `per_tensor=False`: otherwise every device has a ball of its own.

    Args:
        learning_rate: a number or a schedule, about the angle a step.
        direction: `optax.scale_by_adam()`, or the like. No optimizer:
            `optax.adam(0.1)` in its place would ascend.
        groups: scale groups in any form.
        per_tensor: whether each parameter is one ball, as published, or each
            of its groups is.
        equivariant: whether the direction sees gradients in direction space,
            \(r\,g\), and directions as params; otherwise it sees g and w, as
            published, and an epsilon in it counts more where weights are large.
        ordinary: an optimizer, with its own rate, for ordinary parameters.
            Without it they follow the direction at the same rate.
        radius: see `psi`.

    Returns:
        A transform that needs params; a `PsiState` if equivariant.

    Raises:
        TypeError: a hyperparameter is of another type; the direction is no
            gradient transformation.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = hyperball(0.75, optax.trace(0.9), ScaleGroup(axes=0))
        >>> w = jnp.array([4.0, 0.0])
        >>> u, _ = tx.update(jnp.array([0.0, -9.0]), tx.init(w), w)
        >>> (10 * (w + u)).round().tolist()
        [32.0, 24.0]

    References:
        Wen et al., [Hyperball optimization](https://whenwen.github.io), 2025.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_transformation(direction=direction)
    check_flag(per_tensor=per_tensor, equivariant=equivariant)
    if ordinary is not None:
        check_transformation(ordinary=ordinary)
    balls = joint_groups(groups) if per_tensor else groups
    normalized = optax.chain(direction, normalize_by_group_norm(balls))
    if equivariant:
        return psi(
            normalized,
            balls,
            learning_rate=learning_rate,
            ordinary=ordinary,
            radius=radius,
            tangent=False,
        )
    tx = optax.chain(
        normalized,
        optax.scale_by_learning_rate(learning_rate),
        scale_by_group_norm(balls),
        retract(balls, radius=radius),
    )
    if ordinary is not None:
        tx = optax.partition(
            {"scale": tx, "ordinary": ordinary},
            lambda tree: group_labels(tree, groups),
        )
    return on_floats(with_nesting_check("hyperball", tx, groups), groups)


def adamh(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    per_tensor: bool = True,
    equivariant: bool = True,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""AdamH: `hyperball` around Adam.

    Args:
        learning_rate: a number or a schedule, about the angle a step.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        per_tensor: see `hyperball`.
        equivariant: see `hyperball`.
        ordinary: see `hyperball`; without it, Adam with the same rate.
        radius: see `psi`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> from psi_optax import ScaleGroup, group_norms
        >>> tx = adamh(0.1, ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 4.0])
        >>> u, _ = tx.update(jnp.array([1.0, -2.0]), tx.init(w), w)
        >>> group_norms(w + u, ScaleGroup(axes=0)).round(4).item()
        5.0

    References:
        Wen et al., [Hyperball optimization](https://whenwen.github.io), 2025.
    """
    check_decay("b1", b1)
    check_decay("b2", b2)
    check_nonnegative("eps", eps)
    return hyperball(
        learning_rate,
        optax.scale_by_adam(b1, b2, eps),
        groups,
        per_tensor=per_tensor,
        equivariant=equivariant,
        ordinary=ordinary,
        radius=radius,
    )


def muonh(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    beta: jax.typing.ArrayLike = 0.95,
    *,
    weight_dimension_numbers: Any = None,
    per_tensor: bool = True,
    equivariant: bool = True,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""MuonH: `hyperball` around Muon's orthogonalized momentum.

    Muon mixes the columns of a matrix. With `equivariant=False` it sees raw
    gradients, and filters of other relative norms are another run even where
    each of them is a ball. Inside `shard_map` matrices must be
    whole: Muon sees what the device has.

    Args:
        learning_rate: a number or a schedule, about the angle a step.
        groups: scale groups in any form. Grouped vectors, which are no
            matrices, follow Adam's direction.
        beta: decay of the momentum, in [0, 1).
        weight_dimension_numbers: which axes of a parameter are the rows and the
            columns of its matrix, as in `optax.contrib.muon`; None takes the
            last axis for the columns and all others for the rows, which fits
            Flax's dense and convolution kernels, and not attention's.
        per_tensor: see `hyperball`.
        equivariant: see `hyperball`.
        ordinary: see `hyperball`; without it, Adam with the same rate.
        radius: see `psi`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> from psi_optax import ScaleGroup, group_norms
        >>> tx = muonh(0.1, ScaleGroup(axes=(0, 1)))
        >>> w = jnp.array([[3.0, 0.0], [0.0, 4.0]])
        >>> u, _ = tx.update(jnp.ones((2, 2)), tx.init(w), w)
        >>> group_norms(w + u, ScaleGroup(axes=(0, 1))).round(4).item()
        5.0

    References:
        Wen et al., [Hyperball optimization](https://whenwen.github.io), 2025;
        Jordan et al., [Muon](https://kellerjordan.github.io/posts/muon), 2024.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_decay("beta", beta)
    direction = optax.partition(
        {
            "matrix": automatic_sharding(
                optax.contrib.scale_by_muon(
                    beta=beta,
                    weight_dimension_numbers=_dimension_numbers(
                        weight_dimension_numbers
                    ),
                )
            ),
            "vector": optax.scale_by_adam(),
        },
        lambda tree: jax.tree.map(
            lambda x: "matrix" if jnp.ndim(x) > 1 else "vector", tree
        ),
    )
    return hyperball(
        learning_rate,
        direction,
        groups,
        per_tensor=per_tensor,
        equivariant=equivariant,
        ordinary=ordinary or optax.adam(learning_rate),
        radius=radius,
    )


def _dimension_numbers(given: Any) -> Any:
    """A function of the matrices that are shown, others being masked."""
    if given is None:
        return _last_axis_for_columns
    if callable(given):
        return given
    by_path = {
        path: leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            given, is_leaf=lambda x: x is None or _is_numbers(x)
        )
        if leaf is not None
    }

    def numbers(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: by_path[path], tree
        )

    return numbers


def _is_numbers(x: Any) -> bool:
    return isinstance(x, optax.contrib.MuonDimensionNumbers)


def _last_axis_for_columns(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: optax.contrib.MuonDimensionNumbers(
            tuple(range(jnp.ndim(x) - 1)), jnp.ndim(x) - 1
        ),
        tree,
    )
