"""The register of networks, and the data that they share."""

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax import ScaleGroup
from psi_optax.groups import paths

Tree = Any


class Special(enum.Enum):
    """What is neither a scale group nor an ordinary parameter."""

    INERT = "the loss does not depend on it"
    PARTLY = "some of its slices have no scale, others do"


INERT, PARTLY = Special
Answer = ScaleGroup | Special


@dataclasses.dataclass(frozen=True)
class Net:
    """A small network whose scale groups are known.

    Attributes:
        name: its name in `NETS`.
        loss: `loss(params, *args)`, a scalar.
        params: the parameters, in the framework's own tree.
        args: what else the loss takes: statistics, inputs, labels.
        expected: the answer by normalized path. What is not listed is
            ordinary. Groups are the finest; axes of length one belong to them.
        alternatives: further answers, each complete and as right as
            `expected`, where joint groups overlap. `expected` is the one with
            the fewest leaves; of equally few, the leaves that come last.
    """

    name: str
    loss: Callable[..., jax.Array]
    params: Tree
    args: tuple[Any, ...]
    expected: Mapping[str, Answer]
    alternatives: tuple[Mapping[str, Answer], ...] = ()


NETS: dict[str, Callable[[], Net]] = {}


def net(
    name: str,
    expected: Mapping[str, Answer] | None = None,
    alternatives: tuple[Mapping[str, Answer], ...] = (),
) -> Callable:
    """Registers a function that returns loss, params and args.

    It is called in single precision, whatever the caller's is.
    """

    def register(build):
        if name in NETS:
            raise ValueError(f"two networks are called {name!r}")

        @functools.cache
        def make():
            with jax.enable_x64(False):
                return Net(name, *build(), expected or {}, alternatives)

        NETS[name] = make
        return build

    return register


def pair(
    first: str,
    second: str,
    axes: tuple[int, ...] = (0,),
    blocks: Mapping[int, int] | None = None,
) -> dict[str, ScaleGroup]:
    """Two leaves that are tied, with the same axes in both."""
    group = ScaleGroup(axes, blocks, tie=first)
    return {first: group, second: group}


def tied(**axes: tuple[int, ...]) -> dict[str, ScaleGroup]:
    """Leaves that are tied, by the axes of each."""
    name = next(iter(axes))
    return {path: ScaleGroup(own, tie=name) for path, own in axes.items()}


def normal(seed: int, *shape: int) -> jax.Array:
    """Normal numbers, the same ones every time."""
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), "f4")


def vectors(count: int = 12, width: int = 4) -> jax.Array:
    """Inputs of a perceptron."""
    return normal(100, count, width)


def images(count: int = 4, size: int = 5, channels: int = 3) -> jax.Array:
    """Inputs of a convolutional network, channels last."""
    return normal(101, count, size, size, channels)


def labels(count: int, classes: int = 3) -> jax.Array:
    """Each class in turn."""
    return jnp.arange(count) % classes


def tokens(count: int = 4, length: int = 4, vocabulary: int = 7) -> jax.Array:
    """Sentences in which every token occurs."""
    numbers = jnp.arange(count * length) * 5 + 3
    return (numbers % vocabulary).reshape(count, length)


def leaky(x: jax.Array) -> jax.Array:
    """A leaky ReLU that lets enough of small numbers pass for epsilons."""
    return jax.nn.leaky_relu(x, 0.3)


def cross_entropy(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """The mean over the examples (and over positions)."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logs, classes[..., None], -1).mean()


ZEROS = {"bias", "b", "offset", "mean"}
ONES = {"scale", "var", "g", "sigma", "negative_slope"}


def fill(shapes: Tree) -> Tree:
    """Initial values for a tree of shapes: the same whatever the framework.

    Gains and variances are one, biases, means and counts zero, all else is
    normal. Nothing is compiled for it.
    """

    def value(path, leaf):
        name = path.split("/")[-1]
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or name in ZEROS:
            drawn = np.zeros(leaf.shape)
        elif name in ONES:
            drawn = np.ones(leaf.shape)
        else:
            random = np.random.RandomState(sum(map(ord, path)))
            drawn = 0.7 * random.normal(size=leaf.shape)
        return jnp.asarray(np.asarray(drawn, leaf.dtype))

    return paths.map_with_path(value, shapes)
