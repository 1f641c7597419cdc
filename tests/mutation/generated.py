"""Faults that nobody thought of: what cosmic-ray's operators make of a file.

They replace operators, comparisons and numbers, turn conditions round, skip
loops, drop decorators. That is thousands, of which a sample is drawn.
"""

import ast
import difflib
import itertools
import pathlib
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOMS = ["geometry", "groups", "transforms", "optimizers", "invariance"]
ROOMS += ["reparametrize", "initialize", "diagnostics"]
# What ends in a type error at once, as unions of types and bits of floats do;
# and what needs to be told of names.
LEFT_OUT = re.compile(
    r"BinaryOperator_(BitOr|\w+_(LShift|RShift|Mod|FloorDiv|Bit\w+)$)"
    "|ExceptionReplacer|Variable"
)


class Generated(NamedTuple):
    """The n-th place in a file at which an operator can do something."""

    operator: str
    place: int
    file: str

    @property
    def what(self) -> str:
        """Its name, by which it can be chosen again."""
        name = self.operator.removeprefix("core/")
        return f"{self.file}: {name} {self.place}"

    def apply(self, package: pathlib.Path) -> str:
        """The text of the file with the fault in it."""
        text = (package / self.file).read_text()
        operator = plugins.get_operator(self.operator)()
        return mutate_code(text, operator, self.place)

    def change(self, package: pathlib.Path) -> str:
        """The lines that are other ones."""
        before = (package / self.file).read_text().splitlines()
        after = self.apply(package).splitlines()
        lines = difflib.unified_diff(before, after, n=0, lineterm="")
        return "\n".join(line for line in list(lines)[3:])


def sample(package: pathlib.Path, count: int, seed: int) -> list[Generated]:
    """So many faults of each room, of those that change the program."""
    chosen = []
    for room in ROOMS:
        faults = list(generate(package, room))
        random.Random(seed).shuffle(faults)
        changes = (fault for fault in faults if _is_change(fault, package))
        chosen += itertools.islice(changes, count)
    return chosen


def generate(package: pathlib.Path, room: str) -> Iterator[Generated]:
    """All faults of a room."""
    names = [n for n in plugins.operator_names() if not LEFT_OUT.search(n)]
    operators = {name: plugins.get_operator(name)() for name in names}
    for path in sorted((package / room).rglob("*.py")):
        nodes = list(ast_nodes(get_ast(path.read_text())))
        file = path.relative_to(package).as_posix()
        for name, operator in operators.items():
            places = sum(
                len(list(operator.mutation_positions(node))) for node in nodes
            )
            for place in range(places):
                yield Generated(name, place, file)


def _is_change(fault: Generated, package: pathlib.Path) -> bool:
    """Whether it can be compiled, to something else than before."""
    before = (package / fault.file).read_text()
    try:
        after = ast.parse(fault.apply(package))
    except SyntaxError:
        return False
    return ast.dump(after) != ast.dump(ast.parse(before))
