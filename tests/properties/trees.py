"""Random trees: shapes, groups, blocks, ties and containers, with numbers.

What a test sees of a tree are vectors, of all weights one after another: a
symmetry is then an index, a matrix or a factor, and never knows of containers.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from psi_optax import ScaleGroup

# Few, as every new shape is compiled for; of these, and of the shapes of their
# groups, there are eight. The first is what hypothesis always begins with.
SHAPES = [(2, 4), (3,), (), (2, 2, 4)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A tree without its numbers.

    Attributes:
        nested: the containers, with the number of each leaf in its place.
        shapes: of the leaves.
        groups: of the leaves; None for ordinary ones.
    """

    nested: Any
    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[ScaleGroup | None, ...]

    @functools.cached_property
    def ends(self):
        """Where in a vector each leaf ends."""
        return np.cumsum([math.prod(shape) for shape in self.shapes])

    @property
    def statements(self):
        """The groups, in the form of a full tree."""
        return jax.tree.map(lambda i: self.groups[i], self.nested)

    def split(self, vector):
        """A numpy array a leaf."""
        parts = np.split(vector, self.ends[:-1])
        return [x.reshape(s) for x, s in zip(parts, self.shapes, strict=True)]

    def fill(self, vector):
        """The tree of a vector."""
        leaves = self.split(vector)
        return jax.tree.map(lambda i: jnp.asarray(leaves[i]), self.nested)

    def flat(self, tree):
        """The vector of a tree."""
        numbers = jax.tree.leaves(self.nested)
        leaves = dict(zip(numbers, jax.tree.leaves(tree), strict=True))
        return np.concatenate([np.ravel(leaves[i]) for i in sorted(leaves)])

    @functools.cached_property
    def names(self):
        """What leaves of joint groups have in common; None for ordinary."""
        return [
            None if group is None else group.tie or i
            for i, group in enumerate(self.groups)
        ]

    @functools.cached_property
    def ids(self):
        """The number of the group that each weight is in, -1 for ordinary."""
        first: dict[Any, int] = {}
        count = 0
        found = []
        for shape, group, name in zip(
            self.shapes, self.groups, self.names, strict=True
        ):
            if group is None:
                found.append(np.full(math.prod(shape), -1))
                continue
            numbers = number_groups(shape, group)
            if name not in first:
                first[name] = count
                count += 1 + numbers.max()
            found.append(first[name] + numbers.ravel())
        return np.concatenate(found)

    def dot(self, x, y):
        """One inner product a group, of vectors."""
        grouped = self.ids >= 0
        return np.bincount(self.ids[grouped], (x * y)[grouped])

    def norm(self, x):
        """One norm a group."""
        return np.sqrt(self.dot(x, x))

    def broadcast(self, scalars, ordinary):
        """One number a weight, from one a group."""
        return np.append(scalars, ordinary)[self.ids]


def plain(shape, group):
    """Non-negative axes, and how many blocks those of them have that do."""
    rank = len(shape)
    blocks = {axis % rank: count for axis, count in group.blocks}
    return {axis % rank for axis in group.axes}, blocks


def group_shape(shape, group):
    """What the axes of groups leave of a shape, with blocks."""
    axes, blocks = plain(shape, group)
    return tuple(
        blocks.get(axis, length)
        for axis, length in enumerate(shape)
        if axis not in axes or axis in blocks
    )


