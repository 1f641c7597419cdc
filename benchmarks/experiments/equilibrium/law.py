"""Predictions of `psi_optax.dynamics.equilibrium_*` for a run, by step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.optimizers import MOMENTUM
from psi_optax import dynamics

Curves = tuple[np.ndarray, np.ndarray]
"""Norms and rotations before every step, `(steps, filters)`."""


class Law(NamedTuple):
    """An optimizer, "sgd" or "adamw", with its learning rate and decay."""

    optimizer: str
    rate: float
    decay: float

    @property
    def rotation(self) -> float:
        """The angle per step in equilibrium, in radians."""
        return float(dynamics.equilibrium_rotation(**self._constants()))

    def norm(self, *step: Any) -> np.ndarray:
        """Return norms in equilibrium; see `_constants` for the arguments."""
        return np.asarray(dynamics.equilibrium_norm(**self._constants(*step)))

    def after(self, steps: Any, start: Any, *step: Any) -> Any:
        """Return norms after some steps, from those at the start."""
        constants = self._constants(*step)
        return dynamics.equilibrium_transient(steps, start, **constants)

    def curves(self, norm: Any, *step: Any) -> Curves:
        """Return norms, and the rotations at these norms."""
        norm, power = np.asarray(norm), 2 if self.optimizer == "sgd" else 1
        return norm, self.rotation * (self.norm(*step) / norm) ** power

    def _constants(self, gradient: Any = None, size: Any = None) -> Any:
        """Return the arguments of a law.

        The length of a step of SGD is set by the norm of its gradient in
        direction space, that of AdamW by the number of weights of a filter.
        """
        constants = {
            "learning_rate": self.rate,
            "weight_decay": self.decay,
            "optimizer": self.optimizer,
            "momentum": MOMENTUM,
        }
        is_sgd = self.optimizer == "sgd"
        step = {"gradient_norm": gradient} if is_sgd else {"size": size}
        return constants | {k: v for k, v in step.items() if v is not None}


def forecast(
    law: Law, start: np.ndarray, gradient: np.ndarray, size: int, steps: int
) -> Curves:
    """Predict from the norms at step 0, and the gradients in equilibrium."""
    r, c = _positive(start), _positive(gradient)
    norms = jax.vmap(lambda step: law.after(step, r, c, size))
    return law.curves(norms(jnp.arange(steps)), c, size)


def trace(
    law: Law, start: np.ndarray, gradients: np.ndarray, size: int
) -> Curves:
    """Predict from the norms at step 0, and the gradients at every step."""

    def step(norm, gradient):
        return law.after(1, norm, gradient, size), norm

    r, c = _positive(start), _positive(gradients)
    _, norm = jax.jit(lambda r, c: jax.lax.scan(step, r, c))(r, c)
    return law.curves(norm, c, size)


def _positive(norms: np.ndarray) -> jax.Array:
    """Return norms as the laws take them: of a gradient of 0 almost 0."""
    return jnp.maximum(jnp.asarray(norms, jnp.float32), 1e-12)
