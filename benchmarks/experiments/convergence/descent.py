"""Full-batch gradient descent with a learning rate for each scale group."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import psi_optax
from benchmarks.experiments.convergence.problem import Problem, norms


class Path(NamedTuple):
    """Quantities before the first step and after each one.

    Attributes:
        points: parameters, of shape `(steps + 1, parameters)`.
        loss: of shape `(steps + 1,)`, like the following.
        direction: squared gradient by directions and ordinary parameters.
        euclidean: squared gradient by parameters.
        promised: half of the decrease of a linear loss, which bounds the
            decrease from below where curvature times rate is at most 1.
    """

    points: Any
    loss: Any
    direction: Any
    euclidean: Any
    promised: Any


def make_descent(problem: Problem, psi: bool, steps: int) -> Callable:
    """Compile descent, on the PSI manifold or off it.

    It takes a vector of parameters, and a rate for each group and the rest.
    """

    def descend(start, rates):
        rate = rates[problem.ids]
        tree = problem.unravel(rate)
        optimizer = optax.stateless(
            lambda u, _: jax.tree.map(lambda x, rate: -rate * x, u, tree)
        )
        if psi:
            optimizer = psi_optax.psi(optimizer, problem.groups)

        def look(x, loss, gradient):
            along = norms(x, problem.ids)[problem.ids] * gradient
            promised = jnp.sum(rate * (along if psi else gradient) ** 2) / 2
            squares = jnp.sum(along**2), jnp.sum(gradient**2)
            return Path(x, loss, *squares, promised)

        def step(carry, _):
            x, state = carry
            params = problem.unravel(x)
            loss, gradient = jax.value_and_grad(problem.loss)(x)
            gradients = problem.unravel(gradient)
            updates, state = optimizer.update(gradients, state, params)
            after, _ = ravel_pytree(optax.apply_updates(params, updates))
            return (after, state), look(x, loss, gradient)

        carry = start, optimizer.init(problem.unravel(start))
        return jax.lax.scan(step, carry, length=steps + 1)[1]

    compiled = jax.jit(descend)
    return lambda *given: jax.tree.map(np.asarray, compiled(*given))
