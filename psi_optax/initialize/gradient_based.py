"""Rescaled parameters, for the loss after the first step of an optimizer."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._text import summarize
from psi_optax._validation import (
    check_choice,
    check_flag,
    check_period,
    check_positive,
    check_transformation,
)
from psi_optax.groups import Leaves, Tree
from psi_optax.groups.path_rules import compile_pattern
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.reductions import accumulation_dtype, to_accumulator

# Arguments of a loss after params.
Args = tuple[Any, ...]
# Of Adam, for the loss and for the norm.
_States = tuple[Any, Any]


def gradient_initialization(
    loss_fn: Callable[..., Any],
    params: Tree,
    batches: Iterable[tuple[Args, Args]],
    optimizer: optax.GradientTransformation,
    *,
    max_gradient_norm: float | None = None,
    order: int = 2,
    steps: int = 200,
    rate: float = 1e-2,
    floor: float = 0.01,
    select: str | None = None,
    detach: bool = False,
) -> tuple[Tree, Leaves]:
    r"""Rescale parameters to lower the loss after the optimizer's first step.

    Each parameter gets a multiplier. With \(\alpha\theta\) for the rescaled
    parameters and \(u\) for the first updates of the optimizer there, on a
    batch S, Adam minimizes

    \[L_{\tilde S}\big(\alpha\theta + u(\nabla L_S(\alpha\theta))\big)\]

    over \(\alpha\), with another batch \(\tilde S\). Where the norm of the
    gradient exceeds a bound, Adam minimizes that norm instead. A trial costs a
    gradient of second order.

    With `psi` as the optimizer the multiplier of a scale group has no effect,
    neither on this objective nor in training: select ordinary parameters.

    Args:
        loss_fn: called as loss_fn(params, \*args); returns a scalar.
        params: floating arrays.
        batches: a pair of args for each trial, for S and its other batch. About
            half of the examples should be in both.
        optimizer: the one of training, such as `optax.sgd(0.1)`, or
            `optax.sign_sgd` in place of Adam.
        max_gradient_norm: the bound; None for none.
        order: of the norm: 2, or 1 for optimizers by signs.
        steps: the number of trials.
        rate: learning rate of Adam, for the multipliers.
        floor: the smallest multiplier, below 1.
        select: a regular expression that matches whole paths of the parameters
            that get a multiplier; None for all.
        detach: whether the gradient counts as constant, which saves the second
            derivative.

    Returns:
        A tree like params, and the multiplier of each parameter by path.

    Raises:
        TypeError: a parameter is not floating; another argument is no number,
            flag or transformation.
        ValueError: `select` selects nothing; too few batches; a derivative is
            not finite, as that of `optax.adam` at gradients of zero; a number
            that is not positive; a floor that is not below 1; another order.

    Examples:
        >>> def loss(params, x):
        ...     return jnp.mean((x * params["a"] * params["b"] - x) ** 2)
        >>> params = {"a": jnp.array(0.1), "b": jnp.array(0.2)}
        >>> pairs = [((jnp.ones(4),), (jnp.ones(4),))] * 50
        >>> better, multipliers = gradient_initialization(
        ...     loss, params, pairs, optax.sgd(0.1), steps=50, rate=0.1
        ... )
        >>> bool(loss(better, jnp.ones(4)) < loss(params, jnp.ones(4)))
        True
        >>> sorted(multipliers)
        ['a', 'b']

    References:
        Zhu et al., [GradInit: Learning to initialize neural networks for stable
        and efficient training](https://arxiv.org/abs/2102.08098), NeurIPS 2021,
        algorithm 1.
    """
    check_transformation(optimizer=optimizer)
    check_choice("order", order, (1, 2))
    check_period("steps", steps)
    check_flag(detach=detach)
    for name, value in (("rate", rate), ("floor", floor)):
        check_positive(name, value)
    if floor >= 1:
        raise ValueError(
            f"floor={floor}: multipliers begin at 1; pass less, such as 0.01."
        )
    if max_gradient_norm is not None:
        check_positive("max_gradient_norm", max_gradient_norm)
    multipliers = _ones(params, select)
    goals = _Goals(loss_fn, params, optimizer, order, detach=detach)
    run = jax.jit(_trial(goals, max_gradient_norm, rate, floor))
    tx = _descent(rate)
    states = tx.init(multipliers), tx.init(multipliers)
    for first, second in _pairs(batches, steps):
        found = run(multipliers, states, first, second)
        _check_finite(goals, multipliers, first, found.gradient)
        multipliers, states = found.multipliers, found.states
    return rescaled(params, multipliers), multipliers


def rescaled(params: Tree, multipliers: Leaves) -> Tree:
    """Return params times multipliers by path."""

    def rescale(path: str, x: jax.Array) -> jax.Array:
        if path not in multipliers:
            return x
        return (multipliers[path] * to_accumulator(x)).astype(x.dtype)

    return map_with_path(rescale, params)


def _ones(params: Tree, select: str | None) -> Leaves:
    """Return a multiplier of one for each selected parameter.

    Raises:
        TypeError: a parameter is not floating.
        ValueError: `select` is no pattern, or selects nothing.
    """
    leaves = [x for x in leaves_with_paths(params) if not x.is_placeholder]
    for path, x in leaves:
        if not jnp.issubdtype(getattr(x, "dtype", object), jnp.floating):
            raise TypeError(
                f"{path!r} of shape {np.shape(x)} is not a floating array: pass"
                " it among the args of the loss, not among params."
            )
    pattern = compile_pattern(".*" if select is None else select)
    chosen = [x for x in leaves if pattern.fullmatch(x.path)]
    if not chosen:
        names = summarize([repr(x.path) for x in leaves])
        raise ValueError(
            f"select={select!r} selects none of {names}: a pattern must match a"
            " whole path."
        )
    return {
        path: jnp.ones((), accumulation_dtype(x.dtype)) for path, x in chosen
    }


class _Goals(NamedTuple):
    """Functions of multipliers that a trial may minimize."""

    loss_fn: Callable[..., Any]
    params: Tree
    optimizer: optax.GradientTransformation
    order: int
    detach: bool

    def gradient(self, multipliers: Leaves, first: Args) -> tuple[Tree, Tree]:
        """Return the rescaled params, and the gradient there."""
        params = rescaled(self.params, multipliers)
        return params, jax.grad(self.loss_fn)(params, *first)

    def after_step(
        self, multipliers: Leaves, first: Args, second: Args
    ) -> jax.Array:
        """Return the loss after the first step of the optimizer."""
        params, gradient = self.gradient(multipliers, first)
        if self.detach:
            gradient = jax.lax.stop_gradient(gradient)
        updates = self.first_updates(gradient, params)
        return self.loss_fn(optax.apply_updates(params, updates), *second)

    def first_updates(self, gradient: Tree, params: Tree) -> Tree:
        """Return the first updates of the optimizer."""
        state = self.optimizer.init(params)
        return self.optimizer.update(gradient, state, params)[0]

    def gradient_norm(
        self, multipliers: Leaves, first: Args, _: Args
    ) -> jax.Array:
        """Return the norm of the gradient on the first batch."""
        _, gradient = self.gradient(multipliers, first)
        return optax.tree.norm(gradient, ord=self.order)


class _Trial(NamedTuple):
    """The result of a trial.

    Attributes:
        multipliers: the new ones.
        states: those of Adam, for the loss and for the norm.
        gradient: of the goal that was minimized.
    """

    multipliers: Leaves
    states: _States
    gradient: Leaves


def _descent(rate: float) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def _trial(
    goals: _Goals, bound: float | None, rate: float, floor: float
) -> Callable[..., _Trial]:
    """Return a function that takes a step of the multipliers."""
    tx = _descent(rate)

    def lower(goal: Callable[..., jax.Array], index: int) -> Any:
        """Return a function that moves along the gradient of one goal."""

        def step(multipliers: Leaves, states: _States, *args: Args) -> _Trial:
            gradient = jax.grad(goal)(multipliers, *args)
            updates, state = tx.update(gradient, states[index])
            moved = jax.tree.map(
                lambda x, u: jnp.maximum(x + u, floor), multipliers, updates
            )
            others = states[1 - index]
            both = (others, state) if index else (state, others)
            return _Trial(moved, both, gradient)

        return step

    lower_loss = lower(goals.after_step, 0)
    lower_norm = lower(goals.gradient_norm, 1)

    def trial(multipliers: Leaves, states: _States, *args: Args) -> _Trial:
        if bound is None:
            return lower_loss(multipliers, states, *args)
        is_long = goals.gradient_norm(multipliers, *args) > bound
        return jax.lax.cond(
            is_long, lower_norm, lower_loss, multipliers, states, *args
        )

    return trial


def _pairs(
    batches: Iterable[tuple[Args, Args]], steps: int
) -> Iterator[tuple[Args, Args]]:
    """Yield a pair of batches for each trial.

    Raises:
        ValueError: there are fewer, or one is not a pair of tuples.
    """
    given = iter(batches)
    for step in range(steps):
        pair = next(given, None)
        if pair is None:
            raise ValueError(
                f"batches ended after {step} of {steps} steps: pass more, or"
                f" steps={step}."
            )
        if len(pair) != 2 or not all(isinstance(x, tuple) for x in pair):
            raise ValueError(
                "a batch is a pair of tuples, each of the args of the loss"
                f" after params, and {step} is not."
            )
        yield pair


def _check_finite(
    goals: _Goals, multipliers: Leaves, first: Args, gradient: Leaves
) -> None:
    """Require a finite derivative by the multipliers.

    Raises:
        ValueError: there is none; whether by the optimizer is said.
    """
    failed = [path for path, d in gradient.items() if not np.isfinite(d)]
    if not failed:
        return
    params, g = goals.gradient(multipliers, first)
    if _is_finite(g) and not goals.detach:
        ones = jax.tree.map(jnp.ones_like, g)
        _, tangent = jax.jvp(
            lambda g: goals.first_updates(g, params), [g], [ones]
        )
        if not _is_finite(tangent):
            raise ValueError(
                "the first updates of the optimizer have no finite derivative"
                f" at the gradient of {summarize(list(map(repr, failed)))}."
                " optax.adam has none at gradients of zero: pass"
                " optax.sign_sgd, whose first updates are the same, or adam"
                " with eps_root=1e-8, or detach=True."
            )
    raise ValueError(
        "the objective has no finite derivative by the multipliers of"
        f" {summarize(list(map(repr, failed)))}: is the loss finite at params,"
        " and after a step of the optimizer?"
    )


def _is_finite(tree: Tree) -> bool:
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))
