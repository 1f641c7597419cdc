"""Full-batch descent on a smooth loss, with top eigenvalues along the way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.data import Dataset
from benchmarks.experiments.tanh_mlp import TanhMLP, column_groups, make_loss
from benchmarks.harness.files import InputError
from psi_optax.landscape import Curvature, Eigenpairs, eigenpairs

WARM, COLD = 4, 40
"""Products of a Lanczos iteration that goes on, and of one that starts."""

ROUNDING = 1e-6
"""Relative rise of a float32 loss, a sum of 1e3 terms, that is rounding."""


class Problem(NamedTuple):
    """A scale-invariant loss of all training images as one batch.

    Attributes:
        loss: function of params.
        params: the initial ones.
        groups: the columns of hidden kernels.
    """

    loss: Callable[[Any], jax.Array]
    params: Any
    groups: Any


class Lengths(NamedTuple):
    """Numbers of steps.

    Attributes:
        total: of the descent, a multiple of `check`.
        record: from one warm measurement to the next.
        check: from one cold measurement to the next, a multiple of `record`.
    """

    total: int
    record: int
    check: int


def make_problem(
    dataset: Dataset, widths: tuple[int, ...], seed: int
) -> Problem:
    """Return the training loss of a `TanhMLP` with batch normalizations."""
    model = TanhMLP(widths, dataset.num_classes, epsilon=0.0)
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    variables = model.init(jax.random.key(seed), images[:2], train=False)
    whole = make_loss(model)

    def loss(params):
        return whole(params, variables, images, labels)[0]

    params = variables["params"]
    return Problem(loss, params, column_groups(params))


def make_descent(
    problem: Problem,
    build: Callable[..., optax.GradientTransformation],
    curvatures: Callable[[Any, Any], dict[str, Curvature]],
    lengths: Lengths,
    look: Callable[[Any], dict[str, jax.Array]] = lambda _: {},
) -> Callable[..., dict[str, Any]]:
    """Compile a descent, a function of the hyperparameters.

    A warm measurement makes a few products from the eigenvector of the last
    one. A cold one, from a random vector, checks it.

    Args:
        problem: the loss and where to start.
        build: makes an optimizer from the hyperparameters.
        curvatures: Hessians of the loss, of params and the optimizer's state.
        lengths: numbers of steps.
        look: what else to record, of params.

    Returns:
        A function of hyperparameters. It returns "loss" before each step; of
        each record the top eigenvalues by the names of the curvatures, "warm",
        and "seen"; of each check "cold" and its "residual".

    Raises:
        InputError: a length is no multiple of the shorter one.
    """
    if lengths.total % lengths.check or lengths.check % lengths.record:
        raise InputError(
            f"{lengths.total} steps with checks every {lengths.check} and"
            f" records every {lengths.record}: make steps a multiple of check,"
            " and check one of record."
        )

    def descend(*hyperparameters):
        optimizer = build(*hyperparameters)
        loss_and_gradient = jax.value_and_grad(problem.loss)

        def step(carry, _):
            params, state = carry
            loss, gradient = loss_and_gradient(params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss

        def record(carry, _):
            carry, pairs = carry
            carry, losses = jax.lax.scan(step, carry, length=lengths.record)
            pairs = _top(curvatures(*carry), pairs, WARM)
            seen = losses, _values(pairs), look(carry[0])
            return (carry, pairs), seen

        def check(carry, _):
            records = lengths.check // lengths.record
            carry, seen = jax.lax.scan(record, carry, length=records)
            cold = _top(curvatures(*carry[0]), None, COLD)
            residuals = {name: x.residuals[0] for name, x in cold.items()}
            return carry, (*seen, _values(cold), residuals)

        first = problem.params, optimizer.init(problem.params)
        carry = first, _top(curvatures(*first), None, COLD)
        checks = lengths.total // lengths.check
        return jax.lax.scan(check, carry, length=checks)[1]

    compiled = jax.jit(descend)

    def run(*hyperparameters):
        losses, warm, seen, cold, residual = compiled(*hyperparameters)
        flat = {"loss": losses.ravel(), "warm": _joined(warm)}
        found = {**flat, "seen": _joined(seen)}
        found |= {"cold": cold, "residual": residual}
        return jax.tree.map(np.asarray, found)

    return run


def _top(
    curvatures: dict[str, Curvature],
    starts: dict[str, Eigenpairs] | None,
    products: int,
) -> dict[str, Eigenpairs]:
    """Return the top eigenpair of each Hessian."""
    return {
        name: eigenpairs(
            curvature,
            jax.random.key(0) if starts is None else starts[name],
            num_matvecs=min(products, curvature.space.size),
        )
        for name, curvature in curvatures.items()
    }


def _values(pairs: dict[str, Eigenpairs]) -> dict[str, jax.Array]:
    return {name: x.values[0] for name, x in pairs.items()}


def _joined(tree: Any) -> Any:
    """Join the records of all checks."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def warm_errors(warm: Any, cold: Any) -> np.ndarray:
    """Return relative errors of warm values where cold ones were measured.

    Examples:
        >>> warm_errors([1.0, 1.0, 1.0, 3.0], [1.0, 2.0])
        array([0. , 0.5])
    """
    warm, cold = np.array(warm, float), np.array(cold, float)
    every = len(warm) // len(cold)
    return np.abs(warm[every - 1 :: every] / cold - 1)


def rising_share(losses: np.ndarray) -> float:
    """Return the share of steps that raise the loss.

    Examples:
        >>> rising_share(np.array([3.0, 2.0, 2.5, 1.0, 1.0]))
        0.25
    """
    return float(np.mean(np.diff(losses) > ROUNDING * losses[:-1]))


def short(values: np.ndarray, digits: int = 6) -> Any:
    """Return a list of rounded numbers, None where not finite.

    Examples:
        >>> short(np.array([1 / 3, np.nan]))
        [0.333333, None]
    """
    if np.ndim(values):
        return [short(x, digits) for x in values]
    return float(f"{values:.{digits}g}") if np.isfinite(values) else None
