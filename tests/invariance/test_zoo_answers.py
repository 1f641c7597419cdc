"""The answers of the zoo, by numbers and without the package's own search.

Inputs and weights are doubles; what a network rounds to less is looked up in
its program. Weights are moved away from where they began: zeros and ones hide
much. Three such points; what must not change does so at none of them, what must
change does so at one at least (a dead unit hides its weights).
"""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax.groups import paths
from tests.invariance.zoo import INERT, NETS, PARTLY

POINTS = 3
# An epsilon of 1e-5 or 1e-6 beside a variance of about one.
SAME = 1e-4
CHANGED = 1e-5
# A loss is off by as many roundings, half a precision each, as lie between it
# and the inputs: the deepest network here has eight layers that round.
ROUNDINGS = 8
FLOATS = {"bf16": jnp.bfloat16, "f16": "float16", "f32": "f4", "f64": "f8"}


def double(tree):
    return jax.tree.map(
        lambda x: (
            np.asarray(x, np.float64)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else np.asarray(x)
        ),
        tree,
    )


class Case:
    """A net at several points, and its loss there when leaves are scaled."""

    def __init__(self, name):
        self.net = NETS[name]()
        params, self.args = double((self.net.params, self.net.args))
        self.names = [
            e.path
            for e in paths.leaves_with_paths(params)
            if not e.is_placeholder
        ]
        leaves, self.structure = jax.tree.flatten(params)
        assert len(leaves) == len(self.names)
        random = np.random.RandomState(0)
        self.points = [
            {
                path: np.asarray(x) + 0.3 * random.normal(size=x.shape)
                for path, x in zip(self.names, leaves, strict=True)
            }
            for _ in range(POINTS)
        ]
        self.shapes = {path: x.shape for path, x in self.points[0].items()}
        traced = jax.jit(self.net.loss).trace(
            self.tree(self.points[0]), *self.args
        )
        self.compiled = traced.lower().compile()
        self.precision = coarsest(traced.jaxpr)
        # Such rounding hides all but powers of two, which take none.
        self.coarse = self.precision > SAME
        self.random = np.random.RandomState(1)
        self.base = [self.loss(point) for point in self.points]
        self.sizes = np.maximum(np.abs(self.base), 0.1)

    def tree(self, leaves):
        return jax.tree.unflatten(
            self.structure, [leaves[path] for path in self.names]
        )

    def loss(self, leaves):
        value = self.compiled(self.tree(leaves), *self.args)
        assert value.shape == ()
        return float(value)

    def factors(self, *shape):
        if self.coarse:
            return 2.0 ** self.random.randint(-1, 4, shape)
        return np.exp(self.random.uniform(-0.7, 1.2, shape))

    def changes(self, scales):
        """Return the relative changes of the loss at each point."""
        moved = [
            self.loss({p: x * scales.get(p, 1.0) for p, x in point.items()})
            for point in self.points
        ]
        return np.abs(np.subtract(moved, self.base)) / self.sizes

    def grouped(self, groups):
        """Return the changes when groups of some leaves get common factors."""
        count = {self.group_shape(p, g) for p, g in groups.items()}
        assert len(count) == 1, f"{groups}: group shapes {count}"
        factors = self.factors(*count.pop())
        return self.changes(
            {p: self.broadcast(p, g, factors) for p, g in groups.items()}
        )

    def group_shape(self, path, group):
        blocks, shape = dict(group.blocks), self.shapes[path]
        return tuple(
            blocks.get(axis, shape[axis])
            for axis in range(len(shape))
            if axis not in group.axes or axis in blocks
        )

    def broadcast(self, path, group, factors):
        """Return the factor of every weight's group."""
        shape, blocks = self.shapes[path], dict(group.blocks)
        index = [
            grid * blocks.get(axis, length) // length
            for axis, (grid, length) in enumerate(
                zip(np.indices(shape), shape, strict=True)
            )
            if axis not in group.axes or axis in blocks
        ]
        return np.broadcast_to(factors[tuple(index)], shape)


