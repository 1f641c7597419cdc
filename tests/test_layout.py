"""The layout: imports run one way, and flax stays out of the core."""

import ast
import inspect
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import psi_optax
from tests.house import functions, functions_of
from tests.registry import public_names

ROOT = pathlib.Path(psi_optax.__file__).parent

# Each room, with the rooms that it may look into.
ARGUMENTS = {"_text", "_validation"}
CORE = ARGUMENTS | {"geometry", "groups"}
ALLOWED = {
    "_compat": set(),
    "_schedules": set(),
    "_text": set(),
    "_validation": {"_text"},
    "groups": ARGUMENTS | {"_compat"},
    "geometry": ARGUMENTS | {"groups"},
    "transforms": CORE,
    "wrappers": CORE | {"transforms"},
    "optimizers": CORE | {"_schedules", "transforms", "wrappers"},
    "invariance": CORE | {"_compat"},
    "reparametrize": CORE | {"transforms"},
    "initialize": CORE,
    "diagnostics": CORE | {"_compat", "reparametrize", "transforms"},
    "dynamics": CORE | {"_schedules"},
    "landscape": CORE,
    "batch_stats": CORE,
    "models": ARGUMENTS | {"groups"},
}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            module, names = node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            module, names = node.names[0].name, []
        else:
            continue
        parts = module.split(".")
        if parts[0] == "psi_optax":
            yield from parts[1:2] or names


def test_every_room_is_known():
    rooms = {room(p) for p in ROOT.rglob("*.py")} - {"__init__"}
    assert rooms == set(ALLOWED)


def test_imports_run_one_way():
    for path in ROOT.rglob("*.py"):
        if path != ROOT / "__init__.py":
            own = room(path)
            beyond = set(imported_rooms(path)) - ALLOWED[own] - {own}
            assert not beyond, f"{path} looks into {beyond}"


# What else may be imported where; each is an extra.
EXTRAS = {
    "models": {"flax"},
    "diagnostics/plot.py": {"matplotlib"},
    "landscape/plot.py": {"matplotlib"},
    "landscape/_lanczos.py": {"matfree"},
    "landscape/_arpack.py": {"scipy"},
}


def extras(path):
    inside = path.relative_to(ROOT).as_posix()
    return EXTRAS.get(inside, EXTRAS.get(room(path), set()))


def test_the_core_imports_nothing_but_jax_and_optax():
    kept = {"jax", "optax", "numpy", "psi_optax"}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            found = {name.split(".")[0] for name in names}
            found -= set(sys.stdlib_module_names) | kept
            assert found <= extras(path)


def test_importing_the_package_imports_no_extra():
    code = (
        "import sys, psi_optax; "
        "extras = {'flax', 'chex', 'sklearn', 'matplotlib'}; "
        "extras |= {'matfree', 'scipy'}; "
        "print(extras & {m.split('.')[0] for m in sys.modules})"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "set()"


def test_public_names_have_docstrings_and_functions_have_examples():
    public = public_names()
    assert len(public) > 70
    for name, item in public.items():
        assert item.__doc__, name
        # The result of a function, or a state, is not made by users.
        if not (inspect.isclass(item) and issubclass(item, tuple)):
            assert ">>> " in item.__doc__, name
            assert "Raises:" in item.__doc__, name


def test_the_top_level_is_small():
    exported = [
        name
        for name, item in vars(psi_optax).items()
        if not name.startswith("_") and not inspect.ismodule(item)
    ]
    assert 25 < len(exported) <= 32
    assert not [name for name in exported if name.endswith("State")]


def test_a_name_of_another_module_says_which():
    with pytest.raises(AttributeError, match="psi_optax.transforms.retract"):
        _ = psi_optax.retract
    assert not hasattr(psi_optax, "retracting")


SOURCES = functions(sorted(ROOT.rglob("*.py")))


def test_functions_are_short():
    lengths = [function.length for function in SOURCES]
    assert max(lengths) <= 60
    assert np.percentile(lengths, 90) <= 20
    assert len(lengths) > 500


def test_summaries_begin_with_a_verb():
    assert not [f"{x.file}: {x.summary}" for x in SOURCES if x.is_clause]
    [function] = functions_of('def f():\n    """What it is."""')
    assert function.is_clause


def test_every_definition_is_annotated():
    missing = [
        f"{x.file}: {x.node.name}" for x in SOURCES if not x.is_annotated
    ]
    assert not missing
    [function] = functions_of("def f(x) -> int: ...")
    assert not function.is_annotated
