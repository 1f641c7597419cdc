"""What the numbers of a run depend on."""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

from benchmarks.data import Dataset
from benchmarks.train import sources
from benchmarks.train.networks import NETWORKS
from benchmarks.train.optimizers import OPTIMIZERS
from benchmarks.train.presets import PRESETS, preset
from benchmarks.train.schedules import SCHEDULES

__all__ = ["Settings", "add_options", "check_data", "check_folder", "chosen"]

FILE = "settings.json"


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
        "--preset", choices=PRESETS, help="settings of the PSI paper"
    )
    for field in dataclasses.fields(Settings):
        name, about = field.name, _HELP.get(field.name, "")
        options: dict[str, Any] = {"default": argparse.SUPPRESS}
        if name == "augment":
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["choices"] = _CHOICES.get(name)
            kinds = {"crop": int}
            options["type"] = kinds.get(name, type(field.default))
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
    for name in ("epochs", "batch", "crop"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: it has to be 1 or more.")
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
    if batch % parts or batch > count:
        raise ValueError(
            f"--batch {batch}: it has to be a multiple of the {parts} devices"
            f" that it is divided among (--mesh), and no more than the {count}"
            f" images of {dataset.name}."
        )
    smallest = min(
        *dataset.train_images.shape[1:3], *dataset.test_images.shape[1:3]
    )
    if settings.crop is not None and settings.crop > smallest:
        raise ValueError(
            f"--crop {settings.crop}: the images of {dataset.name} are of"
            f" {smallest} pixels."
        )


def check_folder(settings: Settings, out: pathlib.Path, resume: bool) -> None:
    """Whether a run of these settings can be begun, or go on, in a folder.

    Args:
        settings: the settings.
        out: the output folder, which need not be there.
        resume: whether to go on from what is there.

    Raises:
        FileExistsError: there is a run, and it is not to be resumed.
        ValueError: there is a run of other settings.
    """
    if not (out / FILE).exists():
        return
    if not resume:
        raise FileExistsError(
            f"there is a run in {out}: go on with it by --resume, or choose"
            " another --out."
        )
    before = json.loads((out / FILE).read_text())
    # All schedules but the constant one depend on the end.
    free = {"epochs"} if settings.schedule == "constant" else set()
    changes = [
        f"{name}: {before.get(name)!r}, now {value!r}"
        for name, value in dataclasses.asdict(settings).items()
        if name not in free and before.get(name) != value
    ]
    if changes:
        raise ValueError(
            f"the run in {out} was begun with other settings"
            f" ({'; '.join(changes)}): resume it with its own."
        )
