"""Settings of a run, and the command line that they are read from."""

import difflib
import functools
import math
import pathlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Annotated, Any

import optax
import tyro

from benchmarks.train import sources
from benchmarks.train.layout import AXIS_TYPES
from benchmarks.train.optimizers import OPTIMIZERS
from psi_optax.models.architectures import cifar_resnet, imagenet_resnet, vgg
from psi_optax.models.linen import CNN, MLP, VGG, PreActResNet, ResNet, ViT

__all__ = ["NETWORKS", "SCHEDULES", "Mesh", "Options", "Settings", "parse"]


def _of_depths(name: str, network, architecture, *depths: int):
    """Return networks of these depths by name."""
    return {
        f"{name}{depth}": lambda n, depth=depth: network(architecture(depth), n)
        for depth in depths
    }


_CIFAR = 8, 20, 32, 44, 56, 110

# From the number of classes.
NETWORKS: dict[str, Callable[[int], Any]] = {
    "mlp": lambda n: MLP(num_classes=n),
    "cnn": lambda n: CNN(num_classes=n),
    "vit": lambda n: ViT(num_classes=n),
    **_of_depths("vgg", VGG, vgg, 11, 16),
    **_of_depths("resnet", ResNet, cifar_resnet, *_CIFAR),
    **_of_depths("resnet", ResNet, imagenet_resnet, 18, 34, 50),
    **_of_depths("preact_resnet", PreActResNet, cifar_resnet, *_CIFAR),
}


def _drops(factor: float, *shares: float):
    """Return a schedule that multiplies the rate after shares of the run."""
    return lambda rate, steps: optax.piecewise_constant_schedule(
        rate, {round(share * steps): factor for share in shares}
    )


# From the first learning rate and the number of steps.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, _: optax.constant_schedule(rate),
    "cosine": optax.cosine_decay_schedule,
    "steps": _drops(0.1, 1 / 2, 3 / 4),
    # Those of the PSI paper.
    "cifar": _drops(0.2, 0.3, 0.6, 0.8),
    "imagenet": _drops(0.2, 0.3, 0.6, 0.9),
}


def named(names: Collection[str]) -> tyro.constructors.PrimitiveConstructorSpec:
    """Return the type of an option that is one of these names."""

    def parse(texts: list[str]) -> str:
        if texts[0] in names:
            return texts[0]
        near = difflib.get_close_matches(texts[0], names, 1)
        hint = f" (is it {near[0]!r}?)" if near else ""
        raise ValueError(f"{texts[0]!r} is none of {', '.join(names)}{hint}")

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}",
        instance_from_str=parse,
        is_instance=lambda x: isinstance(x, str),
        str_from_instance=lambda name: [name],
    )


@dataclass(frozen=True)
class Settings:
    """Settings that the numbers of a run depend on."""

    data: Annotated[str, named(sources.NAMES)] = "digits"
    model: Annotated[str, named(NETWORKS)] = "cnn"
    optimizer: Annotated[str, named(OPTIMIZERS)] = "psi_sgd"
    rate: float = 0.1  # First learning rate.
    schedule: Annotated[str, named(SCHEDULES)] = "cosine"
    momentum: float = 0.9  # Of optimizers that have one.
    decay: float = 0.0  # Weight decay of kernels; see docs/training.md.
    epochs: int = 10
    batch: int = 128  # Number of images, on all devices together.
    augment: bool = False  # Shift and mirror images.
    crop: int | None = None  # Height and width of pieces of images, in pixels.
    seed: int = 0  # Of initial weights, order and augmentation.


# Yi, UAI 2022 (https://arxiv.org/abs/2101.02916), Section 5 and Table 3.
PRESETS = {
    "cifar": Settings("cifar-10", "resnet20", schedule="cifar", epochs=200),
    "imagenet": Settings(
        "imagenet", "resnet18", schedule="imagenet", epochs=100, crop=224
    ),
}
RATES = {"sgd": 0.1, "adam": 0.001, "sgd_g": 0.2, "psi_sgd": 1, "psi_sgdm": 0.1}


@dataclass(frozen=True)
class Mesh:
    """Mesh of devices; `layout` says what each axis divides."""

    data: int | None = None  # By default all devices that are left.
    fsdp: int = 1
    model: int = 1
    axes: Annotated[str, named(AXIS_TYPES)] = "auto"  # Type of the axes.


@dataclass(frozen=True)
class Options:
    """Train one network by one optimizer, on one device or many.

    python -m benchmarks.train --data fashion-mnist --model cnn

    python -m benchmarks.train --preset cifar --model resnet56

    Each epoch adds a line of JSON to metrics.jsonl in the output folder, and
    leaves a checkpoint. The same command with --resume continues a stopped run
    from the last one, to the same numbers.
    """

    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings()
    preset: Annotated[str | None, named(PRESETS)] = None  # Of the PSI paper.
    out: pathlib.Path = pathlib.Path("results/train")  # Output folder.
    resume: bool = False  # Continue from the last checkpoint.
    mesh: Mesh = Mesh()
    processes: int = 1  # Started here, unless --process is given.
    process: int | None = None  # Be this one of the processes, from 0.
    coordinator: str | None = None  # host:port of process 0, with --process.


def parse(argv: list[str]) -> Options:
    """Read the command line; raise a ValueError for values out of range."""
    about = {"prog": "python -m benchmarks.train", "args": argv}
    read = functools.partial(tyro.cli, Options, **about)
    options = read()
    if options.preset is not None:
        # Options that are given take the place of the preset's own.
        base = replace(PRESETS[options.preset], augment=True)
        optimizer = read(default=Options(base)).settings.optimizer
        momentum = 0.0 if optimizer == "psi_sgd" else base.momentum
        rate = float(RATES.get(optimizer, math.nan))
        base = replace(base, rate=rate, momentum=momentum)
        options = read(default=Options(base))
    _check(options)
    return options


_COUNT = (lambda x: x is None or x >= 1, "1 or more")

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rate": (lambda x: 0 < x < math.inf, "more than 0, and finite"),
    "momentum": (lambda x: 0 <= x < 1, "0 or more, and less than 1"),
    "decay": (lambda x: 0 <= x < math.inf, "0 or more, and finite"),
    **dict.fromkeys(("epochs", "batch", "crop", "processes"), _COUNT),
}


def _check(options: Options) -> None:
    given = vars(options) | vars(options.settings)
    if options.preset and math.isnan(given["rate"]):
        raise ValueError(
            f"--preset {options.preset}: its paper has no learning rate for"
            f" {given['optimizer']}, but for {', '.join(RATES)}: say --rate."
        )
    for name, (holds, words) in _RANGES.items():
        if not holds(given[name]):
            raise ValueError(f"--{name} {given[name]}: it has to be {words}.")
    index, last = options.process, options.processes - 1
    if (index is None) != (options.coordinator is None):
        raise ValueError("--process and --coordinator: say both, or none.")
    if index is not None and not 0 <= index <= last:
        raise ValueError(f"--process {index}: it has to be from 0 to {last}.")
