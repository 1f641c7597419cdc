"""Predictions of `psi_optax.dynamics.equilibrium_*` for a run, by step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.optimizers import MOMENTUM
from psi_optax import dynamics

_Curves = tuple[np.ndarray, np.ndarray]  # norms and rotations


class Law(NamedTuple):
    """An optimizer, "sgd" or "adamw", with its learning rate and decay."""

    optimizer: str
    rate: float
    decay: float

    @property
    def rotation(self) -> float:
        """The angle per step in equilibrium, in radians."""
        return float(dynamics.equilibrium_rotation(**self._constants()))

    def norm(self, gradient: Any, size: int) -> np.ndarray:
        """Return norms in equilibrium, from gradients in direction space."""
        options = self._constants() | self._step(gradient, size)
        return np.asarray(dynamics.equilibrium_norm(**options))

    def after(self, steps: Any, start: Any, gradient: Any, size: int):
        """Return norms after some steps, from those at the start."""
        options = self._constants() | self._step(gradient, size)
        return dynamics.equilibrium_transient(steps, start, **options)

    def curves(self, norm: Any, gradient: Any, size: int) -> _Curves:
        """Return norms, and the rotations at these norms."""
        norm, power = np.asarray(norm), 2 if self.optimizer == "sgd" else 1
        return norm, self.rotation * (self.norm(gradient, size) / norm) ** power

    def _constants(self) -> dict[str, Any]:
        return {
            "learning_rate": self.rate,
            "weight_decay": self.decay,
            "optimizer": self.optimizer,
            "momentum": MOMENTUM,
        }

    def _step(self, gradient: Any, size: int) -> dict[str, Any]:
        """Return the argument that sets the length of a step."""
        is_sgd = self.optimizer == "sgd"
        return {"gradient_norm": gradient} if is_sgd else {"size": size}


def forecast(
    law: Law, start: np.ndarray, gradient: np.ndarray, size: int, steps: int
) -> _Curves:
    """Predict norms and rotations before every step, `(steps, filters)`.

    From the norms at step 0, the norms of gradients in direction space in
    equilibrium, both `(filters,)`, and the number of weights of a filter.
    """
    r, c = _positive(start), _positive(gradient)
    norms = jax.vmap(lambda step: law.after(step, r, c, size))
    return law.curves(norms(jnp.arange(steps)), c, size)


def trace(
    law: Law, start: np.ndarray, gradients: np.ndarray, size: int
) -> _Curves:
    """Predict the same from the gradients at every step."""

    def step(norm, gradient):
        return law.after(1, norm, gradient, size), norm

    r, c = _positive(start), _positive(gradients)
    _, norm = jax.jit(lambda r, c: jax.lax.scan(step, r, c))(r, c)
    return law.curves(norm, c, size)


def _positive(norms: np.ndarray) -> jax.Array:
    """Return norms as the laws take them: of a gradient of 0 almost 0."""
    return jnp.maximum(jnp.asarray(norms, jnp.float32), 1e-12)