def coarsest(program):
    """Return the precision of the coarsest float that a program has."""
    names = set(re.findall(r"\b(b?f\d+)\[", str(program)))
    return max(float(jnp.finfo(FLOATS[name]).eps) for name in names)


def divisors(length):
    return [n for n in range(1, length + 1) if length % n == 0]


def finer(group, shape):
    """Yield the next finer statements: one axis less, or in more blocks."""
    blocks = dict(group.blocks)
    for axis in group.axes:
        now = blocks.get(axis, 1)
        for count in divisors(shape[axis]):
            if count == now or count % now:
                continue
            rest = {a: n for a, n in blocks.items() if a != axis}
            if count == shape[axis]:
                left = [a for a in group.axes if a != axis]
                yield ScaleGroup(left, rest)
            else:
                yield ScaleGroup(group.axes, {**rest, axis: count})


def ties_of(expected):
    """Return sets of leaves: each tie, and each leaf that is alone."""
    found = {}
    for path, answer in expected.items():
        if isinstance(answer, ScaleGroup):
            found.setdefault(answer.tie or ("alone", path), {})[path] = answer
    return list(found.values())


def answers(net):
    return (net.expected, *net.alternatives)


# In double precision flax asks for the wider of that and of single precision.
@pytest.mark.parametrize("name", NETS)
@pytest.mark.usefixtures("x64", "optax_promotion")
def test_answers(name):
    found = Case(name)
    check_statements(found)
    for expected in answers(found.net):
        for groups in ties_of(expected):
            check_groups(found, groups)
    for path in found.names:
        answer = found.net.expected.get(path)
        if answer is INERT:
            check_inert(found, path)
        elif answer is PARTLY:
            check_partly(found, path)
        elif answer is None or answer.tie:
            check_matters(found, path)
    check_joint_groups(found)


def check_statements(found):
    """Check that paths exist and groups are written in the canonical way."""
    for expected in answers(found.net):
        assert set(expected) <= set(found.names), found.names
        for path, answer in expected.items():
            if isinstance(answer, ScaleGroup):
                shape = found.shapes[path]
                assert answer == answer.resolve(shape)
                lone = [a for a, n in enumerate(shape) if n == 1]
                assert set(lone) <= set(answer.axes)
        for groups in ties_of(expected):
            tied = {group.tie for group in groups.values()} != {None}
            assert (len(groups) > 1) == tied


def check_groups(found, groups):
    """Check that groups have no scale of their own, and finer ones do."""
    for _ in range(2):
        assert max(found.grouped(groups)) < SAME, groups
    options = {}
    for path, group in groups.items():
        for other in finer(group, found.shapes[path]):
            shape = found.group_shape(path, other)
            options.setdefault(shape, {}).setdefault(path, []).append(other)
    for by_path in options.values():
        if len(by_path) == len(groups):
            for choice in itertools.product(*by_path.values()):
                trial = dict(zip(by_path, choice, strict=True))
                assert any(
                    max(found.grouped(trial)) > 10 * SAME for _ in range(9)
                ), trial


def check_inert(found, path):
    for point, base in zip(found.points, found.base, strict=True):
        other = found.random.normal(size=found.shapes[path])
        assert abs(found.loss({**point, path: other}) - base) < 1e-9, path


def ranges(shape):
    """Every run of neighbours along every axis."""
    if not shape:
        yield ()
    for axis, length in enumerate(shape):
        for start, stop in itertools.combinations(range(length + 1), 2):
            yield (slice(None),) * axis + (slice(start, stop),)


def change_of_range(found, path, index):
    factor = np.ones(found.shapes[path])
    factor[index] = 2.0 if found.coarse else 1.7
    return max(found.changes({path: factor}))


def check_matters(found, path):
    for index in ranges(found.shapes[path]):
        assert change_of_range(found, path, index) > CHANGED, (path, index)


def check_partly(found, path):
    changes = [
        change_of_range(found, path, index)
        for index in ranges(found.shapes[path])
    ]
    assert min(changes) < SAME < 10 * SAME < max(changes), path


