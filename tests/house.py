"""Measures of the source: sizes, lengths of functions, language of summaries.

    python -m tests.house

prints them for each room of the package, for benchmarks and for tests. Lines of
code are those that are not blank, a comment or a docstring; the length of a
function is that of its body without its docstring.
"""

import ast
import io
import pathlib
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "psi_optax"

# First words of a summary that is a noun clause.
CLAUSES = {"what", "whether", "of", "the", "how", "where", "which", "who"}
_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """A function and where it is.

    Attributes:
        file: its path, from the root on.
        node: its definition.
    """

    file: str
    node: _DEFINITIONS

    @property
    def length(self) -> int:
        """Lines of the body, without the docstring."""
        body = self.node.body[ast.get_docstring(self.node) is not None :]
        if not body:
            return 0
        return (body[-1].end_lineno or 0) - body[0].lineno + 1

    @property
    def summary(self) -> str:
        """The first line of the docstring; empty without one."""
        return (ast.get_docstring(self.node) or "").partition("\n")[0]

    @property
    def is_clause(self) -> bool:
        """Whether the summary is a noun clause, not a sentence with a verb."""
        is_attribute = any(
            "property" in ast.unparse(x) for x in self.node.decorator_list
        )
        words = self.summary.lower().split()
        return bool(words) and not is_attribute and words[0] in CLAUSES

    @property
    def is_annotated(self) -> bool:
        """Whether all parameters and the result are annotated."""
        given = self.node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        every += [x for x in (given.vararg, given.kwarg) if x is not None]
        returns = self.node.returns or self.node.name == "__init__"
        return bool(returns) and all(
            x.annotation is not None or x.arg in ("self", "cls") for x in every
        )


def functions(files: list[pathlib.Path]) -> list[Function]:
    """Return all functions, nested ones too."""
    return [
        function
        for path in files
        for function in functions_of(
            path.read_text(), path.relative_to(ROOT).as_posix()
        )
    ]


def functions_of(text: str, file: str = "") -> list[Function]:
    """Return the functions of a source text."""
    return [
        Function(file, node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, _DEFINITIONS)
    ]


def code_lines(path: pathlib.Path) -> int:
    """Count the lines that have code."""
    text = path.read_text()
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, _DEFINITIONS | ast.ClassDef | ast.Module)
        and ast.get_docstring(node, clean=False) is not None
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    found = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(found - docstrings)


def rooms() -> Iterator[tuple[str, list[pathlib.Path]]]:
    """Yield the rooms of the package, then all of it, benchmarks and tests."""
    for path in sorted(PACKAGE.iterdir()):
        if path.is_dir() and any(path.glob("*.py")):
            yield path.name, sorted(path.rglob("*.py"))
    for folder in ("psi_optax", "benchmarks", "tests"):
        yield folder, sorted((ROOT / folder).rglob("*.py"))


def main() -> None:
    """Print a line for each room."""
    print(
        "room          files  lines   code  longest  median  p90  max  clauses"
    )
    code = {}
    for name, files in rooms():
        lines = [len(path.read_text().splitlines()) for path in files]
        found = functions(files)
        lengths = [function.length for function in found] or [0]
        code[name] = sum(map(code_lines, files))
        median, most = np.percentile(lengths, [50, 90])
        print(
            f"{name:12} {len(files):6} {sum(lines):6} {code[name]:6}"
            f" {max(lines):8} {median:7.0f} {most:4.0f} {max(lengths):4}"
            f" {sum(x.is_clause for x in found):8}"
        )
    print(f"tests : code {code['tests'] / code['psi_optax']:.2f}")


if __name__ == "__main__":
    main()
