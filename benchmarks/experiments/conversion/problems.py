"""The networks, their data, and training that records groups."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks import training
from benchmarks.experiments import noisy_data
from benchmarks.experiments.language import text
from psi_optax.groups import make_plan
from psi_optax.models import linen
from psi_optax.models.architectures import (
    TransformerArchitecture,
    cifar_resnet,
)

LENGTH = 32
"""Characters in a piece of text."""


class Problem(NamedTuple):
    """A network on data, with its groups.

    Attributes:
        params: at initialization.
        groups: a tree like params.
        loss: of params and a batch.
        draw: returns batches, from their number and a seed.
        axes: of Muon's matrices.
    """

    params: Any
    groups: Any
    loss: Callable[..., jax.Array]
    draw: Callable[[int, int], np.ndarray]
    axes: Callable[[int], optax.contrib.MuonDimensionNumbers]

    @property
    def sizes(self) -> np.ndarray:
        """Number of weights in each group, in the order of `tree`."""
        plan = make_plan(self.groups, self.params)
        return np.concatenate(
            [
                np.full(np.prod(leaf.group_shape), plan.sizes[leaf.name])
                for leaf in plan.leaves
            ]
        )

    def tree(self, row: np.ndarray) -> Any:
        """Return a value of each group as a tree like params."""
        norms = psi_optax.group_norms(self.params, self.groups)
        leaves, structure = jax.tree.flatten(norms)
        parts = np.split(row, np.cumsum([x.size for x in leaves])[:-1])
        shaped = zip(parts, leaves, strict=True)
        return structure.unflatten([x.reshape(y.shape) for x, y in shaped])


class Record(NamedTuple):
    """Values of all groups at all steps: arrays of shape (steps, groups).

    Attributes:
        rotation: in radians.
        norm: before the step.
        gradient: norm in direction space.
        carry: the last params and state.
    """

    rotation: Any
    norm: Any
    gradient: Any
    carry: Any


def resnet(width: int = 8, batch_size: int = 64) -> Problem:
    """Return a ResNet-8 with batch normalization, on digits.

    Of the labels 30 % are wrong, so that gradients do not vanish.
    """
    data, _ = noisy_data.split("digits", 1000, 200, pool=1, noise=0.3)
    images, labels = map(jnp.asarray, (data.train_images, data.train_labels))
    model = linen.ResNet(cifar_resnet(8, width), 10)
    variables = _initialize(model, images[:1])
    of_images = training.make_loss(model)

    def loss(params, batch):
        return of_images(params, variables, images[batch], labels[batch])[0]

    def draw(steps, seed):
        shape = steps, batch_size
        return np.random.RandomState(seed).randint(len(labels), size=shape)

    def axes(dimensions):
        rows = tuple(range(dimensions - 1))
        return optax.contrib.MuonDimensionNumbers(rows, dimensions - 1)

    groups = training.kernel_groups(model, images)
    return Problem(variables["params"], groups.groups, loss, draw, axes)


def transformer(width: int = 32, batch_size: int = 16) -> Problem:
    """Return a Transformer whose queries and keys are normalized, on text."""
    tokens = text.load().train
    architecture = TransformerArchitecture(LENGTH, width, 2, 4)
    model = linen.Transformer(architecture, text.VOCABULARY)
    variables = _initialize(model, jnp.zeros((1, LENGTH), jnp.int32))

    def loss(params, batch):
        logits = model.apply({"params": params}, batch[:, :-1], train=True)
        return training.cross_entropy(logits, batch[:, 1:]).mean()

    def draw(steps, seed):
        shape, last = (steps, batch_size), len(tokens) - LENGTH
        starts = np.random.RandomState(seed).randint(last, size=shape)
        return text.windows(tokens, starts, LENGTH)

    params = variables["params"]
    groups = psi_optax.find_groups(loss, params, draw(1, 0)[0]).groups
    heads = optax.contrib.MuonDimensionNumbers(0, 2)  # one matrix a head
    return Problem(params, groups, loss, draw, lambda _: heads)


def _initialize(model: Any, example: jax.Array) -> Any:
    init = functools.partial(model.init, train=False)
    return jax.jit(init)(jax.random.key(0), example)


class Method(NamedTuple):
    """An optimizer whose learning rate is converted.

    Attributes:
        make: of a rate, and of the decay of groups.
        options: of `convert_learning_rate`.
        decayed: its name with weight decay.
    """

    make: Callable[..., optax.GradientTransformation]
    options: dict[str, Any]
    decayed: str


def make_methods(problem: Problem) -> dict[str, Method]:
    """Return SGD, Adam, Lion and Muon by name."""
    grouped, axes = _mask(problem), _muon_axes(problem)
    momentum = 0.9

    def sgd(rate, decay):
        decayed = optax.add_decayed_weights(decay, grouped)
        return optax.chain(decayed, optax.sgd(rate, momentum))

    def adam(rate, decay):
        return optax.adamw(rate, b2=0.99, weight_decay=decay, mask=grouped)

    def lion(rate, decay):
        return optax.lion(rate, weight_decay=decay, mask=grouped)

    def muon(rate, decay):
        return optax.contrib.muon(
            rate,
            weight_decay=decay,
            weight_decay_mask=grouped,
            muon_weight_dimension_numbers=axes,
        )

    options = {
        "sgd": {"momentum": momentum},
        "muon": {"weight_dimension_numbers": axes},
    }
    return {
        make.__name__: Method(
            make,
            {"optimizer": make.__name__, **options.get(make.__name__, {})},
            "adamw" if make is adam else make.__name__,
        )
        for make in (sgd, adam, lion, muon)
    }


def _mask(problem: Problem) -> Callable[[Any], Any]:
    """Return a function that marks groups in params, masked ones too."""
    return lambda params: jax.tree.map(
        lambda group, w: jax.tree.map(lambda _: group is not None, w),
        problem.groups,
        params,
        is_leaf=lambda x: x is None,
    )


def _muon_axes(problem: Problem) -> Callable[[Any], Any]:
    """Return a function that gives the dimension numbers of groups."""

    def matrix(group, w):
        # Within muon what its Adam updates is masked.
        masked = group is None or isinstance(w, optax.MaskedNode)
        return None if masked else problem.axes(w.ndim)

    return lambda params: jax.tree.map(
        matrix, problem.groups, params, is_leaf=lambda x: x is None
    )


def make_recorded(problem: Problem, build: Callable) -> Callable:
    """Compile `train(start, batches, *rates)`, by `build(*rates)`.

    It starts from params, or goes on from an earlier record.
    """
    groups = problem.groups

    def row(tree):
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])

    @jax.jit
    def begin(params, *rates):
        return params, build(*rates).init(params)

    @jax.jit
    def advance(carry, batches, *rates):
        optimizer = build(*rates)

        def step(carry, batch):
            w, state = carry
            gradients = jax.grad(problem.loss)(w, batch)
            updates, state = optimizer.update(gradients, state, w)
            new = optax.apply_updates(w, updates)
            norm = row(psi_optax.group_norms(w, groups))
            slope = row(psi_optax.group_norms(gradients, groups))
            angle = row(psi_optax.rotation(w, new, groups))
            return (new, state), (angle, norm, norm * slope)

        carry, seen = jax.lax.scan(step, carry, batches)
        return Record(*seen, carry)

    def train(start, batches, *rates):
        goes_on = isinstance(start, Record)
        carry = start.carry if goes_on else begin(start, *rates)
        return jax.device_get(advance(carry, batches, *rates))

    return train


NETWORKS = {"ResNet": resnet, "Transformer": transformer}
