"""Hyperball: normalized steps, and a retraction to the sphere."""

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
from psi_optax.groups import Groups, joint_groups
from psi_optax.optimizers._ascent import warn_of_ascent
from psi_optax.optimizers._ordinary import require_ordinary, with_ordinary
from psi_optax.optimizers._step_sizes import Normalized
from psi_optax.optimizers.psi import on_spheres
from psi_optax.transforms import (
    normalize_by_group_norm,
    retract,
    scale_by_group_norm,
)
from psi_optax.transforms._sharding import automatic_sharding
from psi_optax.transforms.contract import floating_transform
from psi_optax.transforms.radius import Radius
from psi_optax.wrappers.conflicts import CONFLICTS
from psi_optax.wrappers.nesting import with_nesting_check


def hyperball(
    learning_rate: optax.ScalarOrSchedule,
    direction: optax.GradientTransformation,
    groups: Groups,
    *,
    per_tensor: bool = True,
    equivariant: bool = True,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Descend along a normalized direction, on a sphere.

    \[w \leftarrow R\,N\bigl(w - \eta\,R\,N(u)\bigr), \qquad N(x) = x/|x|.\]

    The step is not projected to the tangent space: its radial part makes the
    rotation larger or smaller. Groups with a zero direction or zero weights
    stay.

    Inside `shard_map` each `axis_name` must name all mesh axes that its
    parameter is sharded over, also those across groups, unless
    `per_tensor=False`: otherwise every device has its own ball.

    Args:
        learning_rate: a number or a schedule, about the angle per step.
        direction: a transform without a learning rate, such as
            `optax.scale_by_adam()`. An optimizer, such as `optax.adam(0.1)`,
            would ascend, and `init` warns.
        groups: scale groups in any form.
        per_tensor: whether each parameter is one ball, as published, or each
            of its groups.
        equivariant: whether the direction sees gradients in direction space,
            \(r\,g\), and directions as params. Otherwise it sees g and w, as
            published, and the effect of its epsilon grows with the weights.
        ordinary: an optimizer with its own learning rate for ordinary
            parameters, required where there are any: an angle does not suit
            them. `optax.set_to_zero()` freezes them.
        radius: see `psi`.

    Returns:
        A transform that needs params; a `PsiState` if equivariant.

    Raises:
        TypeError: a hyperparameter is of another type; the direction is not a
            gradient transformation.
        ValueError: a hyperparameter is out of its range; in `init`, ordinary
            parameters without `ordinary`; see `psi`.

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
    balls = joint_groups(groups) if per_tensor else groups
    if equivariant:
        tx = on_spheres(
            optax.chain(direction),  # Its state is the first of a chain.
            balls,
            learning_rate=learning_rate,
            ordinary=ordinary,
            radius=radius,
            tangent=False,
            step_size=Normalized(),
        )
    else:
        tx = _as_published(learning_rate, direction, balls, radius)
        tx = with_ordinary(tx, ordinary, groups)
        tx = with_nesting_check("hyperball", tx, groups, CONFLICTS)
        tx = floating_transform(tx, groups)
    tx = warn_of_ascent(tx, direction, scaled=False)
    return require_ordinary(tx, ordinary, groups)


def _as_published(
    learning_rate: optax.ScalarOrSchedule,
    direction: optax.GradientTransformation,
    balls: Groups,
    radius: Radius,
) -> optax.GradientTransformationExtraArgs:
    """Return steps along a direction that sees gradients and weights."""
    return optax.chain(
        optax.chain(direction, normalize_by_group_norm(balls)),
        optax.scale_by_learning_rate(learning_rate),
        scale_by_group_norm(balls),
        retract(balls, radius=radius),
    )


def adamh(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    per_tensor: bool = True,
    equivariant: bool = True,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Run `hyperball` around Adam (AdamH).

    Args:
        learning_rate: a number or a schedule, about the angle per step.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        per_tensor: see `hyperball`.
        equivariant: see `hyperball`.
        ordinary: see `hyperball`.
        radius: see `psi`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `hyperball`.

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
    groups: Groups,
    *,
    momentum: jax.typing.ArrayLike = 0.95,
    weight_dimension_numbers: Any = None,
    per_tensor: bool = True,
    equivariant: bool = True,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Run `hyperball` around Muon's orthogonalized momentum (MuonH).

    Muon mixes the columns of a matrix. With `equivariant=False` it sees raw
    gradients: the run then depends on the relative norms of filters, even if
    each filter is a ball. Inside `shard_map` matrices must be whole, as Muon
    sees the shard of its device alone.

    Args:
        learning_rate: a number or a schedule, about the angle per step.
        groups: scale groups in any form. Grouped vectors follow Adam's
            direction.
        momentum: decay of the momentum, in [0, 1).
        weight_dimension_numbers: the axes of rows and of columns of each
            parameter's matrix, as in `optax.contrib.muon`. None makes the last
            axis the columns and all others the rows, which fits Flax's dense
            and convolution kernels, but not attention's.
        per_tensor: see `hyperball`.
        equivariant: see `hyperball`.
        ordinary: see `hyperball`.
        radius: see `psi`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `hyperball`.

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
    check_decay("momentum", momentum)
    direction = optax.partition(
        {
            "matrix": automatic_sharding(
                optax.contrib.scale_by_muon(
                    beta=momentum,
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
        ordinary=ordinary,
        radius=radius,
    )


def _dimension_numbers(given: Any) -> Any:
    """Return a function that gives the dimension numbers of matrices.

    All other leaves of its argument are masked.
    """
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
    """Return whether x is the dimension numbers of one matrix."""
    return isinstance(x, optax.contrib.MuonDimensionNumbers)


def _last_axis_for_columns(tree: Any) -> Any:
    """Return dimension numbers with the last axis as the columns."""
    return jax.tree.map(
        lambda x: optax.contrib.MuonDimensionNumbers(
            tuple(range(jnp.ndim(x) - 1)), jnp.ndim(x) - 1
        ),
        tree,
    )
