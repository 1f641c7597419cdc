"""Other ways to write a tree down, and what that does to its vectors."""

import dataclasses

import jax
import numpy as np
from hypothesis import strategies as st

from psi_optax import ScaleGroup
from tests.properties.trees import Layout, containers, group_shape, plain


@st.composite
def repacked(draw, layout):
    """The same leaves in another order, other containers, by other names."""
    nested = draw(containers(range(len(layout.shapes))))
    return dataclasses.replace(layout, nested=nested)


def by_position(layout, other):
    """The other layout, with groups by the order of leaves in the two trees."""
    order = zip(
        jax.tree.leaves(other.nested),
        jax.tree.leaves(layout.nested),
        strict=True,
    )
    groups = [layout.groups[old] for _, old in sorted(order)]
    return dataclasses.replace(other, groups=tuple(groups))


def permute_channels(case, *, by_tie=True):
    """An index that permutes groups: every kept axis, and every axis's blocks.

    Args:
        case: the tree.
        by_tie: whether tied leaves are permuted together.
    """
    layout, random = case.layout, case.random()
    orders: dict = {}
    index = []
    for i, places in enumerate(layout.split(np.arange(layout.ids.size))):
        group = layout.groups[i]
        if group is not None:
            left = group_shape(places.shape, group)
            new = [random.permutation(n) for n in left]
            name = layout.names[i] if by_tie else i
            places = reorder(places, group, orders.setdefault(name, new))
        index.append(places.ravel())
    return np.concatenate(index)


def reorder(x, group, orders):
    """A leaf with the axes of its group shape in these orders."""
    axes, blocks = plain(x.shape, group)
    left = iter(orders)
    for axis, length in enumerate(x.shape):
        if axis in blocks:
            size = length // blocks[axis]
            order = next(left)[:, None] * size + np.arange(size)
            x = np.take(x, order.ravel(), axis)
        elif axis not in axes:
            x = np.take(x, next(left), axis)
    return x


def permute_within_groups(case):
    """An index that permutes the weights of each group."""
    index = np.arange(case.layout.ids.size)
    random = case.random()
    for members in groups(case.layout):
        index[members] = random.permutation(members)
    return index


def rotate_groups(case):
    """A matrix that turns, or reflects, each group by itself."""
    matrix = np.eye(case.layout.ids.size)
    random = case.random()
    for members in groups(case.layout):
        normal = random.normal(size=(members.size, members.size))
        matrix[np.ix_(members, members)] = np.linalg.qr(normal)[0]
    return matrix


def permute_across_groups(case):
    """An index that permutes the weights of each leaf, wherever they belong."""
    places = case.layout.split(np.arange(case.layout.ids.size))
    random = case.random()
    return np.concatenate([random.permutation(x.ravel()) for x in places])


def groups(layout):
    """Where the weights of each group are."""
    return [
        np.flatnonzero(layout.ids == i) for i in range(1 + layout.ids.max())
    ]


def columns(layout):
    """All that is tied as one matrix, of which the columns are the groups.

    Returns:
        The layout of these matrices, and of ordinary leaves as they are; and
        where in the old vector the new one has its weights from.
    """
    shapes, statements, index = [], [], []
    places = layout.split(np.arange(layout.ids.size))
    for name in dict.fromkeys(n for n in layout.names if n is not None):
        own = [i for i, n in enumerate(layout.names) if n == name]
        matrix = np.concatenate(
            [as_columns(places[i], layout.groups[i]) for i in own]
        )
        shapes.append(matrix.shape)
        statements.append(ScaleGroup(0))
        index.append(matrix.ravel())
    for i, group in enumerate(layout.groups):
        if group is None:
            shapes.append(layout.shapes[i])
            statements.append(None)
            index.append(places[i].ravel())
    nested = [*range(len(shapes))]
    new = Layout(nested, tuple(shapes), tuple(statements))
    return new, np.concatenate(index)


def as_columns(x, group):
    """A leaf as a matrix with a column for each group."""
    axes, blocks = plain(x.shape, group)
    shape, rows, kept = [], [], []
    for axis, length in enumerate(x.shape):
        if axis in blocks:
            kept.append(len(shape))
            shape.append(blocks[axis])
            length //= blocks[axis]
        (rows if axis in axes else kept).append(len(shape))
        shape.append(length)
    x = x.reshape(shape).transpose(rows + kept)
    return x.reshape(-1, max(1, np.prod([shape[i] for i in kept], dtype=int)))


def without(layout, field):
    """The layout with ties, or blocks, left out; no ties of other blocks."""
    change = {"tie": None} if field == "tie" else {"blocks": (), "tie": None}
    return dataclasses.replace(
        layout,
        groups=tuple(
            None if group is None else dataclasses.replace(group, **change)
            for group in layout.groups
        ),
    )