def check_joint_groups(found):
    """Check that the smallest sets with a common scale are those stated.

    Leaves that have no scale alone, or no effect, cannot add anything. The
    slopes of the loss in the logarithms of the leaves' scales sieve the sets;
    what they leave is tried.
    """
    alone = {
        path
        for path, answer in found.net.expected.items()
        if answer in (INERT, PARTLY) or answer.tie is None
    }
    free = [path for path in found.names if path not in alone]
    assert len(free) <= 16
    stated = {
        frozenset(groups)
        for expected in answers(found.net)
        for groups in ties_of(expected)
        if len(groups) > 1
    }
    members = np.array(list(itertools.product([0, 1], repeat=len(free))), float)
    sieved = members
    if not found.coarse:
        step = best_step(found.precision)
        slopes = [slopes_of(found, path, step) for path in free]
        slopes = np.array(slopes).reshape(len(free), POINTS)
        sieved = sieve(members, slopes, step)
        # Unions of ties, as many again for a slope that is zero here only, and
        # for each leaf that is rounded, of which every slope is zero.
        rounded = np.sum(~slopes.any(1))
        assert len(sieved) <= 2 ** (len(stated) + 1 + rounded)
    smallest = []
    for row in sorted(sieved, key=sum):
        chosen = {path for path, one in zip(free, row, strict=True) if one}
        if not chosen or any(chosen >= other for other in smallest):
            continue
        scales = dict.fromkeys(chosen, 2.0 if found.coarse else 1.7)
        if max(found.changes(scales)) < SAME:
            smallest.append(chosen)
    assert {frozenset(s) for s in smallest} == stated


def best_step(precision):
    """Return the step of a central difference whose two errors are equal.

    It is off by step^2 / 6 of the third derivative, which in the log of a scale
    is below six times the loss here, and by ROUNDINGS * precision / 2 / step of
    the loss.
    """
    return precision ** (1 / 3)


def slopes_of(found, path, step):
    """Slopes of the loss, relative to it, in the log of one leaf's scale."""
    up, down = (
        [
            found.loss({**point, path: point[path] * math.exp(sign * step)})
            for point in found.points
        ]
        for sign in (1, -1)
    )
    return np.subtract(up, down) / (2 * step) / found.sizes


def sieve(members, slopes, step):
    """Return the sets whose slopes may add up to nothing.

    Allowed are, for every member, the two errors of `best_step`; and for all
    the epsilon of a norm: as it falls with the square of the scale, a change
    below SAME at a factor of 1.7 is a slope below 2 / (1 - 1.7^-2) times SAME.
    """
    allowed = 2 / (1 - 1.7**-2) * SAME
    allowed = allowed + members.sum(1) * (1 + ROUNDINGS / 2) * step**2
    return members[np.abs(members @ slopes).max(1) < allowed]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sieve(dtype):
    """Four leaves of which two pairs cancel, one of them but for 1 %.

    Losses are off by all the roundings that are allowed, in the worst way.
    """
    precision = float(jnp.finfo(dtype).eps)
    step = best_step(precision)
    members = np.array(list(itertools.product([0, 1], repeat=4)), float)
    slopes = np.array([[0.3], [-0.3], [0.5], [-0.495]])
    off = np.full_like(slopes, ROUNDINGS * precision / 2 / step)
    kept = sieve(members, slopes + off, step)
    assert kept.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]
    # With the step of doubles, roundings of singles are larger than slopes.
    off = np.full_like(slopes, ROUNDINGS * 2.0**-24 / 2.0**-17)
    kept = sieve(members, slopes + off, 2.0**-17)
    assert kept.tolist() == [[0, 0, 0, 0]]


def test_precision_is_looked_up_in_the_program():
    def loss(x):
        return jax.lax.cond(x.sum() > 0, inner, jnp.sum, x)

    def inner(x):
        return x.astype(jnp.bfloat16).sum().astype(x.dtype)

    x = jnp.ones(3)
    assert coarsest(jax.make_jaxpr(loss)(x)) == 2.0**-7
    assert coarsest(jax.make_jaxpr(jnp.sum)(x)) == 2.0**-23
