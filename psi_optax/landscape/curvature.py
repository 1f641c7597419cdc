"""Hessians of losses as products with steps, of one batch and of many."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax._validation import check_positive
from psi_optax.groups import Groups, Tree
from psi_optax.landscape._steps import loss_of_steps, separate
from psi_optax.landscape.space import TangentSpace


class Curvature(NamedTuple):
    """A Hessian as a function.

    Create it inside `jax.jit`: it cannot be an argument of a compiled function.

    Attributes:
        matvec: returns the product with a step: a symmetric linear map.
        space: the space of the steps.
        traced: whether matvec can be traced: False for a data set.
    """

    matvec: Callable[[Tree], Tree]
    space: TangentSpace
    traced: bool


def hessian(
    loss_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    groups: Groups = None,
    units: Tree | None = None,
) -> Curvature:
    r"""Return the Hessian of a loss in units that do not depend on scale.

    With \(r = |w|\), \(v = w/r\), the gradient g and the Hessian H of the loss,
    and with the diagonal S of the radii and the tangent projection P, it is the
    Riemannian Hessian

    \[P\,S\,H\,S\,P - \sum_i \langle v_i, r_i g_i\rangle\,P_i.\]

    The sum is zero for a scale-invariant loss. Eigenvalues are in loss per
    radian² for groups and in loss per weight² for ordinary parameters; without
    groups they are those of H.

    The map is linear if the loss is a function of params: use the training mode
    of BatchNorm, drop its new statistics, and fix the keys of dropout. Kinks of
    ReLU contribute no curvature. The epsilon of a normalization makes the loss
    depend on scale: `normalize` the params first, or report the epsilon with
    the result. `check_groups` finds groups that are too coarse.

    A product compiles at first use: at each call of `hessian`, or once for all
    calls if the loss is compiled by `jax.jit`.

    Args:
        loss_fn: called as loss_fn(params, *args); returns a floating scalar.
        params: arrays; or a model, as for `find_groups`.
        *args: the other arguments of the loss.
        groups: scale groups in any form.
        units: c, a tree like params, see `tangent_space`. With
            \(c = 1/(\sqrt{\hat\nu} + \epsilon)^{1/2}\) it is the Hessian that
            Adam preconditions.

    Returns:
        A `Curvature`.

    Raises:
        TypeError: a parameter is complex.
        ValueError: groups or units do not fit params; at a product, the loss
            is no floating scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> def loss_fn(w):
        ...     return w[0] ** 2 / (w @ w)
        >>> w = jnp.array([0.0, 4.0])
        >>> curvature = hessian(loss_fn, w, groups=ScaleGroup(0))
        >>> curvature.matvec(jnp.array([1.0, 0.0])).tolist()
        [2.0, 0.0]

    References:
        Absil, Mahony and Sepulchre, [Optimization algorithms on matrix
        manifolds](https://press.princeton.edu/absil), 2008, section 5.5.
    """
    loss = loss_of_steps(loss_fn, params, args, groups, units)
    return Curvature(loss.product, loss.space, traced=True)


def average_loss(
    loss_fn: Callable[..., Any], batches: Any
) -> Callable[[Any], jax.Array]:
    """Return the mean of a loss over batches, as a function of params.

    Batches pass through the network one by one, so BatchNorm normalizes by the
    statistics of each batch, and derivatives keep the activations of one
    batch. The mean runs in a loop on the device, where XLA for CPUs makes
    convolutions slow: see `dataset_hessian` for these.

    Args:
        loss_fn: called as loss_fn(params, *batch), or as loss_fn(params, batch)
            if a batch is neither a tuple nor a list.
        batches: a list of batches of equal shapes, or one batch whose arrays
            have a further first axis.

    Returns:
        A function of params that can be traced.

    Raises:
        ValueError: no batches, or batches of different shapes.

    Examples:
        >>> import jax.numpy as jnp
        >>> def loss_fn(w, x):
        ...     return w * x.mean()
        >>> loss = average_loss(loss_fn, [(jnp.ones(2),), (jnp.zeros(2),)])
        >>> loss(jnp.array(3.0)).tolist()
        1.5
    """
    stacked = _stack(batches)

    def loss(params: Any) -> jax.Array:
        of_weights, weights, arrays = separate(loss_fn, params, ())
        one = jax.checkpoint(of_weights)
        losses = jax.lax.map(
            lambda batch: one(weights, arrays, as_args(batch)), stacked
        )
        return jnp.mean(losses)

    return loss


def dataset_hessian(
    loss_fn: Callable[..., Any],
    params: Any,
    batches: Iterable[Any] | Callable[[], Iterable[Any]],
    *,
    groups: Groups = None,
    units: Tree | None = None,
    weights: Sequence[float] | None = None,
) -> Curvature:
    """Return the Hessian of the mean loss over an iterable of batches.

    Each product goes through all batches on the host, with one compiled product
    for each shape of a batch. `average_loss` is the alternative for data that
    fit into memory.

    With BatchNorm in training mode the loss depends on the size of batches:
    report the size with the result, and drop a last batch that is smaller.

    Args:
        loss_fn: see `average_loss`.
        params: see `hessian`.
        batches: an iterable that can be used repeatedly, or a function that
            returns an iterator; for a progress bar, `lambda: tqdm(loader)`.
        groups: scale groups in any form.
        units: see `tangent_space`.
        weights: one for each batch, in order; None for its number of examples,
            the length of the first axis of its first array.

    Returns:
        A `Curvature` that cannot be traced.

    Raises:
        TypeError: a parameter is complex.
        ValueError: groups or units do not fit params; batches are an iterator;
            at a product, no batches, fewer or more batches than weights, or the
            loss is no floating scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> def loss_fn(w, x):
        ...     return (w @ x) ** 2
        >>> batches = [(jnp.array([1.0, 0.0]),), (jnp.array([0.0, 2.0]),)]
        >>> curvature = dataset_hessian(loss_fn, jnp.ones(2), batches)
        >>> curvature.matvec(jnp.ones(2)).tolist()
        [1.0, 4.0]
    """
    loss = loss_of_steps(loss_fn, params, (), groups, units)
    one_pass = passes_over(batches)

    def matvec(u: Tree) -> Tree:
        total, mass = None, 0.0
        for batch, weight in _weighted(one_pass(), weights):
            part = loss.product(u, *as_args(batch))
            part = jax.tree.map(lambda x, w=weight: x * w, part)
            total = (
                part if total is None else jax.tree.map(jnp.add, total, part)
            )
            mass += weight
        return jax.tree.map(lambda x: x / mass, total)

    return Curvature(matvec, loss.space, traced=False)


def passes_over(
    batches: Iterable[Any] | Callable[[], Iterable[Any]],
) -> Callable[[], Iterator[Any]]:
    """Return a function that goes through all batches.

    Raises:
        ValueError: batches are an iterator, or there are none.
    """
    remedy = "pass a list, or a function that returns an iterator"
    if isinstance(batches, Iterator):
        raise ValueError(
            "batches are an iterator, which is used up after one product:"
            f" {remedy}."
        )

    def one_pass() -> Iterator[Any]:
        count = 0
        for batch in batches() if callable(batches) else batches:
            count += 1
            yield batch
        if not count:
            raise ValueError(f"batches are empty or used up: {remedy}.")

    return one_pass


def as_args(batch: Any) -> tuple[Any, ...]:
    """Return a batch as arguments of a loss after its params."""
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def count_examples(batch: Any) -> int:
    """Return the length of the first axis of the first array of a batch."""
    shapes = [np.shape(x) for x in jax.tree.leaves(batch)]
    return shapes[0][0] if shapes and shapes[0] else 1


def _weighted(
    batches: Iterator[Any], weights: Sequence[float] | None
) -> Iterator[tuple[Any, float]]:
    """Yield batches with their weights.

    Raises:
        ValueError: there are fewer or more batches than weights.
    """
    if weights is None:
        for batch in batches:
            yield batch, float(count_examples(batch))
        return
    count = 0
    for count, batch in enumerate(batches, 1):
        if count > len(weights):
            break
        check_positive("weights", weights[count - 1])
        yield batch, float(weights[count - 1])
    if count != len(weights):
        raise ValueError(
            f"weights has {len(weights)} entries, which is not the number of"
            " batches: pass one weight for each."
        )


def _stack(batches: Any) -> Any:
    """Return batches as one tree with a further first axis.

    Raises:
        ValueError: no batches, or batches of different shapes.
    """
    if isinstance(batches, list):
        shapes = {tuple(map(np.shape, jax.tree.leaves(x))) for x in batches}
        if len(shapes) != 1:
            raise ValueError(
                f"batches have the shapes {sorted(shapes)}: pass at least one"
                " batch, and all of equal shapes."
            )
        return jax.tree.map(lambda *x: jnp.stack(x), *batches)
    lengths = {np.shape(x)[:1] for x in jax.tree.leaves(batches)}
    if len(lengths) != 1 or not math.prod(min(lengths)) or lengths == {()}:
        raise ValueError(
            f"batches have first axes of lengths {sorted(lengths)}: pass arrays"
            " with a first axis of equal length, one entry for each batch."
        )
    return batches
