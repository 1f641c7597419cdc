"""The tests that optax ships, run on other transforms than its own.

Its test classes are parametrized by tables at the top of their modules, when
the classes are made. So the source is run anew with other tables; whatever the
installed optax tests, it then tests of ours.
"""

import ast
import importlib.util
import pathlib
import types
import unittest
from typing import Any


def load(name: str, tables: dict[str, Any]) -> types.ModuleType:
    """Runs a test module of optax with these tables in place of its own.

    Dropped are all statements of the module that mention a table or the
    environment, and every test of a version: optax 0.2.8 compares versions as
    strings, so that "0.10" comes before "0.7" and its tests skip themselves.
    """
    path = importlib.util.find_spec(name).origin
    tree = ast.parse(pathlib.Path(path).read_text())
    dropped = {*tables, "environ"}
    tree.body = [node for node in tree.body if not _prepares(node, dropped)]
    tree = ast.fix_missing_locations(_WithoutVersions().visit(tree))
    module = types.ModuleType(f"{__name__}.{name.rpartition('.')[2]}")
    module.__dict__.update(tables)
    exec(compile(tree, path, "exec"), module.__dict__)
    return module


def _prepares(node: ast.stmt, names: set[str]) -> bool:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return False
    mentioned = {
        getattr(child, "id", getattr(child, "attr", None))
        for child in ast.walk(node)
    }
    return bool(mentioned & names)


class _WithoutVersions(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        if "__version__" in ast.unparse(node.test):
            return None
        return self.generic_visit(node)


class NoSkips(unittest.TestCase):
    """Mixed into a test class of optax: a test that skips itself fails."""

    def skipTest(self, reason):  # noqa: N802
        self.fail(f"skipped: {reason}")


def names_of_tests(case: type[unittest.TestCase]) -> list[str]:
    """The tests that a class runs; none is marked to be skipped."""
    names = unittest.defaultTestLoader.getTestCaseNames(case)
    for marked in [case, *(getattr(case, name) for name in names)]:
        assert not getattr(marked, "__unittest_skip__", False), marked
    return names
