"""The answers of the zoo, by numbers and without the package's own search.

All in double precision, at weights moved away from where they began: zeros and
ones hide much. Three such points; what must not change does so at none of them,
what must change does so at one at least (a dead unit hides its weights).
"""

import itertools
import math

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
# Rounding hides all but powers of two, which a float takes without any.
POWERS = {"plain_bfloat16", "linen_mixed_precision"}

# Compiling takes longer than running.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


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
        self.names = [e.path for e in paths.entries(params) if not e.is_hole]
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
        self.jitted = jax.jit(self.net.loss, compiler_options=QUICK)
        self.random = np.random.RandomState(1)
        self.base = [self.loss(point) for point in self.points]

    def loss(self, leaves):
        tree = jax.tree.unflatten(
            self.structure, [leaves[path] for path in self.names]
        )
        value = self.jitted(tree, *self.args)
        assert value.shape == ()
        return float(value)

    def factors(self, *shape):
        if self.net.name in POWERS:
            return 2.0 ** self.random.randint(-1, 4, shape)
        return np.exp(self.random.uniform(-0.7, 1.2, shape))

    def changes(self, scales):
        """How much the loss changes, at each point and relative to it."""
        found = []
        for point, base in zip(self.points, self.base, strict=True):
            moved = {p: x * scales.get(p, 1.0) for p, x in point.items()}
            found.append(abs(self.loss(moved) - base) / max(abs(base), 0.1))
        return found

    def grouped(self, groups):
        """The changes when the groups of some leaves get common factors."""
        count = {self.group_shape(p, g) for p, g in groups.items()}
        assert len(count) == 1, f"{groups}: group shapes {count}"
        factors = self.factors(*count.pop())
        return self.changes(
            {p: self.spread(p, g, factors) for p, g in groups.items()}
        )

    def group_shape(self, path, group):
        blocks, shape = dict(group.blocks), self.shapes[path]
        return tuple(
            blocks.get(axis, shape[axis])
            for axis in range(len(shape))
            if axis not in group.axes or axis in blocks
        )

    def spread(self, path, group, factors):
        """The factor of every weight's group."""
        shape, blocks = self.shapes[path], dict(group.blocks)
        index = [
            grid * blocks.get(axis, length) // length
            for axis, (grid, length) in enumerate(
                zip(np.indices(shape), shape, strict=True)
            )
            if axis not in group.axes or axis in blocks
        ]
        return np.broadcast_to(factors[tuple(index)], shape)


def divisors(length):
    return [n for n in range(1, length + 1) if length % n == 0]


def finer(group, shape):
    """The next finer statements: one axis less, or in more blocks."""
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
    """Sets of leaves: each tie, and each leaf that is alone."""
    found = {}
    for path, answer in expected.items():
        if isinstance(answer, ScaleGroup):
            found.setdefault(answer.tie or ("alone", path), {})[path] = answer
    return list(found.values())


def answers(net):
    return (net.expected, *net.alternatives)


each_net = pytest.mark.parametrize("name", NETS)


@each_net
def test_runs_in_single_precision(name):
    net = NETS[name]()
    value = jax.eval_shape(net.loss, net.params, *net.args)
    assert (value.shape, value.dtype) == ((), jnp.float32)


# In double precision flax asks for the wider of that and of single precision.
@each_net
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
    """Every path exists, every group is written in the canonical way."""
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
    """The groups have no scale of their own; finer ones do."""
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
    factor[index] = 2.0 if found.net.name in POWERS else 1.7
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
    """The smallest sets of leaves with a common scale are those stated.

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
    step = 2.0**-14
    slopes = np.array(
        [
            [
                (up - down) / (2 * step)
                for up, down in zip(
                    signed(found, path, step),
                    signed(found, path, -step),
                    strict=True,
                )
            ]
            for path in free
        ]
    ).reshape(len(free), POINTS)
    members = np.array(list(itertools.product([0, 1], repeat=len(free))), float)
    coarse = found.net.name in POWERS
    sieved = members if coarse else sieve(members, slopes)
    smallest = []
    for row in sorted(sieved, key=sum):
        chosen = {path for path, one in zip(free, row, strict=True) if one}
        if not chosen or any(chosen >= other for other in smallest):
            continue
        scales = dict.fromkeys(chosen, 2.0 if coarse else 1.7)
        if max(found.changes(scales)) < SAME:
            smallest.append(chosen)
    stated = [
        set(groups)
        for expected in answers(found.net)
        for groups in ties_of(expected)
        if len(groups) > 1
    ]
    assert {frozenset(s) for s in smallest} == {frozenset(s) for s in stated}


def sieve(members, slopes):
    return members[np.abs(members @ slopes).max(1) < 1e-3]


def signed(found, path, step):
    return [
        found.loss({**point, path: point[path] * math.exp(step)})
        for point in found.points
    ]
