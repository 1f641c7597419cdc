"""Predictions of `psi_optax.dynamics.equilibrium_*` for a run, by step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax import dynamics

__all__ = ["Law", "forecast", "trace"]

_Curves = tuple[np.ndarray, np.ndarray]  # norms and rotations, (steps, filters)


class Law(NamedTuple):
    """An optimizer with weight decay, "sgd" or "adamw"."""

    optimizer: str
    rate: float
    decay: float
    momentum: float = 0.9

    @property
    def rotation(self) -> float:
        """The angle per step in equilibrium, in radians."""
        return float(dynamics.equilibrium_rotation(**self._constants()))

    def norm(self, gradient: Any, size: int) -> np.ndarray:
        """Return norms in equilibrium, from gradients in direction space."""
        arguments = self._arguments(gradient, size)
        return np.asarray(dynamics.equilibrium_norm(**arguments))

    def transient(self, step: Any, start: Any, gradient: Any, size: int):
        """Return norms after some steps, as an array of JAX."""
        arguments = self._arguments(gradient, size)
        return dynamics.equilibrium_transient(step, start, **arguments)

    def turned(self, norm: Any, settled: Any) -> np.ndarray:
        """Return rotations where norms are not those of the equilibrium."""
        power = 2 if self.optimizer == "sgd" else 1
        return self.rotation * (settled / np.asarray(norm)) ** power

    def _constants(self) -> dict[str, Any]:
        return {
            "learning_rate": self.rate,
            "weight_decay": self.decay,
            "optimizer": self.optimizer,
            "momentum": self.momentum,
        }

    def _arguments(self, gradient: Any, size: int) -> dict[str, Any]:
        # Steps of SGD are as long as gradients, of AdamW as weights are many.
        if self.optimizer == "sgd":
            return {**self._constants(), "gradient_norm": jnp.asarray(gradient)}
        return {**self._constants(), "size": size}


def forecast(
    law: Law, start: np.ndarray, gradient: np.ndarray, size: int, steps: int
) -> _Curves:
    """Predict norms and rotations before every step, from gradients at the end.

    Args:
        law: the optimizer.
        start: norms of the filters at step 0.
        gradient: norms of their gradients in direction space, in equilibrium.
        size: number of weights of a filter.
        steps: number of steps.
    """
    r, c = jnp.asarray(start, jnp.float32), _positive(gradient)
    norm = jax.vmap(lambda step: law.transient(step, r, c, size))(
        jnp.arange(steps)
    )
    return np.asarray(norm), law.turned(norm, law.norm(c, size))


def trace(
    law: Law, start: np.ndarray, gradients: np.ndarray, size: int
) -> _Curves:
    """Predict the same from gradients at every step, `(steps, filters)`."""

    def step(norm, gradient):
        return law.transient(1, norm, gradient, size), norm

    r, c = jnp.asarray(start, jnp.float32), _positive(gradients)
    _, norm = jax.jit(lambda r, c: jax.lax.scan(step, r, c))(r, c)
    return np.asarray(norm), law.turned(norm, law.norm(c, size))


def _positive(gradient: np.ndarray) -> jax.Array:
    """Return gradient norms as the law takes them: positive."""
    return jnp.maximum(jnp.asarray(gradient, jnp.float32), 1e-12)
