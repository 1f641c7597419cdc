"""Settings of papers, by name."""

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS", "preset"]

# The learning rates of Table 3, and the momentum; PSI-SGD has none.
_RATES: dict[str, dict[str, float]] = {
    "sgd": {"rate": 0.1, "momentum": 0.9},
    "adam": {"rate": 0.001},
    "sgd_g": {"rate": 0.2, "momentum": 0.9},
    "psi_sgd": {"rate": 1.0, "momentum": 0.0},
    "psi_sgdm": {"rate": 0.1, "momentum": 0.9},
}

PRESETS: dict[str, dict[str, Any]] = {
    "cifar": {
        "data": "cifar-10",
        "model": "resnet20",
        "optimizer": "psi_sgd",
        "schedule": "cifar",
        "epochs": 200,
        "batch": 128,
        "augment": True,
    },
    "imagenet": {
        "data": "imagenet",
        "model": "resnet18",
        "optimizer": "psi_sgd",
        "schedule": "imagenet",
        "epochs": 100,
        "batch": 128,
        "augment": True,
        "crop": 224,
    },
}
"""Without the learning rates, which `preset` adds."""


def preset(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preset, with what was given in place of its own.

    Args:
        name: one of `PRESETS`.
        given: settings by name.

    Returns:
        Settings by name.

    Raises:
        ValueError: the paper has no learning rate for the optimizer, and none
            was given.

    Examples:
        >>> preset("cifar", {"optimizer": "psi_sgdm"})["rate"]
        0.1

    References:
        Yi, `Accelerating training of batch normalization: a manifold
        perspective <https://arxiv.org/abs/2101.02916>`_, UAI 2022, Section 5
        and Table 3 of its supplement.
    """
    settings = {**PRESETS[name], **given}
    optimizer = settings["optimizer"]
    if optimizer not in _RATES and "rate" not in given:
        raise ValueError(
            f"--preset {name}: its paper has no learning rate for {optimizer},"
            f" but for {', '.join(_RATES)}: say --rate."
        )
    return {**_RATES.get(optimizer, {}), **settings}
