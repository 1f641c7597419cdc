r"""Evolution of networks that SGD trains, on the spheres of scale groups.

The members of a population are the leading axis of all arrays. Each member is
trained by gradients. Of members with similar gradients only the one with the
lowest loss takes its step, so that the population stays diverse. A generation
ends with a crossover: children of the better half replace the worse half.

A child is a point of `landscape.geodesic` between its parents. The midpoint of
the line between two orthogonal directions has norm \(\sqrt{1/2}\), at which the
angular learning rate of SGD is twice as large.

References:
    Zhang, Hao, Gao, Wei and Tang, [Optimizing deep neural networks through
    neuroevolution with stochastic gradient
    descent](https://arxiv.org/abs/2012.11184), 2020, for the combination with
    gradients and for clusters of similar updates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import landscape, transforms

Crossover = Callable[[Any, Any, jax.Array], Any]
"""Returns a child of two parents at a number in [0, 1]."""


class Population(NamedTuple):
    """Members, along the leading axis of each array.

    Attributes:
        params: weights.
        state: states of the optimizer.
    """

    params: Any
    state: Any


def spherical_crossover(groups: Any) -> Crossover:
    """Return the crossover along great circles, in the dtypes of parents.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> ends = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> child = spherical_crossover(ScaleGroup(0))(*ends, jnp.array(0.5))
        >>> f"{jnp.linalg.norm(child):.4f}"
        '1.0000'
    """

    def cross(first: Any, second: Any, t: jax.Array) -> Any:
        child = landscape.geodesic(first, second, groups)(t)
        return jax.tree.map(lambda x, y: x.astype(y.dtype), child, first)

    return cross


def linear_crossover(first: Any, second: Any, t: jax.Array) -> Any:
    """Return the point at t of the line between two parents."""
    return jax.tree.map(
        lambda x, y: x + t.astype(x.dtype) * (y - x), first, second
    )


def clusters(vectors: jax.Array, threshold: float) -> jax.Array:
    """Return which members are in one cluster, by single linkage.

    Two members are linked where the cosine between them exceeds the threshold.

    Args:
        vectors: shape (members, n).
        threshold: a number above 1 links nothing.

    Returns:
        A boolean matrix of shape (members, members).

    Examples:
        >>> x = jnp.array([[1.0, 0.0], [0.7, 0.7], [0.0, 1.0], [-1.0, 0.0]])
        >>> clusters(x, 0.6).sum(1).tolist()
        [3, 3, 3, 1]
    """
    lengths = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / jnp.where(lengths > 0, lengths, 1)
    joined = (units @ units.T > threshold) | jnp.eye(len(units), dtype=bool)
    # A square of the matrix doubles the number of links that it follows.
    for _ in range((len(units) - 1).bit_length()):
        joined = (joined[:, :, None] & joined[None]).any(1)
    return joined


def select_leaders(
    vectors: jax.Array, losses: jax.Array, threshold: float
) -> jax.Array:
    """Return whether each member has the lowest loss of its cluster.

    Of members with equal losses the first one leads.

    Args:
        vectors: see `clusters`.
        losses: shape (members,).
        threshold: see `clusters`.
    """
    ranks = jnp.argsort(jnp.argsort(losses))
    joined = clusters(vectors, threshold)
    return jnp.where(joined, ranks[None], len(losses)).min(1) == ranks


def make_training_step(
    loss_fn: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    groups: Any,
    threshold: float,
) -> Callable[..., tuple[Population, jax.Array]]:
    """Return a step of all members. It is not compiled.

    It takes a population and the arguments of the loss after the params, and
    returns the next population and the losses. Gradients are compared in
    direction space, in which scale has no effect. The state of an optimizer
    changes with or without a step of the weights.

    Args:
        loss_fn: called as loss_fn(params, *args) for one member.
        optimizer: an optax transform.
        groups: scale groups in any form.
        threshold: see `clusters`.
    """
    scale = transforms.scale_by_group_norm(groups)

    def in_direction_space(gradient: Any, params: Any) -> jax.Array:
        scaled, _ = scale.update(gradient, scale.init(params), params)
        leaves = jax.tree.leaves(scaled)
        return jnp.concatenate([x.reshape(-1) for x in leaves])

    def step(population: Population, *args: Any) -> Any:
        params, state = population
        losses, gradients = jax.vmap(
            lambda w: jax.value_and_grad(loss_fn)(w, *args)
        )(params)
        vectors = jax.vmap(in_direction_space)(gradients, params)
        moves = select_leaders(vectors, losses, threshold)
        updates, state = jax.vmap(optimizer.update)(gradients, state, params)
        moved = jax.vmap(optax.apply_updates)(params, updates)
        params = jax.vmap(_choose)(moves, moved, params)
        return Population(params, state), losses

    return step


def breed(
    key: jax.Array,
    population: Population,
    losses: jax.Array,
    cross: Crossover,
) -> Population:
    """Replace the worse half by children of the better half.

    A child has the optimizer's state of its first parent.

    Args:
        key: PRNG key.
        population: members.
        losses: of the members, shape (members,).
        cross: makes a child.

    Raises:
        ValueError: there are fewer than 3 members.
    """
    size = len(losses)
    if size < 3:
        raise ValueError(
            f"a population of {size} has no two parents in its better half:"
            " use 3 members or more."
        )
    kept = jnp.argsort(losses)[: size - size // 2]
    of_parents, of_points = jax.random.split(key)
    # Each child has two different parents.
    keys = jax.random.split(of_parents, size // 2)
    parents = jax.vmap(lambda k: jax.random.choice(k, kept, (2,), False))(keys)
    t = jax.random.uniform(of_points, (size // 2,))

    def pick(tree: Any, members: jax.Array) -> Any:
        return jax.tree.map(lambda x: x[members], tree)

    params = population.params
    children = jax.vmap(cross)(
        pick(params, parents[:, 0]), pick(params, parents[:, 1]), t
    )
    members = jnp.concatenate([kept, parents[:, 0]])
    params = jax.tree.map(
        lambda x, y: jnp.concatenate([x, y]), pick(params, kept), children
    )
    return Population(params, pick(population.state, members))


def _choose(condition: jax.Array, first: Any, second: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), first, second)
