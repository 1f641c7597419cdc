"""What the numbers of a run depend on."""

import argparse
import dataclasses
import math
from collections.abc import Callable
from typing import Any

from benchmarks.data import Dataset
from benchmarks.options import one_of
from benchmarks.train import sources
from benchmarks.train.networks import NETWORKS
from benchmarks.train.optimizers import OPTIMIZERS
from benchmarks.train.presets import PRESETS, preset
from benchmarks.train.schedules import SCHEDULES

__all__ = ["Settings", "add_options", "check_data", "chosen"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the numbers of a run depend on, up to rounding.

    Attributes:
        data: one of `sources.NAMES`.
        model: one of `networks.NETWORKS`.
        optimizer: one of `optimizers.OPTIMIZERS`.
        rate: the first learning rate.
        schedule: one of `schedules.SCHEDULES`.
        momentum: where the optimizer has one.
        decay: weight decay, see `optimizers.OPTIMIZERS`.
        epochs: how often each image is seen.
        batch: number of images in a batch, on all devices.
        augment: whether images are shifted and mirrored.
        crop: height and width of the pieces that are cut out of the images, in
            pixels; None: the images as they are.
        seed: of the initial weights and of all that is drawn.
    """

    data: str = "digits"
    model: str = "cnn"
    optimizer: str = "psi_sgd"
    rate: float = 0.1
    schedule: str = "cosine"
    momentum: float = 0.9
    decay: float = 0.0
    epochs: int = 10
    batch: int = 128
    augment: bool = False
    crop: int | None = None
    seed: int = 0


_CHOICES = {
    "data": sources.NAMES,
    "model": NETWORKS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}

_COUNT = (lambda x: x >= 1, "1 or more")

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rate": (lambda x: 0 < x < math.inf, "more than 0, and finite"),
    "momentum": (lambda x: 0 <= x < 1, "0 or more, and less than 1"),
    "decay": (lambda x: 0 <= x < math.inf, "0 or more, and finite"),
    "epochs": _COUNT,
    "batch": _COUNT,
    "crop": _COUNT,
}

_HELP = {
    "rate": "the first learning rate",
    "momentum": "where the optimizer has one",
    "decay": "of kernels; of those without groups, where norms are kept",
    "batch": "number of images, on all devices together",
    "augment": "shift and mirror images",
    "crop": "height and width of what is cut out of images, in pixels",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """An option for each setting, and one for presets."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        type=one_of(PRESETS),
        help="settings of the PSI paper",
    )
    for field in dataclasses.fields(Settings):
        name, about = field.name, _HELP.get(field.name, "")
        options: dict[str, Any] = {"default": argparse.SUPPRESS}
        if name == "augment":
            options["action"] = argparse.BooleanOptionalAction
        else:
            kinds = {"crop": int}
            options["type"] = kinds.get(name, type(field.default))
        if name in _CHOICES:
            options["choices"] = _CHOICES[name]
            options["type"] = one_of(_CHOICES[name])
        about += f" (default: {field.default})" if field.default else ""
        parser.add_argument(f"--{name}", help=about.strip(), **options)


def chosen(options: argparse.Namespace) -> Settings:
    """The settings that were asked for.

    Raises:
        ValueError: a number out of its range; see also `presets.preset`.
    """
    names = {field.name for field in dataclasses.fields(Settings)}
    given = {k: v for k, v in vars(options).items() if k in names}
    if options.preset:
        given = preset(options.preset, given)
    settings = Settings(**given)
    for name, (holds, words) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not holds(value):
            raise ValueError(f"--{name} {value}: it has to be {words}.")
    return settings


def check_data(settings: Settings, dataset: Dataset, parts: int) -> None:
    """Whether batches and pieces can be made of the data.

    Args:
        settings: the settings.
        dataset: the data.
        parts: among how many devices a batch is divided.

    Raises:
        ValueError: a batch that cannot be divided or is larger than the data;
            pieces larger than the images.
    """
    batch, count = settings.batch, len(dataset.train_labels)
    if batch % parts:
        raise ValueError(
            f"--batch {batch}: it has to be a multiple of the {parts} devices"
            " that it is divided among (--mesh)."
        )
    if batch > count:
        raise ValueError(
            f"--batch {batch}: it has to be no more than the {count} images of"
            f" {dataset.name}."
        )
    smallest = min(
        *dataset.train_images.shape[1:3], *dataset.test_images.shape[1:3]
    )
    if settings.crop is not None and settings.crop > smallest:
        raise ValueError(
            f"--crop {settings.crop}: the images of {dataset.name} are of"
            f" {smallest} pixels."
        )
