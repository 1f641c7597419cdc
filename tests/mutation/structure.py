"""Code that is found in a file by its structure, whatever its names are.

A pattern is a statement or more, an expression, or arguments of a call. Each of
its names stands for any one name, and `...` as a body for any body, as does no
body at all. Of several places the one with the most names as they are written
is meant.
"""

import ast
import copy
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Code = Sequence[ast.AST]


class Match(NamedTuple):
    """A place in a file.

    Attributes:
        holder: the node that has it.
        field: the field of the node.
        start: the index in that field, if it is a list.
        names: the name that stands there for each of the pattern.
        body: the statements that stand there for `...`.
    """

    holder: ast.AST
    field: str
    start: int | None
    names: dict[str, str]
    body: list[ast.stmt]

    @property
    def kept(self) -> int:
        """How many names are as they are written."""
        return sum(a == b for a, b in self.names.items())


def replaced(text: str, right: str, wrong: str) -> str:
    """Return the text of a file with one piece of code replaced by another.

    Raises:
        SyntaxError: one of them is no code.
        ValueError: the first is not there, or cannot be told from others.
    """
    tree = ast.parse(text)
    for kind in (_arguments, _statements):
        try:
            pattern, new = kind(right), kind(wrong)
        except SyntaxError:
            continue
        found = list(_matches(tree, pattern))
        if found:
            break
    else:
        raise ValueError(f"there is no code like\n{right}")
    best = max(match.kept for match in found)
    match, *others = [match for match in found if match.kept == best]
    if others:
        raise ValueError(f"there are two places like\n{right}")
    _replace(match, [_Renamed(match).visit(one) for one in new], len(pattern))
    return ast.unparse(ast.fix_missing_locations(tree))


# -- kinds of code -----------------------------------------------------------


def _arguments(code: str) -> Code:
    """Return expressions, or arguments by name, as in a call."""
    call = ast.parse(f"f({code.strip()}\n)", mode="eval").body
    if not isinstance(call, ast.Call) or (call.args and call.keywords):
        raise SyntaxError("arguments of two kinds")
    return [*call.args, *call.keywords]


def _statements(code: str) -> Code:
    code = textwrap.dedent(code).strip()
    parsed = ast.parse(f"{code} ..." if code.endswith(":") else code)
    return parsed.body or [ast.Pass()]


# -- finding -----------------------------------------------------------------


def _matches(tree: ast.AST, pattern: Code) -> Iterator[Match]:
    for holder in ast.walk(tree):
        for field, value in ast.iter_fields(holder):
            for start, given in _runs(value, len(pattern)):
                names: dict[str, str] = {}
                body: list[ast.stmt] = []
                if _same(list(pattern), given, names, body):
                    yield Match(holder, field, start, names, body)


def _runs(value: Any, length: int) -> Iterator[tuple[int | None, list]]:
    if not isinstance(value, list):
        yield None, [value]
        return
    for start in range(len(value) - length + 1):
        yield start, value[start : start + length]


def _same(wanted: Any, given: Any, names: dict, body: list) -> bool:
    """Return whether code is like a pattern; adds to names and body."""
    if type(wanted) is not type(given):
        return False
    if isinstance(wanted, list):
        if _is_any(wanted):
            body += given
            return True
        return len(wanted) == len(given) and all(
            _same(a, b, names, body) for a, b in zip(wanted, given, strict=True)
        )
    if not isinstance(wanted, ast.AST):
        return wanted == given
    return all(
        _same_name(value, getattr(given, field), names)
        if field in _NAMES and isinstance(value, str)
        else _same(value, getattr(given, field), names, body)
        for field, value in ast.iter_fields(wanted)
        if field != "ctx"
    )


def _same_name(wanted: str, given: Any, names: dict) -> bool:
    if wanted not in names and given in names.values():
        return False
    return isinstance(given, str) and names.setdefault(wanted, given) == given


# Fields of nodes that hold a name: of a variable, an attribute, an argument.
_NAMES = {"id", "attr", "arg", "name", "module", "asname"}


def _is_any(body: list) -> bool:
    match body:
        case [ast.Expr(value=ast.Constant(value=value))]:
            return value is ...
    return False


# -- replacing ---------------------------------------------------------------


class _Renamed(ast.NodeTransformer):
    """Gives code the names and the body of a match."""

    def __init__(self, match: Match) -> None:
        self._match = match

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Rename one node, then what it holds."""
        for field, value in ast.iter_fields(node):
            if field in _NAMES and isinstance(value, str):
                setattr(node, field, self._match.names.get(value, value))
            elif isinstance(value, list) and _is_any(value):
                setattr(node, field, copy.deepcopy(self._match.body))
                return node
        return super().generic_visit(node)


def _replace(match: Match, code: Code, count: int) -> None:
    if match.start is None:
        [value] = code or [ast.Constant(None)]
        setattr(match.holder, match.field, value)
    else:
        at = slice(match.start, match.start + count)
        getattr(match.holder, match.field)[at] = code
