"""Train one network by one optimizer, on one device or several.

    python -m benchmarks.train --data digits --model cnn --epochs 10
    python -m benchmarks.train --data cifar-10 --model resnet20 --augment
    python -m benchmarks.train ... --resume  # and all that was said before

Each epoch adds a line of JSON to `metrics.jsonl` in the output folder, and then
leaves a checkpoint. A run that was stopped goes on from the last one, to the
same numbers: what an epoch draws depends on the seed and on its number alone.
Batches are divided among all devices, or as many as `--devices` says.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from benchmarks import data
from benchmarks.augmentation import crop_and_flip
from benchmarks.data import Dataset
from benchmarks.methods import METHODS
from benchmarks.training import kernel_groups
from psi_optax.models import architectures
from psi_optax.models.linen import CNN, MLP, VGG, ResNet

__all__ = ["MODELS", "SCHEDULES", "check", "main", "train"]

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": lambda classes: MLP(num_classes=classes),
    "cnn": lambda classes: CNN(num_classes=classes),
    **{
        f"vgg{depth}": lambda classes, depth=depth: VGG(
            architectures.vgg(depth), classes
        )
        for depth in (11, 16)
    },
    **{
        f"resnet{depth}": lambda classes, depth=depth: ResNet(
            architectures.cifar_resnet(depth), classes
        )
        for depth in (20, 32, 44, 56, 110)
    },
}
"""Networks by name, from the number of classes."""

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, _: optax.constant_schedule(rate),
    "cosine": optax.cosine_decay_schedule,
    "steps": lambda rate, steps: optax.piecewise_constant_schedule(
        rate, {steps // 2: 0.1, steps * 3 // 4: 0.1}
    ),
}
"""Learning rates by name, from the first one and the number of steps."""


class Training(NamedTuple):
    """All that a run carries from one epoch to the next."""

    variables: Any
    state: optax.OptState


def train(
    settings: dict[str, Any], dataset: Dataset, out: pathlib.Path
) -> None:
    """Trains, from the start or from the last checkpoint.

    Args:
        settings: what `main` parses, but for the folder.
        dataset: the data.
        out: the output folder, which is there.
    """
    devices = jax.devices()[: settings["devices"]]
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    divided = NamedSharding(mesh, PartitionSpec("data"))

    model = MODELS[settings["model"]](dataset.num_classes)
    optimizer = _optimizer(settings, model, dataset)
    step, evaluate = _step(model, optimizer), _evaluate(model)
    key = jax.random.key(settings["seed"])
    example = dataset.train_images[:1]
    training = _start(model, optimizer, key, example)
    training = jax.device_put(training, everywhere)

    (out / "settings.json").write_text(json.dumps(settings, indent=1))
    with ocp.CheckpointManager(
        (out / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=1),
    ) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done:
            like = ocp.args.StandardRestore(training)
            training = checkpoints.restore(done, args=like)
        lines = _lines(out)[:done]
        for epoch in range(done + 1, settings["epochs"] + 1):
            losses = []
            for batch in _batches(dataset, settings, epoch):
                batch = jax.device_put(batch, divided)
                training, loss = step(training, batch)
                losses.append(loss)
            loss = float(jnp.mean(jnp.stack(losses)))
            tests = evaluate(training.variables, dataset)
            lines.append({"epoch": epoch, "train_loss": loss, **tests})
            tqdm.write(json.dumps(lines[-1]))
            _write(out, lines)
            saved = ocp.args.StandardSave(training)
            checkpoints.save(epoch, args=saved)
            checkpoints.wait_until_finished()


def check(
    settings: dict[str, Any], dataset: Dataset, out: pathlib.Path, resume: bool
) -> None:
    """Whether there can be such a run, and in this folder; makes the folder.

    Args:
        settings: as in `train`.
        dataset: as in `train`.
        out: as in `train`.
        resume: whether to go on from what is there.

    Raises:
        FileExistsError: there is a run, and it is not to be resumed.
        ValueError: a run of other settings; a batch that cannot be divided
            among the devices, or is larger than the data.
    """
    batch, devices = settings["batch"], settings["devices"]
    if batch % devices or batch > len(dataset.train_labels):
        raise ValueError(
            f"a batch of {batch} images: it has to be a multiple of the"
            f" {devices} devices, and no more than the"
            f" {len(dataset.train_labels)} of {dataset.name}."
        )
    if not (out / "settings.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        return
    if not resume:
        raise FileExistsError(
            f"there is a run in {out}: go on with it by --resume, or choose"
            " another --out."
        )
    before = json.loads((out / "settings.json").read_text())
    free = ["devices"]
    if settings["schedule"] == "constant":  # All others depend on the end.
        free.append("epochs")
    other = {
        name: (before.get(name), value)
        for name, value in settings.items()
        if name not in free and before.get(name) != value
    }
    if other:
        changes = [f"{k}: {a!r}, now {b!r}" for k, (a, b) in other.items()]
        raise ValueError(
            f"the run in {out} was begun with other settings"
            f" ({'; '.join(changes)}): resume it with its own."
        )


def _optimizer(settings, model: nn.Module, dataset: Dataset):
    per_epoch = len(dataset.train_labels) // settings["batch"]
    schedule = SCHEDULES[settings["schedule"]](
        settings["rate"], per_epoch * settings["epochs"]
    )
    return METHODS[settings["optimizer"]].build(
        rate=schedule,
        decay=settings["decay"],
        groups=kernel_groups(model, dataset.train_images),
    )


def _start(model: nn.Module, optimizer, key: jax.Array, example) -> Training:
    @jax.jit
    def start(key):
        variables = model.init(key, example, train=False)
        return Training(variables, optimizer.init(variables["params"]))

    return start(key)


def _batches(dataset: Dataset, settings, epoch: int) -> Iterator[tuple]:
    """The batches of an epoch, an incomplete last one dropped."""
    random = np.random.default_rng([settings["seed"], epoch])
    size, count = settings["batch"], len(dataset.train_labels)
    order = random.permutation(count)[: count // size * size]
    about = f"epoch {epoch}"
    for batch in tqdm(order.reshape(-1, size), about, leave=False):
        images = dataset.train_images[batch]
        if settings["augment"]:
            images = crop_and_flip(images, random)
        yield images, dataset.train_labels[batch]


def _step(model: nn.Module, optimizer: optax.GradientTransformation):
    def loss(params, variables, images, labels):
        logits, statistics = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return _cross_entropy(logits, labels).mean(), statistics

    def step(training: Training, batch):
        (variables, state), (images, labels) = training, batch
        params = variables["params"]
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, variables, images, labels
        )
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return Training({"params": params, **statistics}, state), value

    return jax.jit(step, donate_argnums=0)


def _evaluate(model: nn.Module, size: int = 1000):
    @jax.jit
    def sums(variables, images, labels):
        logits: Any = model.apply(variables, images, train=False)
        right = jnp.sum(logits.argmax(-1) == labels)
        return right, jnp.sum(_cross_entropy(logits, labels))

    def evaluate(variables, dataset: Dataset) -> dict[str, float]:
        images, labels = dataset.test_images, dataset.test_labels
        found = [
            sums(variables, images[i : i + size], labels[i : i + size])
            for i in range(0, len(labels), size)
        ]
        right, loss = (sum(map(float, x)) for x in zip(*found, strict=True))
        return {
            "test_loss": loss / len(labels),
            "test_accuracy": right / len(labels),
        }

    return evaluate


def _cross_entropy(logits: Any, labels: Any) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _lines(out: pathlib.Path) -> list[dict[str, Any]]:
    path = out / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(out: pathlib.Path, lines: list[dict[str, Any]]) -> None:
    """All lines, at once or not at all."""
    part = out / "metrics.jsonl.part"
    part.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    part.replace(out / "metrics.jsonl")


def main(argv: list[str] | None = None) -> None:
    """Parses the settings and trains."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", choices=data.NAMES, default="digits")
    add("--model", choices=MODELS, default="cnn")
    add("--optimizer", choices=METHODS, default="psi_sgd")
    add("--rate", type=float, default=0.1, help="the first learning rate")
    add("--schedule", choices=SCHEDULES, default="cosine")
    add("--decay", type=float, default=0.0, help="where the optimizer has one")
    add("--epochs", type=int, default=10)
    add("--batch", type=int, default=128)
    add("--augment", action="store_true", help="shift and mirror images")
    add("--seed", type=int, default=0)
    add("--devices", type=int, default=jax.device_count())
    add("--out", type=pathlib.Path, default="results/train")
    add("--resume", action="store_true", help="go on from the last checkpoint")
    settings = vars(parser.parse_args(argv))
    out, resume = settings.pop("out"), settings.pop("resume")
    if not 0 < settings["devices"] <= jax.device_count():
        parser.error(f"--devices: there are {jax.device_count()}")
    try:
        dataset = data.load(settings["data"])
        check(settings, dataset, out, resume)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    train(settings, dataset, out)


if __name__ == "__main__":
    main()
