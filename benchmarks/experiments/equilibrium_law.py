"""What `psi_optax.equilibrium_*` predict of a run, step by step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import psi_optax

__all__ = ["Law", "forecast", "traced"]


class Law(NamedTuple):
    """An optimizer with weight decay.

    Attributes:
        optimizer: "sgd" or "adamw".
        rate: its learning rate.
        decay: its weight decay.
        momentum: its momentum, or b1.
    """

    optimizer: str
    rate: float
    decay: float
    momentum: float = 0.9

    @property
    def rotation(self) -> float:
        """The angle a step in equilibrium, radians."""
        return float(
            psi_optax.dynamics.equilibrium_rotation(**self._arguments())
        )

    def norm(self, gradient: Any, size: int) -> np.ndarray:
        """Norms in equilibrium, from those of gradients in direction space."""
        return np.asarray(
            psi_optax.dynamics.equilibrium_norm(
                **self._arguments(gradient, size)
            )
        )

    def transient(self, step: Any, start: Any, gradient: Any, size: int):
        """Norms after some steps, as an array of JAX."""
        return psi_optax.dynamics.equilibrium_transient(
            step, start, **self._arguments(gradient, size)
        )

    def turned(self, norm: Any, settled: Any) -> Any:
        """The rotation where norms are not what they will settle at."""
        power = 2 if self.optimizer == "sgd" else 1
        quotient = np.asarray(settled) / np.asarray(norm)
        return self.rotation * quotient**power

    def _arguments(
        self, gradient: Any = None, size: int | None = None
    ) -> dict[str, Any]:
        known: dict[str, Any] = {
            "learning_rate": self.rate,
            "weight_decay": self.decay,
            "optimizer": self.optimizer,
            "momentum": self.momentum,
        }
        if size is None:
            return known
        # SGD's steps are as long as gradients, AdamW's as weights are many.
        if self.optimizer == "sgd":
            return {**known, "gradient_norm": jnp.asarray(gradient)}
        return {**known, "size": size}


def forecast(
    law: Law, start: np.ndarray, gradient: np.ndarray, size: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Norms and rotations, from one gradient norm for each filter.

    Args:
        law: the optimizer.
        start: the norms at first, of shape `(filters,)`.
        gradient: the norms of gradients in direction space, in equilibrium.
        size: how many weights a filter has.
        steps: how many.

    Returns:
        Both of shape `(steps, filters)`, before every step.
    """
    r, c = jnp.asarray(start, jnp.float32), _positive(gradient)
    norm = jax.vmap(lambda step: law.transient(step, r, c, size))(
        jnp.arange(steps)
    )
    return np.asarray(norm), law.turned(norm, law.norm(c, size))


def traced(
    law: Law, start: np.ndarray, gradients: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Norms and rotations, from the norm of the gradient at every step.

    Args:
        law: the optimizer.
        start: the norms at first, of shape `(filters,)`.
        gradients: in direction space, of shape `(steps, filters)`.
        size: how many weights a filter has.

    Returns:
        As `forecast`.
    """

    def step(norm, gradient):
        return law.transient(1, norm, gradient, size), norm

    r, c = jnp.asarray(start, jnp.float32), _positive(gradients)
    _, norm = jax.jit(lambda r, c: jax.lax.scan(step, r, c))(r, c)
    return np.asarray(norm), law.turned(norm, law.norm(c, size))


def _positive(gradient: np.ndarray) -> jax.Array:
    """Of a filter that saw no gradient, something that the law takes."""
    return jnp.maximum(jnp.asarray(gradient, jnp.float32), 1e-12)
