"""Torch's optimizers on the problem of the equivariance table.

    build/oracles/venv/bin/python -m benchmarks.experiments.equivariance.peers

It runs in the environments that `make oracles` makes, which have torch and no
JAX, and prints the rows of what can be imported there, in JSON. Its argument is
a folder of clones, for libraries that are on no registry.
"""

import importlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.experiments.equivariance import problem
from benchmarks.experiments.equivariance.problem import ADAM, ANGLE, RATE
from benchmarks.harness.files import one_message
from benchmarks.harness.processes import torch

GRASSMANN = "riemannian-batch-normalization-pytorch"
CLONES = (GRASSMANN, "REQ")
MODULES = {
    "torch": "torch.optim",
    "geoopt": "geoopt.optim",
    "Emerging-Optimizers": "emerging_optimizers.riemannian_optimizers",
    GRASSMANN: "grassmann_optimizer",
    "REQ": "shared.optimizers.rotational_wrapper",
}
"""By library, where they have another name."""

_SGD = {"lr": RATE, "momentum": 0.9}
# It turns by sqrt(2 * lr * weight_decay * ...) a step.
_REQ = {"lr": 0.05, "weight_decay": 0.1, "zero_mean": False}

OPTIONS: dict[str, dict[str, Any]] = {
    "torch SGD(momentum)": _SGD,
    "torch AdamW": {"lr": ADAM, "weight_decay": 0.3},
    "adamp SGDP(nesterov)": {**_SGD, "nesterov": True},
    "adamp AdamP": {"lr": ADAM},
    "pytorch_optimizer LARS": {"lr": ANGLE / 5, "trust_coefficient": 1.0},
    "pytorch_optimizer Nero": {"lr": ANGLE},
    "geoopt RiemannianSGD(momentum)": _SGD,
    "geoopt RiemannianAdam": {"lr": ANGLE},
    "Emerging-Optimizers ObliqueSGD": {**_SGD, "dim": 1},
    "Emerging-Optimizers ObliqueAdam": {"lr": ADAM, "dim": 1},
    f"{GRASSMANN} SGDG": {**_SGD, "grassmann": True},
    f"{GRASSMANN} AdamG": {**_SGD, "lr": ANGLE, "grassmann": True},
    "REQ RotationalWrapper(sgdm)": {**_REQ, "inner_type": "sgdm"},
    "REQ RotationalWrapper(adamw)": {**_REQ, "inner_type": "adamw"},
}
"""Keywords of the optimizers, by library and class."""


def measured() -> dict[str, dict[str, Any]]:
    """Measure the optimizers that can be imported here."""
    found = {title: _row(title, options) for title, options in OPTIONS.items()}
    return {title: row for title, row in found.items() if row}


def _row(title: str, options: dict[str, Any]) -> dict[str, Any] | None:
    library, _, name = title.partition(" ")
    try:
        module = importlib.import_module(MODULES.get(library, library))
    except ImportError:
        return None
    version = "(source)"
    if library not in CLONES:
        version = importlib.metadata.version(library)
    make = getattr(module, name.partition("(")[0])
    declare = _spheres if library == "geoopt" else list
    run = _follow(lambda rows: make(declare(rows), **options))
    about = {"library": library, "optimizer": name, "version": version}
    about |= {"claim": "", "powers_of_two": None}
    return {**about, **problem.measure(run)}


def _spheres(parameters: list) -> list:
    """Declare rows to be points of spheres, without moving them there."""
    geoopt = importlib.import_module("geoopt")
    sphere = geoopt.Sphere()
    return [geoopt.ManifoldParameter(p, manifold=sphere) for p in parameters]


def _follow(make: Callable[[list], Any]) -> problem.Run:
    """Return the run of an optimizer, whose parameters hold filters as rows."""
    from_numpy = torch().from_numpy

    def run(weights: problem.Weights) -> problem.Path:
        rows = [from_numpy(w.T.copy()) for w in weights.values()]
        optimizer = make([torch().nn.Parameter(row) for row in rows])
        leaves = [p for g in optimizer.param_groups for p in g["params"]]
        path = []
        for step in range(problem.STEPS):
            gradients = problem.gradient(step, weights)
            for leaf, g in zip(leaves, gradients.values(), strict=True):
                leaf.grad = from_numpy(g.T.copy())
            optimizer.step()
            arrays = [leaf.detach().numpy().T.copy() for leaf in leaves]
            weights = dict(zip(gradients, arrays, strict=True))
            path.append(weights)
        return path

    return run


@one_message()
def main() -> None:
    """Print the rows, after whatever the libraries print."""
    for folder in sys.argv[1:]:
        sys.path += [str(pathlib.Path(folder, library)) for library in CLONES]
    # Some of the libraries make their states in the default dtype.
    torch().set_default_dtype(torch().float64)
    print(json.dumps(measured()))


if __name__ == "__main__":
    main()
