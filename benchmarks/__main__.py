"""Runs a measurement, by name: `python -m benchmarks NAME --help`."""

import ast
import importlib
import pathlib
import sys

from benchmarks.harness.names import unknown

MEASUREMENTS = {
    "accuracy": "benchmarks.experiments.accuracy",
    "architectures": "benchmarks.experiments.architectures",
    "averaging": "benchmarks.experiments.averaging",
    "batch_size": "benchmarks.experiments.batch_size",
    "concepts": "benchmarks.experiments.concepts",
    "convergence": "benchmarks.experiments.convergence",
    "conversion": "benchmarks.experiments.conversion",
    "defaults": "benchmarks.experiments.defaults",
    "edge": "benchmarks.experiments.edge",
    "equilibrium": "benchmarks.experiments.equilibrium",
    "equivariance": "benchmarks.experiments.equivariance.experiment",
    "language": "benchmarks.experiments.language",
    "long_runs": "benchmarks.experiments.long_runs",
    "matching": "benchmarks.experiments.matching",
    "normalizations": "benchmarks.experiments.normalizations",
    "perturbations": "benchmarks.experiments.perturbations",
    "precision": "benchmarks.experiments.precision",
    "rescaling": "benchmarks.experiments.rescaling",
    "sensitivity": "benchmarks.experiments.sensitivity",
    "sharpness": "benchmarks.experiments.sharpness",
    "smoothness": "benchmarks.experiments.smoothness",
    "surfaces": "benchmarks.experiments.surfaces",
    "transfer": "benchmarks.experiments.transfer",
    "unbalanced": "benchmarks.experiments.unbalanced",
    "find_groups": "benchmarks.speed.find_groups",
    "find_groups_compile": "benchmarks.speed.find_groups_compile",
    "input_throughput": "benchmarks.speed.input_throughput",
    "reparametrizations": "benchmarks.speed.reparametrizations",
    "scaling": "benchmarks.speed.scaling",
    "step_time": "benchmarks.speed.step_time",
    "step_time_torch": "benchmarks.speed.step_time_torch",
}
"""The modules whose `MEASUREMENT` each name runs."""


def main(arguments: list[str]) -> None:
    """Run the measurement that the first argument names, or list all."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__, "", *_lines(), sep="\n")
        return
    name, *options = arguments
    if name not in MEASUREMENTS:
        sys.exit(unknown(name, MEASUREMENTS))
    from benchmarks.harness.measurement import run

    module = importlib.import_module(MEASUREMENTS[name])
    run(name, module.MEASUREMENT, module.__doc__ or "", options)


def _lines() -> list[str]:
    """Return a line for each measurement: its name, and what it is."""
    return [f"    {name:21}{_about(x)}" for name, x in MEASUREMENTS.items()]


def _about(module: str) -> str:
    """Return the first line of a module, which is not imported."""
    file = pathlib.Path(__file__).parents[1].joinpath(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


if __name__ == "__main__":
    main(sys.argv[1:])
