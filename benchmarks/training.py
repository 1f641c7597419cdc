"""Training and evaluation of a Linen model, for several seeds at once.

Seeds are a leading axis of everything: of the variables, of the batches and of
the results. On a CPU small networks are limited by the cost of starting each
operation, so that ten seeds together take hardly longer than three.
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
    """Draw the order in which each seed sees the examples.

    Each epoch is a new permutation, whose incomplete last batch is dropped.

    Returns:
        Indices of examples, int32, of shape `(seeds, steps, batch_size)`.

    Raises:
        ValueError: there are fewer examples than a batch needs.

    Examples:
        >>> make_batches(10, batch_size=3, epochs=2, seeds=range(5)).shape
        (5, 6, 3)
    """
    steps = num_examples // batch_size
    if not steps:
        raise ValueError(
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


def cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """Return the cross-entropy of each example, of shape `(n,)`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def make_loss(model: nn.Module) -> Callable:
    """Return the training loss of a Linen model of `psi_optax.models`.

    It is a function of `(params, variables, images, labels)` that returns the
    mean cross-entropy and the new statistics. It ignores the params among the
    variables.
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


def make_update(
    loss: Callable, optimizer: optax.GradientTransformation
) -> Callable:
    """Return a step of training, from a loss as `make_loss` returns it.

    It is a function of `(variables, state)`, images and labels that returns
    the next `(variables, state)` and the loss. It is not compiled.
    """

    def update(carry, images, labels):
        variables, state = carry
        params = variables["params"]
        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, variables, images, labels
        )
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return ({"params": params, **statistics}, state), value

    return update


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
    others = {
        group.tie
        for path, group in groups.items()
        if not path.endswith("/kernel")
    } - {None}
    return [
        path
        for path, group in groups.items()
        if path.endswith("/kernel") and group.tie not in others
    ]


def make_training(model: nn.Module, build: Build, groups: Any) -> Callable:
    """Return the training of a model by an optimizer, from one seed.

    The learning rate decays to zero along a cosine. It is a function
    `train(images, labels, variables, batches, rate, decay)` that returns the
    variables after training. It is not compiled.
    """

    def train(images, labels, variables, batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        optimizer = build(rate=schedule, decay=decay, groups=groups)
        step = make_step(model, optimizer, images, labels)
        carry = variables, optimizer.init(variables["params"])
        return jax.lax.scan(
            lambda carry, batch: (step(carry, batch), None), carry, batches
        )[0][0]

    return train


def make_train(model: nn.Module, build: Build, dataset: Dataset) -> Callable:
    """Compile the training of a model on the training part, for several seeds.

    Learning rate and weight decay are arguments of the compiled function, so
    that trying others does not compile it again. It is a function
    `train(variables, batches, rate, decay)` that returns the variables after
    training, and donates those that it is given.
    """
    groups = kernel_groups(model, dataset.train_images)
    train = make_training(model, build, groups)
    return for_seeds(train, dataset, donate_argnums=2)


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


def make_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images: jax.Array,
    labels: jax.Array,
) -> Callable[[Any, jax.Array], Any]:
    """Return a step of training, from all images and their labels.

    It is a function of `(variables, state)` and the indices of a batch that
    returns the next `(variables, state)`. It is not compiled.
    """
    update = make_update(make_loss(model), optimizer)

    def step(carry, batch):
        return update(carry, images[batch], labels[batch])[0]

    return step


def make_evaluate(model: nn.Module, dataset: Dataset) -> Callable:
    """Compile the evaluation of a model on the test part.

    It is a function `evaluate(variables)` that returns the accuracy and the
    mean cross-entropy with running statistics, of shape `(seeds,)`.
    """
    images = jnp.asarray(dataset.test_images)
    labels = jnp.asarray(dataset.test_labels)

    def evaluate(images, labels, variables):
        logits: Any = model.apply(variables, images, train=False)
        accuracy = (logits.argmax(-1) == labels).mean()
        return accuracy, cross_entropy(logits, labels).mean()

    compiled = jax.jit(jax.vmap(evaluate, in_axes=(None, None, 0)))
    return lambda variables: compiled(images, labels, variables)
