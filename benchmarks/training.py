"""Training and evaluation of a Linen model, for several seeds at once.

Seeds are the leading axis of variables, batches and results. On a CPU the cost
of starting operations limits small networks: ten seeds together take hardly
longer than three.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import psi_optax
from benchmarks.data import Dataset
from benchmarks.harness.files import InputError

Build = Callable[..., optax.GradientTransformation]
"""Makes an optimizer from the keywords `rate`, `decay` and `groups`."""


def initialize(model: nn.Module, images: np.ndarray, seeds: range) -> Any:
    """Initialize a Linen model of `psi_optax.models` once for each seed."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    return _init(model, images[:1], keys)


@functools.partial(jax.jit, static_argnums=0)
def _init(model: nn.Module, example: jax.Array, keys: jax.Array) -> Any:
    return jax.vmap(lambda key: model.init(key, example, train=False))(keys)


def make_batches(
    num_examples: int, batch_size: int, epochs: int, seeds: range
) -> np.ndarray:
    """Draw indices of examples, of shape `(seeds, steps, batch_size)`.

    Each epoch is a new permutation, whose incomplete last batch is dropped.
    """
    steps = num_examples // batch_size
    if not steps:
        raise InputError(
            f"a batch of {batch_size} needs as many examples, and there are "
            f"{num_examples}"
        )

    def order(random: np.random.RandomState) -> np.ndarray:
        epoch = random.permutation(num_examples)[: steps * batch_size]
        return epoch.reshape(steps, batch_size)

    randoms = [np.random.RandomState(seed) for seed in seeds]
    return np.stack(
        [np.concatenate([order(r) for _ in range(epochs)]) for r in randoms]
    ).astype(np.int32)


def begin(
    model: nn.Module,
    images: np.ndarray,
    seeds: range,
    batch_size: int,
    epochs: int,
) -> tuple[Any, np.ndarray]:
    """Return the initial variables and the batches of each seed."""
    batches = make_batches(len(images), batch_size, epochs, seeds)
    return initialize(model, images, seeds), batches


def cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """Return the cross-entropy of each example, of shape `(n,)`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def make_loss(model: nn.Module) -> Callable:
    """Return the training loss of a Linen model of `psi_optax.models`.

    `loss(params, variables, images, labels)` returns the mean cross-entropy and
    the new statistics. It ignores the params among the variables.
    """

    def loss(params, variables, images, labels):
        logits, statistics = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return cross_entropy(logits, labels).mean(), statistics

    return loss


def kernel_groups(model: nn.Module, images: Any) -> psi_optax.GroupReport:
    """Find the scale-invariant kernels of a Linen model of `psi_optax.models`.

    The scales and biases of normalizations have scale groups as well, where
    another one follows; they are left as ordinary parameters, and with them
    kernels that have groups in common with them, such as the last ones of the
    blocks of a `PreActResNet`. The images may be shapes.
    """
    image = jax.ShapeDtypeStruct((8, *images.shape[1:]), images.dtype)
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), image
    )
    loss, labels = make_loss(model), np.zeros(8, np.int32)
    report = psi_optax.find_groups(
        lambda params, rest, x: loss(params, rest, x, labels)[0],
        variables["params"],
        {name: x for name, x in variables.items() if name != "params"},
        image,
    )
    return report.select("|".join(map(re.escape, _kernels(report))))


def _kernels(report: psi_optax.GroupReport) -> list[str]:
    """Return the paths of grouped kernels that are tied to no other leaves."""
    groups = {p: f.group for p, f in report.findings.items() if f.group}
    kernels = {p: g for p, g in groups.items() if p.endswith("/kernel")}
    others = {groups[path].tie for path in groups.keys() - kernels} - {None}
    return [path for path, group in kernels.items() if group.tie not in others]


def make_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images: jax.Array,
    labels: jax.Array,
    look: Callable = lambda *_: None,
) -> Callable[[Any, jax.Array], Any]:
    """Return a step of training for `jax.lax.scan`. It is not compiled.

    It takes `(variables, state)` and the indices of a batch, and returns beside
    the next ones `look(before, after, gradients, loss)`, the first two params.
    """
    loss_and_gradients = jax.value_and_grad(make_loss(model), has_aux=True)

    def step(carry, batch):
        variables, state = carry
        before = variables["params"]
        (loss, statistics), gradients = loss_and_gradients(
            before, variables, images[batch], labels[batch]
        )
        updates, state = optimizer.update(gradients, state, before)
        after = optax.apply_updates(before, updates)
        seen = look(before, after, gradients, loss)
        return ({"params": after, **statistics}, state), seen

    return step


def make_training(
    model: nn.Module,
    build: Build,
    groups: Any,
    schedule: Callable = optax.cosine_decay_schedule,
    look: Callable = lambda *_: None,
) -> Callable:
    """Return the training of a model from one seed. It is not compiled.

    `train(images, labels, variables, batches, rate, decay)` returns the
    variables after training, and what `look` saw at each step.
    The schedule is made from the rate and the number of steps.
    """

    def train(images, labels, variables, batches, rate, decay):
        rates = schedule(rate, len(batches))
        optimizer = build(rate=rates, decay=decay, groups=groups)
        step = make_step(model, optimizer, images, labels, look)
        carry = variables, optimizer.init(variables["params"])
        (variables, _), seen = jax.lax.scan(step, carry, batches)
        return variables, seen

    return train


def make_train(model: nn.Module, build: Build, dataset: Dataset) -> Callable:
    """Compile the training of a model on the training part, for several seeds.

    `train(variables, batches, rate, decay)` returns the variables after
    training, and donates those that it is given. Another rate or decay does not
    compile it again.
    """
    groups = kernel_groups(model, dataset.train_images)
    training = make_training(model, build, groups)
    train = for_seeds(training, dataset, donate_argnums=2)
    return lambda *arguments: train(*arguments)[0]


def for_seeds(train: Callable, dataset: Dataset, **options: Any) -> Callable:
    """Compile `train(images, labels, variables, batches, rate, decay)`.

    Variables and batches get an axis for seeds; images and labels are those of
    the training part. Options are those of `jax.jit`.
    """
    # The data are arguments: as constants they would be compiled in.
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    mapped = jax.vmap(train, in_axes=(None, None, 0, 0, None, None))
    compiled = jax.jit(mapped, **options)
    return lambda *arguments: compiled(images, labels, *arguments)


def make_evaluate(model: nn.Module, dataset: Dataset) -> Callable:
    """Compile the evaluation of a model on the test part.

    `evaluate(variables)` returns the accuracy and the mean cross-entropy with
    running statistics, of shape `(seeds,)`.
    """
    images = jnp.asarray(dataset.test_images)
    labels = jnp.asarray(dataset.test_labels)

    def evaluate(images, labels, variables):
        logits: Any = model.apply(variables, images, train=False)
        accuracy = (logits.argmax(-1) == labels).mean()
        return accuracy, cross_entropy(logits, labels).mean()

    compiled = jax.jit(jax.vmap(evaluate, in_axes=(None, None, 0)))
    return lambda variables: compiled(images, labels, variables)
