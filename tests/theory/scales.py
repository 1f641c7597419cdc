"""Rescaling groups, and their norms and directions, in numpy alone.

Groups are given as `ids`: see `tests.theory.networks`. Everything takes params
as well as paths, which are params with a first axis for time.
"""

import jax
import numpy as np


def count_groups(ids):
    """How many groups the numbers name."""
    return 1 + max(int(x.max()) for x in jax.tree.leaves(ids))


def rescaled(tree, ids, factors):
    """T_a: every weight times the factor of its group, dtypes kept."""
    padded = np.append(factors, 1.0)  # The last, where -1 looks.
    return jax.tree.map(lambda x, i: x * padded[i].astype(x.dtype), tree, ids)


def powers_of_ten(ids, seed=0, span=2.0):
    """A factor of 10^U(-span, span) for every group."""
    random = np.random.RandomState(seed)
    return 10 ** random.uniform(-span, span, count_groups(ids))


def powers_of_two(ids, seed=0, span=20):
    """A factor of 2^k, |k| <= span, for every group; both ends occur."""
    random = np.random.RandomState(seed)
    exponents = random.randint(-span, span + 1, count_groups(ids))
    exponents[:2] = -span, span
    return np.ldexp(1.0, exponents)


def dot(a, b, ids):
    """One inner product a group; shape (steps, groups)."""
    (x, numbers), (y, _) = _matrix(a, ids), _matrix(b, ids)
    member = numbers[:, None] == np.arange(count_groups(ids))
    return (x * y) @ member.astype(np.float64)


def norms(tree, ids):
    """The norm of every group; shape (steps, groups)."""
    return np.sqrt(dot(tree, tree, ids))


def directions(tree, ids):
    """Weights over their norms, ordinary ones as they are; (steps, weights)."""
    weights, numbers = _matrix(tree, ids)
    padded = np.pad(norms(tree, ids), ((0, 0), (0, 1)), constant_values=1.0)
    return weights / padded[:, numbers]


def direction_error(one, other, ids):
    """The largest difference in a coordinate of the directions, ever."""
    return np.abs(directions(one, ids) - directions(other, ids)).max()


def norm_error(one, other, ids, factors):
    """The largest relative difference of norms from the factors, ever."""
    return np.abs(norms(other, ids) / norms(one, ids) / factors - 1).max()


def _matrix(tree, ids):
    """A tree as a float64 matrix (steps, weights), and ids as a vector."""
    numbers = jax.tree.leaves(ids)
    flat = [
        np.asarray(x, np.float64).reshape(-1, i.size)
        for x, i in zip(jax.tree.leaves(tree), numbers, strict=True)
    ]
    return np.concatenate(flat, 1), np.concatenate([i.ravel() for i in numbers])
