"""Random programs: losses that do what a list of numbers says.

They end in a normalization as often as not: most programs have no symmetry
otherwise.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from tests.invariance.programs import FINISHES, INSTRUCTIONS, data
from tests.invariance.traps import TRAPS, closed_zero

LARGEST = 400
SHAPES = [
    (4, 6), (6, 4), (6,), (4,), (6, 6), (12,), (2, 12), (12, 3), (3, 4, 2),
    (3, 6), (2, 2, 3), (5, 4), (1, 6),
]  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A loss: parameters' shapes, instructions, and how it ends.

    Negative numbers of instructions are those of traps.
    """

    shapes: tuple[tuple[int, ...], ...]
    instructions: tuple[tuple[int, int, int, int], ...]
    finish: tuple[int, int, int]
    # Made before the program is traced, or it would be a part of it.
    closed: dict = dataclasses.field(default_factory=closed_zero)

    def features(self, params, closed):
        pool = [params[name] for name in sorted(params)]
        for name, i, j, k in self.instructions:
            # Mostly what is newest, so that much of the program is used.
            x, y = pool[-1 - i % len(pool)], pool[j % len(pool)]
            if name < 0:
                new = TRAPS[name](x, y, k, closed)
            else:
                new = INSTRUCTIONS[name](x, y, k)
            if 0 < new.size <= LARGEST and new.ndim:
                pool.append(new)
        kind, j, k = self.finish
        return FINISHES[kind](pool[-1], pool[j % len(pool)], k)

    def __call__(self, params, closed=None):
        y = self.features(params, closed or self.closed)
        return jnp.sum(jnp.tanh(y) * data(*y.shape))

    def params(self):
        return {
            f"w{i}": jnp.asarray(data(*shape, seed=10 + i))
            for i, shape in enumerate(self.shapes)
        }

    @property
    def has_trap(self):
        return any(name < 0 for name, *_ in self.instructions)


def draw(seed, share=0.25):
    """Draw a program, of whose instructions about this share are traps."""
    random = np.random.RandomState(seed)

    def below(*limits):
        return tuple(int(random.randint(limit)) for limit in limits)

    def instruction():
        trap = random.uniform() < share
        name = -1 - random.randint(len(TRAPS)) if trap else None
        if name is None:
            name = random.randint(len(INSTRUCTIONS))
        return int(name), *below(3, 10, 96)

    shapes = [SHAPES[i] for i in below(*[len(SHAPES)] * random.randint(2, 5))]
    instructions = [instruction() for _ in range(random.randint(1, 7))]
    finish = below(len(FINISHES), 10, 12)
    return Program(tuple(shapes), tuple(instructions), finish)
