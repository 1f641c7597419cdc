"""Entropy-SGD: the gradient of the local entropy, relative to norms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import (
    check_decay,
    check_nonnegative,
    check_period,
    check_positive,
)
from psi_optax.groups import Groups, Plan, Tree
from psi_optax.groups.paths import (
    is_placeholder,
    leaves_with_paths,
    map_with_path,
)
from psi_optax.transforms.contract import check_updates, stateful_transform
from psi_optax.transforms.floating import show_floats, upcast_half
from psi_optax.wrappers._random import as_key, draw_normal

_GradFn = Callable[[Tree, jax.typing.ArrayLike], Tree]

_MASKS = (
    "grad_fn got params with optax.MaskedNode: inside optax.masked,"
    " optax.partition, or psi with `ordinary`, local_entropy sees a part of"
    " them. Put it in front, where it sees all: chain(local_entropy(...),"
    " psi(...))."
)


class LocalEntropyState(NamedTuple):
    """State of `local_entropy`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
    """

    count: jax.typing.ArrayLike


class _Walk(NamedTuple):
    """The descent x - x' of the inner iteration, and its running mean.

    These differences can be smaller than the rounding of x.
    """

    descent: Tree
    mean: Tree


class _Langevin(NamedTuple):
    """The inner iteration of one leaf, whose groups have norms r."""

    gamma: jax.typing.ArrayLike
    rate: jax.typing.ArrayLike
    noise: jax.typing.ArrayLike
    average: jax.typing.ArrayLike

    def step(
        self, r: jax.Array, y: jax.Array, g: Any, drawn: jax.Array
    ) -> jax.Array:
        """Return x - x' after a step from y, with gradient g there."""
        if is_placeholder(g):
            return y
        gamma, rate, noise, _ = (jnp.asarray(c, y.dtype) for c in self)
        # A zero group does not move, whatever its gradient is.
        slope = jnp.where(r == 0, 0, r * (r * g.astype(y.dtype)))
        down = y + rate * (slope - gamma * y)
        return down - jnp.sqrt(rate) * noise * (r * drawn)

    def mix(self, mean: jax.Array, y: jax.Array) -> jax.Array:
        """Return the mean of x - x' after a step to y."""
        average = jnp.asarray(self.average, mean.dtype)
        return average * mean + (1 - average) * y

    def pull(self, r: jax.Array, mean: jax.Array, u: Any) -> Any:
        """Return the gradient of the local entropy, in the dtype of u."""
        if is_placeholder(u):
            return u
        pull = jnp.asarray(self.gamma, mean.dtype) * mean
        for _ in range(2):
            pull = geometry.safe_divide(pull, r)
        return pull.astype(u.dtype)