def number_groups(shape, group):
    """The groups of one leaf, numbered: an array of its shape."""
    axes, blocks = plain(shape, group)
    left = group_shape(shape, group)
    numbers = np.arange(math.prod(left)).reshape(left)
    for axis, length in enumerate(shape):
        if axis in blocks:
            numbers = np.repeat(numbers, length // blocks[axis], axis)
        elif axis in axes:
            numbers = np.expand_dims(numbers, axis)
    return np.broadcast_to(numbers, shape)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layout with weights and gradients, which a seed stands for.

    Attributes:
        layout: the tree.
        seed: of what is drawn further, by `random`.
        zeros: whether some groups have zero weights, and others gradients.
    """

    layout: Layout
    seed: int
    zeros: bool

    def random(self):
        return np.random.RandomState(self.seed)

    def numbers(self, which):
        """A vector, of size 0.5 to 2 everywhere and of any signs.

        Nothing is small by chance, so that errors can be told from rounding.
        """
        random = np.random.RandomState(self.seed + which)
        ids = self.layout.ids
        x = random.uniform(0.5, 2, ids.size) * random.choice([-1, 1], ids.size)
        kept = random.uniform(size=2 + ids.max()) > self.zeros / 4
        return x * self.layout.broadcast(kept[:-1], 1)

    @functools.cached_property
    def weights(self):
        return self.numbers(1)

    @functools.cached_property
    def gradients(self):
        """Two of them."""
        return self.numbers(2), self.numbers(3)


# -- strategies -------------------------------------------------------------


@st.composite
def scale_groups(draw, shape):
    """Any axes, written in any way, of which one may be cut into blocks."""
    rank = len(shape)
    # The first is the simplest, which hypothesis always begins with.
    some = [
        axes
        for count in (*range(1, rank + 1), 0)
        for axes in itertools.combinations(range(rank), count)
    ]
    axes = draw(st.permutations(draw(st.sampled_from(some))))
    axes = [axis - rank * draw(st.booleans()) for axis in axes]
    blocks = {}
    if axes and draw(st.integers(0, 2)) == 2:
        axis = draw(st.sampled_from(axes))
        length = shape[axis]
        divisors = [n for n in range(2, length + 1) if length % n == 0]
        blocks = {axis: draw(st.sampled_from(divisors))}
    return ScaleGroup(axes, blocks)


@st.composite
def leaves(draw, shapes):
    """A shape with its groups, and maybe a bias that can be tied."""
    shape = draw(st.sampled_from(shapes))
    if draw(st.integers(0, 4)) == 4:
        return [(shape, None)]
    group = draw(scale_groups(shape))
    found = [(shape, group)]
    if not draw(st.booleans()):
        found.append((group_shape(shape, group), ScaleGroup(())))
    return found


@st.composite
def layouts(draw, shapes=SHAPES):
    """One to three leaves and their biases, in containers of any kind."""
    found = draw(st.lists(leaves(shapes), min_size=1, max_size=3))
    shapes, groups = zip(*itertools.chain(*found), strict=True)
    if not any(groups):
        groups = (draw(scale_groups(shapes[0])), *groups[1:])
    tied = []
    for shape, group in zip(shapes, groups, strict=True):
        # One name for all of a group shape: what has one can be tied.
        if group is not None and draw(st.integers(0, 2)) < 2:
            name = "x".join(map(str, group_shape(shape, group)))
            group = dataclasses.replace(group, tie=f"tie {name}")
        tied.append(group)
    return Layout(draw(containers(range(len(tied)))), shapes, tuple(tied))


@st.composite
def containers(draw, numbers):
    """The numbers in some order, in dicts, lists and tuples, or alone."""
    numbers = draw(st.permutations(numbers))
    return draw(nested(numbers)) if draw(st.booleans()) else alone(numbers)


@st.composite
def nested(draw, numbers):
    """A container of numbers, the last of which may have one of their own."""
    count = draw(st.integers(1, len(numbers)))
    items = list(numbers[:count])
    if count < len(numbers):
        inner = draw(nested(numbers[count:]))
        items.insert(draw(st.integers(0, count)), inner)
    kind = draw(st.sampled_from([list, tuple, dict]))
    if kind is not dict:
        return kind(items)
    keys = draw(st.permutations([f"k{i}" for i in range(len(items))]))
    return dict(zip(keys, items, strict=True))


def alone(numbers):
    """One leaf without a container, or several in a plain one."""
    return numbers[0] if len(numbers) == 1 else numbers


ANY = layouts()


@st.composite
def cases(draw, drawn=ANY):
    """A tree with numbers in it."""
    return Case(draw(drawn), draw(st.integers(0, 2**16)), draw(st.booleans()))
