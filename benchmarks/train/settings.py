"""Settings of a run, and the command line that they are read from."""

import functools
import math
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import optax
import tyro

from benchmarks.data import NAMES, Dataset, images, load
from benchmarks.harness.options import Count, Positive, at_least, one_of
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.train.layout import AXIS_TYPES
from psi_optax.models.architectures import cifar_resnet, imagenet_resnet, vgg
from psi_optax.models.linen import CNN, MLP, VGG, PreActResNet, ResNet, ViT


def _of_depths(name: str, network, architecture, *depths: int):
    """Return networks of these depths by name."""
    return {
        f"{name}{depth}": lambda n, depth=depth: network(architecture(depth), n)
        for depth in depths
    }


DATA: dict[str, Callable[[], Dataset]] = {
    **{name: functools.partial(load, name) for name in NAMES},
    images.NAME: images.load,
}

Maybe = Annotated[int | None, at_least(1)]

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


# What devices average in each step: gradients of one batch; or weights, each
# with its two neighbours or with all.
AVERAGES = ("gradients", "ring", "all")


@dataclass(frozen=True)
class Settings:
    """Settings that the numbers of a run depend on."""

    data: Annotated[str, one_of(DATA)] = "digits"
    model: Annotated[str, one_of(NETWORKS)] = "cnn"
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = "psi_sgd"
    rate: Positive = 0.1  # First learning rate.
    schedule: Annotated[str, one_of(SCHEDULES)] = "cosine"
    momentum: float = 0.9  # Of optimizers that have one.
    decay: float = 0.0  # Weight decay of kernels; see docs/training.md.
    epochs: Count = 10
    batch: Count = 128  # Number of images, on all devices together.
    # Average over devices: of gradients, or of weights, of neighbours on a ring
    # or of all.
    averaging: Annotated[str, one_of(AVERAGES)] = "gradients"
    augment: bool = False  # Shift and mirror images.
    crop: Maybe = None  # Height and width of pieces of images, in pixels.
    # Of initial weights, order and augmentation.
    seed: Annotated[int, at_least(0)] = 0


# Yi, UAI 2022 (https://arxiv.org/abs/2101.02916), Section 5 and Table 3.
_PAPER = Settings(rate=math.nan, augment=True)  # The rates are below.
_SMALL = replace(_PAPER, data="cifar-10", model="resnet20", epochs=200)
_LARGE = replace(_PAPER, data="imagenet", model="resnet18", epochs=100)
PRESETS = {
    "cifar": replace(_SMALL, schedule="cifar"),
    "imagenet": replace(_LARGE, schedule="imagenet", crop=224),
}
_RATES: dict[str, dict[str, Any]] = {
    "sgd": {"rate": 0.1},
    "adam": {"rate": 0.001},
    "sgd_g": {"rate": 0.2},
    "psi_sgd": {"rate": 1.0, "momentum": 0.0},
    "psi_sgdm": {"rate": 0.1},
}


@dataclass(frozen=True)
class Mesh:
    """Mesh of devices; `layout` says what each axis divides."""

    data: Maybe = None  # By default all devices that are left.
    fsdp: Count = 1
    model: Count = 1
    axes: Annotated[str, one_of(AXIS_TYPES)] = "auto"  # Type of the axes.


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
    preset: Annotated[str | None, one_of(PRESETS)] = None  # Of the PSI paper.
    out: pathlib.Path = pathlib.Path("results/train")  # Output folder.
    resume: bool = False  # Continue from the last checkpoint.
    mesh: Mesh = Mesh()
    processes: Count = 1  # Started here, unless --process is given.
    # Be this one of the processes, from 0.
    process: Annotated[int | None, at_least(0)] = None
    coordinator: str | None = None  # host:port of process 0, with --process.


def parse(argv: list[str]) -> Options:
    """Read the command line; raise a ValueError for values out of range."""
    about = {"prog": "python -m benchmarks.train", "args": argv}
    read = functools.partial(tyro.cli, Options, **about)
    options = read()
    if options.preset is not None:
        # Options that are given take the place of the preset's own.
        preset = PRESETS[options.preset]
        optimizer = read(default=Options(preset)).settings.optimizer
        preset = replace(preset, **_RATES.get(optimizer, {}))
        options = read(default=Options(preset))
    _check(options)
    return options


def _check(options: Options) -> None:
    """Raise a ValueError for values out of range, or that go not together."""
    given = options.settings
    momentum, decay, name = given.momentum, given.decay, given.optimizer
    decays = OPTIMIZERS[name].decays
    address = options.coordinator
    index, last = options.process or 0, options.processes - 1
    alone = (options.process is None) != (options.coordinator is None)
    papers = f"has no rate for {name}, but for {', '.join(_RATES)}: say --rate"
    for message, wrong in {
        f"--momentum {momentum}: it has to be in [0, 1)": not 0 <= momentum < 1,
        f"--decay {decay}: it has to be in [0, inf)": not 0 <= decay < math.inf,
        f"--decay {decay}: {name} has no decay": decay and not decays,
        f"--seed {given.seed}: it has to be less than 2**32": given.seed
        >= 2**32,
        f"--preset {options.preset}: its paper {papers}": math.isnan(
            given.rate
        ),
        f"--process {index}: it has to be {last} at most": index > last,
        "--process and --coordinator: say both, or none": alone,
        f"--coordinator {address}: it has to be host:port": address
        and not address.rpartition(":")[2].isdecimal(),
    }.items():
        if wrong:
            raise ValueError(f"{message}.")