def local_entropy(
    groups: Groups,
    *,
    gamma: jax.typing.ArrayLike,
    steps: jax.typing.ArrayLike,
    rate: jax.typing.ArrayLike,
    noise: jax.typing.ArrayLike = 0.0,
    average: jax.typing.ArrayLike = 0.75,
    key: jax.typing.ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replace gradients by those of the local entropy, as Entropy-SGD does.

    From \(x' = \mu = x\), with r the norm of a group in x, and 1 for ordinary
    parameters, it repeats

    \[x' \leftarrow x' - \eta' \left(r^2 g(x') + \gamma (x' - x)\right) +
       \sqrt{\eta'}\,\epsilon\, r\, N, \qquad
       \mu \leftarrow \alpha \mu + (1 - \alpha) x'\]

    with standard normal N, and returns \(\gamma (x - \mu) / r^2\). This is the
    iteration in direction space: its result is of degree -1, as a gradient is.
    Put the optimizer behind it: `chain(local_entropy(...), psi(...))`; or put
    it inside `psi` without `ordinary`, where r is 1.

    `update` needs `grad_fn(params, i)`, the gradient of the loss at the i-th
    inner step; it is called for i from 1 to steps - 1. The updates are the
    gradient at x, of step 0. So a step costs `steps` gradients. Select a batch
    by i, or ignore it. Random numbers are drawn as in `perturb_weights`.

    Args:
        groups: scale groups in any form.
        gamma: \(\gamma\), positive: the strength of the pull to x.
        steps: the number of inner steps, at least 1.
        rate: \(\eta'\), the inner learning rate, positive.
        noise: \(\epsilon\), nonnegative: the thermal noise.
        average: \(\alpha\), the decay of the running mean, in [0, 1).
        key: a seed or a `jax.random.key`; None without noise.

    Returns:
        A transform that needs params and `grad_fn`, with a
        `LocalEntropyState`.

    Raises:
        TypeError: a hyperparameter or `grad_fn` is of another type.
        ValueError: a hyperparameter is out of its range; noise without a key;
            `grad_fn` or params are missing in `update`; groups do not fit
            params.

    Examples:
        >>> grad_fn = lambda x, i: 3.0 * x
        >>> tx = local_entropy(None, gamma=1.0, steps=100, rate=0.2)
        >>> x = jnp.array([4.0])
        >>> g, _ = tx.update(grad_fn(x, 0), tx.init(x), x, grad_fn=grad_fn)
        >>> print(g.round(4))  # gamma H / (H + gamma) x
        [3.]

    References:
        Chaudhari et al., [Entropy-SGD](https://arxiv.org/abs/1611.01838), ICLR
        2017, algorithm 1.
    """
    check_positive("gamma", gamma)
    check_period("steps", steps)
    check_positive("rate", rate)
    check_nonnegative("noise", noise)
    check_decay("average", average)
    _check_key(key, noise)
    key = None if key is None else as_key(key)
    inner = _Langevin(gamma, rate, noise, average)

    def update(
        plan: Plan,
        updates: Tree,
        state: LocalEntropyState,
        params: Tree,
        *,
        grad_fn: _GradFn | None = None,
    ) -> tuple[Tree, LocalEntropyState]:
        grad_fn = _checked(grad_fn)
        start, norms = upcast_half(params), _norms(plan, params)
        here = None if key is None else jax.random.fold_in(key, state.count)

        def step(i: jax.typing.ArrayLike, gradient: Tree, walk: _Walk) -> _Walk:
            drawn = _draw(here, i, start)
            descent = jax.tree.map(
                inner.step, norms, walk.descent, gradient, drawn
            )
            mean = jax.tree.map(inner.mix, walk.mean, descent)
            return _Walk(descent, mean)

        def next_step(i: jax.typing.ArrayLike, walk: _Walk) -> _Walk:
            position = jax.tree.map(jnp.subtract, start, walk.descent)
            return step(i, grad_fn(position, i), walk)

        zeros = jax.tree.map(jnp.zeros_like, start)
        walk = jax.lax.fori_loop(
            1, steps, next_step, step(0, updates, _Walk(zeros, zeros))
        )
        pull = jax.tree.map(inner.pull, norms, walk.mean, updates)
        count = jnp.asarray(optax.safe_increment(state.count))
        return pull, LocalEntropyState(count)

    shown = stateful_transform(
        groups,
        update,
        kind=LocalEntropyState,
        init=lambda *_: LocalEntropyState(jnp.zeros([], jnp.int32)),
    )

    def update_fn(
        updates: Tree, state: Any, params: Tree = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        grad_fn = extra_args.get("grad_fn")
        if callable(grad_fn) and params is not None:
            grad_fn = _gradient_of_floats(grad_fn, params)
        return shown.update(updates, state, params, grad_fn=grad_fn)

    return optax.GradientTransformationExtraArgs(shown.init, update_fn)


def _check_key(key: Any, noise: Any) -> None:
    if key is not None:
        return
    remedy = "Pass an integer, or jax.random.key(0)"
    if isinstance(noise, jax.core.Tracer):
        raise ValueError(
            f"key={key}: traced noise may need random numbers. {remedy}, or"
            ' static_args="noise" to optax.inject_hyperparams.'
        )
    if noise != 0:
        raise ValueError(f"key={key}: noise needs random numbers. {remedy}.")


def _checked(grad_fn: Any) -> _GradFn:
    if grad_fn is None:
        raise ValueError(
            "local_entropy needs gradients at other weights: pass"
            " grad_fn=lambda params, i: jax.grad(loss)(params, batches[i]) to"
            " `update`."
        )
    if not callable(grad_fn):
        raise TypeError(
            f"grad_fn is of type {type(grad_fn).__name__}: pass a function of"
            " params and the number of the inner step."
        )
    return grad_fn


def _gradient_of_floats(grad_fn: _GradFn, params: Tree) -> _GradFn:
    """Return a gradient of floating leaves; the others are those of params."""
    has_masks = any(
        isinstance(x.leaf, optax.MaskedNode) for x in leaves_with_paths(params)
    )

    def gradient(position: Tree, i: jax.typing.ArrayLike) -> Tree:
        found = {x.path: x.leaf for x in leaves_with_paths(position)}

        def leaf(path: str, w: Any) -> Any:
            x = found[path]
            return w if x is None else x.astype(jnp.result_type(w))

        at = map_with_path(leaf, params)
        try:
            updates = grad_fn(at, i)
        except Exception as error:
            if has_masks:
                error.add_note(_MASKS)
            raise
        check_updates(updates, params, what="gradients of grad_fn")
        return show_floats(updates, params)

    return gradient


def _norms(plan: Plan, params: Tree) -> Tree:
    """Return the norm of each group, to broadcast; 1 for ordinary leaves."""
    ones = jax.tree.map(lambda x: jnp.ones([], x.dtype), upcast_half(params))
    norms = geometry.norm(plan, plan.select(params))
    return plan.merge(ones, plan.broadcast(norms))


def _draw(key: jax.Array | None, i: jax.typing.ArrayLike, tree: Tree) -> Tree:
    """Return normal numbers of an inner step, or zeros without a key."""
    if key is None:
        return jax.tree.map(lambda x: jnp.zeros([], x.dtype), tree)
    return draw_normal(jax.random.fold_in(key, i), tree)
