"""Training and evaluation of a Linen model, for several seeds at once.

What a loss and a step are is said here for the training program too
(`benchmarks.train`). Seeds are a leading axis of everything: of the variables,
of the batches and of what is measured. On a CPU small networks are limited by
the cost of starting each operation, so that ten seeds together take hardly
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

__all__ = [
    "Build",
    "cross_entropy",
    "initialize",
    "kernel_groups",
    "make_batches",
    "make_evaluate",
    "make_loss",
    "make_step",
    "make_train",
    "make_update",
]

Build = Callable[..., optax.GradientTransformation]
"""Makes an optimizer from the keywords `rate`, `decay` and `groups`."""


def initialize(model: nn.Module, images: np.ndarray, seeds: range) -> Any:
    """Initialize a model once for each seed.

    Args:
        model: a Linen model of `psi_optax.models`.
        images: an example of its input, of shape `(n, ...)`.
        seeds: one or more seeds.

    Returns:
        The model's variables, with an axis for the seeds in front.
    """
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    return _init(model, images[:1], keys)


@functools.partial(jax.jit, static_argnums=0)
def _init(model: nn.Module, example: jax.Array, keys: jax.Array) -> Any:
    return jax.vmap(lambda key: model.init(key, example, train=False))(keys)


def make_batches(
    num_examples: int, batch_size: int, epochs: int, seeds: range
) -> np.ndarray:
    """Draw the order in which each seed sees the examples.

    Args:
        num_examples: number of examples; each epoch is a new permutation, of
            which an incomplete last batch is dropped.
        batch_size: number of examples in a batch.
        epochs: number of epochs.
        seeds: one or more seeds.

    Returns:
        Indices of examples, int32, of shape `(seeds, steps, batch_size)`.

    Raises:
        ValueError: if there are fewer examples than a batch needs.

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
    """The cross-entropy of each example, of shape `(n,)`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def make_loss(model: nn.Module) -> Callable:
    """The loss of a model in training.

    Args:
        model: a Linen model of `psi_optax.models`.

    Returns:
        A function of `(params, variables, images, labels)` that returns the
        mean cross-entropy and the new statistics: the model's other variables,
        if it has any. The params among the variables are not looked at.
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
    """One step of training on one batch.

    Args:
        loss: what `make_loss` returns.
        optimizer: a whole optimizer.

    Returns:
        A function of `(variables, state)`, images and labels, which returns
        the next `(variables, state)` and the loss. Not compiled.
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
    """Find the kernels that a normalization follows.

    The scales and biases of normalizations have scale groups as well, where
    another one follows; they are left as ordinary parameters, and with them
    kernels that have groups in common with them, such as the last ones of the
    blocks of a `PreActResNet`.

    Args:
        model: a Linen model of `psi_optax.models`.
        images: arrays or shapes, of any number of images.

    Returns:
        The report of the analysis, on these kernels.
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
    """The paths of grouped kernels that are tied to kernels at most."""
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


def make_train(model: nn.Module, build: Build, dataset: Dataset) -> Callable:
    """Compile the training of a model by an optimizer.

    The loss is the cross-entropy, and the learning rate falls to zero along a
    cosine. Learning rate and weight decay are arguments of the compiled
    function, so that trying others does not compile it again.

    Args:
        model: a Linen model of `psi_optax.models`.
        build: makes the optimizer from a schedule of learning rates (`rate`),
            a weight decay (`decay`) and the model's scale groups (`groups`).
        dataset: the training part is used.

    Returns:
        A function `train(variables, batches, rate, decay)` that returns the
        variables after training. It takes variables and batches as
        `initialize` and `make_batches` return them, and donates the variables.
    """
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    groups = kernel_groups(model, images)

    def train(images, labels, variables, batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        optimizer = build(rate=schedule, decay=decay, groups=groups)

        step = make_step(model, optimizer, images, labels)
        carry = variables, optimizer.init(variables["params"])
        return jax.lax.scan(
            lambda carry, batch: (step(carry, batch), None), carry, batches
        )[0][0]

    # The data are arguments: as constants they would be compiled in.
    for_seeds = jax.vmap(train, in_axes=(None, None, 0, 0, None, None))
    compiled = jax.jit(for_seeds, donate_argnums=2)
    return lambda *arguments: compiled(images, labels, *arguments)


def make_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images: jax.Array,
    labels: jax.Array,
) -> Callable[[Any, jax.Array], Any]:
    """One step of training, on the cross-entropy of a batch.

    Args:
        model: a Linen model of `psi_optax.models`.
        optimizer: a whole optimizer.
        images: of all training examples.
        labels: of all training examples.

    Returns:
        A function of `(variables, state)` and the indices of a batch, which
        returns the next `(variables, state)`. For one seed, not compiled.
    """
    update = make_update(make_loss(model), optimizer)

    def step(carry, batch):
        return update(carry, images[batch], labels[batch])[0]

    return step


def make_evaluate(model: nn.Module, dataset: Dataset) -> Callable:
    """Compile the evaluation of a model.

    Args:
        model: a Linen model of `psi_optax.models`.
        dataset: the test part is used.

    Returns:
        A function `evaluate(variables)` that returns the share of images that
        are classified rightly and the mean cross-entropy, both with the
        running statistics of batch normalization, as arrays of shape
        `(seeds,)`.
    """
    images = jnp.asarray(dataset.test_images)
    labels = jnp.asarray(dataset.test_labels)

    def evaluate(images, labels, variables):
        logits: Any = model.apply(variables, images, train=False)
        accuracy = (logits.argmax(-1) == labels).mean()
        return accuracy, cross_entropy(logits, labels).mean()

    compiled = jax.jit(jax.vmap(evaluate, in_axes=(None, None, 0)))
    return lambda variables: compiled(images, labels, variables)
