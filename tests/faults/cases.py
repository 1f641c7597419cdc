"""One tree with leaves of every kind, and what befalls one group of it."""

import functools

import jax
import numpy as np
import optax

from psi_optax import ScaleGroup
from tests.registry import normal

# Columns; columns of a kernel, each tied to an element of a bias; blocks of
# columns; a group that is a whole leaf; columns in half precision; groups of
# one element; ordinary parameters.
GROUPS = {
    "columns": ScaleGroup(axes=0),
    "tied": {
        "kernel": ScaleGroup(axes=0, tie="tied"),
        "bias": ScaleGroup(axes=(), tie="tied"),
    },
    "blocks": ScaleGroup(axes=(0, 1), blocks={1: 2}),
    "vector": ScaleGroup(axes=0),
    "half": ScaleGroup(axes=0),
    "single": ScaleGroup(axes=0),
    "head": None,
}
SHAPES = {
    "columns": (6, 4),
    "tied": {"kernel": (5, 2), "bias": (2,)},
    "blocks": (3, 8),
    "vector": (5,),
    "half": (4, 3),
    "single": (1, 2),
    "head": (4, 2),
}

# The group of every weight by number, written down a second time, so that a
# wrong reduction of the package's cannot hide behind itself. Ordinary ones are
# each by themselves.
NUMBERS = {
    "columns": np.tile([0, 1, 2, 3], (6, 1)),
    "tied": {"kernel": np.tile([4, 5], (5, 1)), "bias": np.array([4, 5])},
    "blocks": np.tile([6, 6, 6, 6, 7, 7, 7, 7], (3, 1)),
    "vector": np.full(5, 8),
    "half": np.tile([9, 10, 11], (4, 1)),
    "single": np.array([[12, 13]]),
    "head": np.arange(14, 22).reshape(4, 2),
}
COLUMN, TIED, BLOCK, VECTOR, HALF, SINGLE, ORDINARY = 1, 5, 7, 8, 10, 12, 15


def joined(*names):
    """The same, with all groups of each of these items in one."""

    def join(i, name, x):
        return np.full_like(x, 100 + i) if name in names else x

    return {
        name: jax.tree.map(lambda x, i=i, name=name: join(i, name, x), item)
        for i, (name, item) in enumerate(NUMBERS.items())
    }


# All groups of a parameter are one. Or there are no groups, but leaves.
BY_PARAMETER = joined("columns", "tied", "blocks", "vector", "half", "single")
BY_LEAF = {
    **joined(*NUMBERS),
    "tied": {"kernel": np.full((5, 2), 98), "bias": np.full(2, 99)},
}

# Leaves that come with some model or other, of which nothing is struck.
INTEGERS = {
    "step": np.arange(3, dtype=np.int32),
    "table": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "count": np.array(7, np.int32),
    "flags": np.array([True, False]),
    "switch": np.array(True),
}
ODD = {
    "integers": INTEGERS,
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(2.0, np.float32),
    "complex": np.array([3 + 4j, 1j], np.complex64),
    "none": None,
    "masked": optax.MaskedNode(),
    "groups of nothing": np.zeros((0, 3), np.float32),
    "no groups": np.zeros((3, 0), np.float32),
    "one": np.array(-2.0, np.float32),
}
ODD_GROUPS = {
    **dict.fromkeys(ODD),
    "groups of nothing": ScaleGroup(axes=0),
    "no groups": ScaleGroup(axes=0),
    "one": ScaleGroup(axes=()),
}
# What `jax.grad(..., allow_int=True)` has for an integer; None, as Equinox has;
# zeros; and something, as of somebody who does not know that there is none.
FLOAT0 = jax.dtypes.float0
ODD_GRADIENTS = {
    **ODD,
    "integers": {
        "step": np.zeros(3, FLOAT0),
        "table": np.full((2, 3), 5, np.uint8),
        "count": None,
        "flags": np.zeros(2, FLOAT0),
        "switch": np.array(False),
    },
    "scalar": np.array(1.5, np.float32),
    "complex": np.array([0.5j, 1 - 2j], np.complex64),
    "one": np.array(1.5, np.float32),
}


@functools.cache
def draw(seed):
    """A tree of normal numbers: parameters or gradients."""
    tree = normal(seed, SHAPES)
    tree = jax.tree.map(lambda x: x.astype(np.float32), tree)
    return {**tree, "half": tree["half"].astype(np.float16)}


def flat(tree):
    """All that can be struck of a tree, in its order."""
    leaves = jax.tree.leaves([tree[name] for name in NUMBERS])
    return np.concatenate([np.ravel(x).astype(np.float32) for x in leaves])


def unit(group, numbers):
    """Where the weights are that share a group's fate, leaf by leaf."""
    fate = np.unique(flat(numbers)[flat(NUMBERS) == group])
    return jax.tree.map(lambda x: np.isin(x, fate), numbers)


def times(factor):
    """Multiplies what is in a unit."""

    def leaf(x, where):
        x = np.copy(x)
        if where.any():
            x[where] *= factor
        return x

    return lambda tree, where: jax.tree.map(leaf, tree, where)


def one_is(value, which=0):
    """Replaces the first element of a unit, or the last: of another leaf."""

    def change(tree, where):
        tree = jax.tree.map(np.copy, tree)
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(where), strict=True)
        places = [(x, at) for x, part in pairs for at in np.argwhere(part)]
        x, index = places[which]
        x[tuple(index)] = value
        return tree

    return change


def leave(tree, where):
    """Does nothing to a unit."""
    del where
    return tree
