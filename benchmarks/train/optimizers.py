"""The optimizers that can be trained with, by name."""

from collections.abc import Callable
from typing import Any

import jax
import optax

import psi_optax

__all__ = ["OPTIMIZERS"]

Build = Callable[..., optax.GradientTransformation]


def _are_kernels(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _sgd(
    rate: Any, decay: Any, momentum: Any, **_: Any
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(decay, _are_kernels),
        optax.sgd(rate, momentum),
    )


def _adam(rate: Any, decay: Any, **_: Any) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(decay, _are_kernels), optax.adam(rate)
    )


def _adamw(rate: Any, decay: Any, **_: Any) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=decay, mask=_are_kernels)


def _sgdp(rate, decay, momentum, groups):
    return psi_optax.sgdp(rate, groups, momentum=momentum, weight_decay=decay)


def _adamp(rate, decay, groups, **_):
    return psi_optax.adamp(rate, groups, weight_decay=decay)


def _weight_rescaling(rate, decay, momentum, groups):
    return psi_optax.weight_rescaling(_sgd(rate, decay, momentum), groups)


def _psi_sgdm(rate, decay, momentum, groups):
    def are_ordinary_kernels(params):
        labels = psi_optax.group_labels(params, groups)
        return jax.tree.map(
            lambda x, label: x.ndim > 1 and label == "ordinary", params, labels
        )

    return optax.chain(
        optax.add_decayed_weights(decay, are_ordinary_kernels),
        psi_optax.psi_sgdm(rate, groups, momentum=momentum),
    )


def _with_momentum(recipe: Callable) -> Build:
    """A recipe that has a momentum; SGD has the ordinary parameters."""

    def build(rate, decay, momentum, groups):
        ordinary = _sgd(rate, decay, momentum)
        return recipe(rate, groups, momentum=momentum, ordinary=ordinary)

    return build


def _around_momentum(recipe: Callable) -> Build:
    """A recipe with a direction; SGD has the ordinary parameters."""

    def build(rate, decay, momentum, groups):
        ordinary = _sgd(rate, decay, momentum)
        return recipe(rate, optax.trace(momentum), groups, ordinary=ordinary)

    return build


def _adaptive(recipe: Callable) -> Build:
    """A recipe like Adam; AdamW has the ordinary parameters."""

    def build(rate, decay, groups, **_):
        return recipe(rate, groups, ordinary=_adamw(rate, decay))

    return build


OPTIMIZERS: dict[str, Build] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "sgdp": _sgdp,
    "adamp": _adamp,
    "weight_rescaling": _weight_rescaling,
    "sgd_g": _with_momentum(psi_optax.sgd_g),
    "psi_sgd": _with_momentum(psi_optax.psi_sgd),
    "psi_sgdm": _psi_sgdm,
    "rotational": _around_momentum(psi_optax.rotational),
    "hyperball": _around_momentum(psi_optax.hyperball),
    "adam_g": _adaptive(psi_optax.adam_g),
    "adamh": _adaptive(psi_optax.adamh),
    "muonh": _adaptive(psi_optax.muonh),
    "psi_adam": _adaptive(psi_optax.psi_adam),
}
"""Each from the keywords `rate`, `decay`, `momentum` and `groups`.

The decay is of kernels, and of those that have no groups where the method keeps
the norms of groups. Those like Adam have no use for the momentum.
"""
