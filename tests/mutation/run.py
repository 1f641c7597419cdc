"""The tests of what a fault is in, on a copy of the package that has it."""

import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "psi_optax"

# The tests of each room, then what is built on it: the fast ones, of which the
# first that fails ends the run.
_CORE = [
    "tests/geometry",
    "tests/groups",
    "tests/transforms",
    "tests/test_optimizers.py",
    "tests/optimizers",
    "tests/oracles/test_ours.py",
]
_CONTRACT = "tests/conformance/test_contract.py"
_ARGUMENTS = "tests/conformance/test_arguments.py"
TESTS = {
    "_validation.py": ["tests/conformance/test_arguments.py"],
    "_text.py": ["tests/groups"],
    "geometry": _CORE,
    "groups": ["tests/groups", *_CORE],
    "transforms": ["tests/transforms", "tests/faults", *_CORE, _CONTRACT],
    "wrappers": ["tests/wrappers", "tests/precision", _CONTRACT, *_CORE],
    "optimizers": [
        "tests/test_optimizers.py",
        "tests/optimizers",
        *_CORE,
        _CONTRACT,
        _ARGUMENTS,
    ],
    "reparametrize": ["tests/reparametrize", "tests/diagnostics"],
    "initialize": ["tests/initialize"],
    "models": [
        "tests/models/test_normalization_layers.py",
        "tests/models/test_normalization_functions.py",
    ],
    "diagnostics": ["tests/diagnostics"],
    "dynamics": ["tests/dynamics"],
    "landscape": [
        f"tests/landscape/test_{part}.py"
        for part in (
            *("space", "stability", "krylov", "eigenpairs", "spectrum"),
            *("lines", "noise", "data", "flow", "plot"),
        )
    ],
    "batch_stats.py": ["tests/test_batch_stats.py"],
    "invariance": [
        "tests/invariance/test_equations.py",
        "tests/invariance/test_depth.py",
        "tests/invariance/test_ties.py",
        "tests/invariance/test_screening.py",
        "tests/invariance/test_finder.py",
        "tests/invariance/test_measurement.py",
        "tests/invariance/test_traps.py",
        "tests/invariance/test_control_flow.py",
        "tests/invariance/test_more_rules.py",
        "tests/invariance/test_decompositions.py",
        "tests/invariance/test_guards.py",
        "tests/invariance/test_synchronized.py",
        "tests/invariance/test_refs.py",
        "tests/invariance/test_custom_derivatives.py",
        "tests/invariance/test_cross_check.py",
        "tests/invariance/test_properties.py",
        "tests/invariance/test_reasons.py",
        "tests/invariance/test_zoo.py",
    ],
}
# How a program is ordered, and what it sends, is seen where it is looked at.
_PROGRAM = ["tests/devices/test_communication.py"]
_ONE_SUM = ["tests/theory/test_one_sum.py"]
_REPORT = ["tests/invariance/test_report.py"]
_ENTRANCE = ["tests/conformance/test_entrance.py"]
_FRAMEWORKS = [
    "tests/invariance/test_axis_names.py",
    "tests/invariance/test_frameworks.py",
]
ALSO = {
    "geometry/_scheduling.py": _PROGRAM,
    "geometry/one_sum.py": _ONE_SUM,
    "groups/plan.py": _ENTRANCE,
    "optimizers/_known_groups.py": _ONE_SUM,
    "optimizers/psi.py": _PROGRAM,
    "transforms/_sharding.py": ["tests/devices/test_products.py"],
    "transforms/contract.py": _ENTRANCE,
    "transforms/floating.py": _ENTRANCE,
    "transforms/state_checks.py": _ENTRANCE,
    "transforms/momentum.py": _ENTRANCE,
    "optimizers/psi_adam.py": [_ARGUMENTS],
    "optimizers/psi_sgd.py": [_ARGUMENTS],
    "diagnostics/monitor.py": [_ARGUMENTS],
    "invariance/report.py": ["tests/groups/test_hashing.py"],
    "invariance/axis_names.py": _FRAMEWORKS,
    "groups/frameworks.py": _FRAMEWORKS,
    "invariance/probe/data.py": ["tests/invariance/test_states.py"],
    "invariance/error_notes.py": ["tests/invariance/test_error_notes.py"],
    "invariance/formats/layers.py": _REPORT,
    "invariance/formats/patterns.py": _REPORT,
    "invariance/formats/pattern_rules.py": _REPORT,
    "invariance/formats/pattern_ties.py": _REPORT,
    "invariance/variables.py": _REPORT,
}
OPTIONS = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
# Seconds of computing, for a program that no longer ends. Time on the wall
# would say the same of a busy machine.
LIMIT = 3600


def noticed_by(fault) -> str | None:
    """The first test that fails with the fault; None if all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in ["psi_optax", "tests"]:
            shutil.copytree(ROOT / name, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        text = fault.apply(PACKAGE)
        (copy / "psi_optax" / fault.file).write_text(text)
        return _first_failure(copy, selection_for(fault.file))


def selection_for(file: str) -> list[str]:
    """What tests a file of the package, from the nearest on."""
    room = file.partition("/")[0]
    return list(dict.fromkeys([*ALSO.get(file, []), *TESTS[room]]))


def within(seconds: int, command: list[str], **options):
    """Runs a command until it ends or has computed for so long."""
    limited = f'ulimit -S -t {seconds}; exec "$@"'
    return subprocess.run(
        ["sh", "-c", limited, "sh", *command],
        capture_output=True,
        text=True,
        **options,
    )


def _first_failure(copy: pathlib.Path, tests: list[str]) -> str | None:
    command = [sys.executable, "-m", "pytest", *OPTIONS, *tests]
    done = within(LIMIT, command, cwd=copy)
    if done.returncode == 0:
        return None
    if done.returncode == -signal.SIGXCPU:
        return "no end"
    lines = done.stdout.splitlines()
    failed = [x for x in lines if x.startswith(("FAILED", "ERROR"))]
    if failed:
        return failed[-1].partition(" ")[2].split(" - ")[0]
    if done.returncode == 4 or "conftest" in done.stderr:
        return "cannot be imported"
    raise RuntimeError(f"pytest failed\n{done.stdout}\n{done.stderr}")
