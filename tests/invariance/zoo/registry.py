"""The register of networks, and the data that they share."""

import dataclasses
import enum
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax import ScaleGroup
from psi_optax._compat import enable_x64
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
    build: Callable = lambda function: function(),
    **options: Any,
) -> Callable:
    """Register a function of which `build` makes loss, params and args.

    They are made in single precision, whatever the caller's is.
    """

    def register(function):
        if name in NETS:
            raise ValueError(f"two networks are called {name!r}")

        @functools.cache
        def make():
            with enable_x64(False):
                loss, *arrays = build(function, **options)
                arrays = jax.tree.map(jnp.asarray, arrays)
                return Net(name, loss, *arrays, expected or {}, alternatives)

        NETS[name] = make
        return function

    return register


def pair(
    first: str,
    second: str,
    axes: tuple[int, ...] = (0,),
    blocks: Mapping[int, int] | None = None,
) -> dict[str, ScaleGroup]:
    """Return two leaves that are tied, with the same axes in both."""
    group = ScaleGroup(axes, blocks, tie=first)
    return {first: group, second: group}


def tied(
    by_path: Mapping[str, tuple[int, ...]] | None = None,
    **axes: tuple[int, ...],
) -> dict[str, ScaleGroup]:
    """Return leaves that are tied, by the axes of each."""
    axes = {**(by_path or {}), **axes}
    name = next(iter(axes))
    return {path: ScaleGroup(own, tie=name) for path, own in axes.items()}


def normal(seed: int, *shape: int) -> np.ndarray:
    """Draw normal numbers, the same ones every time."""
    return np.random.RandomState(seed).normal(size=shape).astype("f4")


def draw(**params: Any) -> dict[str, Any]:
    """Draw parameters of the shapes that are given; arrays stay."""
    seeds = itertools.count()
    return {
        name: normal(next(seeds), *x) if isinstance(x, tuple) else x
        for name, x in params.items()
    }


def inputs_of(inputs: Callable | tuple[int, ...]) -> Any:
    """Return what a function does, or `normal` of these arguments."""
    return inputs() if callable(inputs) else normal(*inputs)


def classified() -> tuple[Any, Any]:
    """Return vectors and their classes."""
    return vectors(), labels(12)


def sentences() -> tuple[Any, Any]:
    """Return tokens and those that follow."""
    x = tokens()
    return x, following(x)


def following(x: jax.Array) -> jax.Array:
    """Return the token that follows each."""
    return (x * 3 + 1) % 7


def with_params(loss: Callable, args: Callable = classified, **params: Any):
    """Return a loss, parameters that are drawn, and the other arguments."""
    return loss, draw(**params), args()


given = functools.partial(net, build=with_params)


def vectors(count: int = 12, width: int = 4) -> np.ndarray:
    """Return inputs of a perceptron."""
    return normal(100, count, width)


def images(count: int = 4, size: int = 5, channels: int = 3) -> np.ndarray:
    """Return inputs of a convolutional network, channels last."""
    return normal(101, count, size, size, channels)


def labels(count: int, classes: int = 3) -> jax.Array:
    """Return each class in turn."""
    return jnp.arange(count) % classes


def tokens(count: int = 4, length: int = 4, vocabulary: int = 7) -> jax.Array:
    """Return sentences in which every token occurs."""
    numbers = jnp.arange(count * length) * 5 + 3
    return (numbers % vocabulary).reshape(count, length)


def leaky(x: jax.Array) -> jax.Array:
    """Apply a ReLU that lets enough of small numbers pass for epsilons."""
    return jax.nn.leaky_relu(x, 0.3)


def cross_entropy(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Average over the examples (and over positions)."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logs, classes[..., None], -1).mean()


ZEROS = {"bias", "b", "offset", "mean"}
ONES = {"scale", "var", "g", "sigma", "negative_slope"}


def fill(shapes: Tree) -> Tree:
    """Return initial values of shapes, the same whatever the framework.

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
