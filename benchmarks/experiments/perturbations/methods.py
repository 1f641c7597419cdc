"""Gradients at other weights, in front of an optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import psi_optax
from benchmarks.optimizers import MOMENTUM, OPTIMIZERS, Make
from psi_optax.transforms import relative_ascent
from psi_optax.wrappers import get_center, local_entropy, perturb_weights

INNER = {"steps": 5, "rate": 0.1, "noise": 1e-4, "average": 0.75}
"""Options of the inner iteration of Entropy-SGD."""


def _psi(rate, groups):
    """Make psi with momentum, for gradients that are not tangent."""
    return psi_optax.psi_direction(rate, optax.trace(MOMENTUM), groups)


OPTIMIZER_MAKERS: dict[str, Make] = {
    "sgd": OPTIMIZERS["sgd"].make,
    "psi": _psi,
}
"""The optimizers behind each method, by name."""

LABELS = {"sgd": "SGD", "psi": "psi"}
"""Their names in tables and figures."""

Wrap = Callable[..., optax.GradientTransformation]
"""Takes an optimizer, groups, a strength and a key."""


class Method(NamedTuple):
    """A perturbation of weights before the gradient.

    Attributes:
        label: its name in tables and figures.
        wrap: applies it to an optimizer.
        symbol: of its strength.
        strengths: values of it to try, ascending.
        longer: factor of the number of steps.
        relative: whether the perturbation of a group is relative to its norm.
        final: weights to evaluate, from the state and the params.
    """

    label: str
    wrap: Wrap
    symbol: str = ""
    strengths: tuple[float, ...] = (0.0,)
    longer: int = 1
    relative: bool = True
    final: Callable[[Any, Any], Any] = lambda _, params: params


def elementwise_ascent(
    rho: float | jax.Array, eta: float = 0.01
) -> optax.GradientTransformation:
    """Perturb weights as ASAM does, for `optax.contrib.sam`.

    As in the authors' code, kernels and scales of normalizations are perturbed
    relative to the size of each element plus eta, and biases absolutely.

    References:
        Kwon et al., [ASAM](https://arxiv.org/abs/2102.11600), ICML 2021,
        algorithm 1.
    """

    def size(path: Any, w: jax.Array) -> jax.Array:
        is_bias = path[-1].key == "bias"
        return jnp.ones_like(w) if is_bias else jnp.abs(w) + eta

    def update(updates: Any, params: Any) -> Any:
        sizes = jax.tree_util.tree_map_with_path(size, params)
        relative = jax.tree.map(jnp.multiply, sizes, updates)
        length = optax.tree.norm(relative) + 1e-16
        return jax.tree.map(
            lambda t, u: -(rho * t * u / length), sizes, relative
        )

    return optax.stateless(update)


def _plain(optimizer, groups, strength, key):
    del groups, strength, key
    return optimizer


def _sam(ascent: Callable[..., optax.GradientTransformation]) -> Wrap:
    def wrap(optimizer, groups, strength, key):
        del key
        return optax.contrib.sam(
            optimizer, ascent(strength, groups), opaque_mode=True
        )

    return wrap


def _absolute_ascent(rho, groups):
    del groups
    return optax.chain(optax.contrib.normalize(), optax.sgd(rho))


def _noise(optimizer, groups, strength, key):
    return perturb_weights(optimizer, strength, groups, key)


def _entropy(optimizer, groups, strength, key):
    average, steps = INNER["average"], INNER["steps"]
    weights = [(1 - average) * average ** (steps - k - 1) for k in range(steps)]
    mean = INNER["rate"] * sum((k + 1) * x for k, x in enumerate(weights))
    return optax.chain(
        local_entropy(groups, gamma=strength, key=key, **INNER),
        # To first order in the inner rate, this is the gradient.
        optax.scale(1 / (strength * mean)),
        optimizer,
    )


METHODS = {
    "none": Method("none", _plain),
    "longer": Method("none, twice the steps", _plain, longer=2),
    "sam": Method(
        "SAM",
        _sam(_absolute_ascent),
        "rho",
        (0.1, 0.3, 1.0, 3.0),
        relative=False,
    ),
    "asam": Method(
        "ASAM",
        _sam(lambda rho, _: elementwise_ascent(rho)),
        "rho",
        (0.3, 1.0, 3.0, 10.0),
        relative=False,
    ),
    "relative": Method(
        "relative SAM",
        _sam(relative_ascent),
        "rho",
        (0.03, 0.1, 0.3, 1.0),
    ),
    "noise": Method(
        "weight noise",
        _noise,
        "sigma",
        (0.1, 0.3, 0.6, 1.0),
        final=get_center,
    ),
    "entropy": Method(
        "Entropy-SGD",
        _entropy,
        "gamma",
        (0.1, 1.0, 3.0, 10.0),
    ),
}
"""The methods that are compared, by name."""
