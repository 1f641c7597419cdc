"""Torch's optimizers on the problem of the equivariance table.

    build/oracles/venv/bin/python -m benchmarks.experiments.equivariance.peers

It runs in the environments that `make oracles` makes, which have torch and no
JAX, and prints what can be imported there, in JSON. Its argument is a folder of
clones, for libraries that are on no registry.
"""

import importlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.experiments.equivariance import problem
from benchmarks.harness.files import one_message
from benchmarks.harness.processes import torch

RATE, ADAM, ANGLE = 0.02, 0.02, 0.05
# RotationalWrapper turns by sqrt(2 * lr * weight_decay * ...) a step.
REQ = {"lr": 0.05, "weight_decay": 0.1, "zero_mean": False}


MODULES = {
    "torch": "torch",
    "adamp": "adamp",
    "pytorch_optimizer": "pytorch_optimizer",
    "geoopt": "geoopt",
    "Emerging-Optimizers": "emerging_optimizers.riemannian_optimizers",
    "riemannian-batch-normalization-pytorch": "grassmann_optimizer",
    "REQ": "shared.optimizers.rotational_wrapper",
}
"""By the names of libraries; the last two are folders of clones."""

CLONES = ("riemannian-batch-normalization-pytorch", "REQ")


def _spheres(geoopt: Any, parameters: list) -> list:
    """Declare rows to be points of spheres, without moving them there."""
    sphere = geoopt.Sphere()
    return [geoopt.ManifoldParameter(p, manifold=sphere) for p in parameters]


def _grassmann(parameters: list) -> list:
    return [{"params": parameters, "grassmann": True}]


MAKES: dict[str, dict[str, Callable[[Any, list], Any]]] = {
    "torch": {
        "SGD(momentum)": lambda m, p: m.optim.SGD(p, RATE, 0.9),
        "AdamW": lambda m, p: m.optim.AdamW(p, ADAM, weight_decay=0.3),
    },
    "adamp": {
        "SGDP(nesterov)": lambda m, p: m.SGDP(p, RATE, 0.9, nesterov=True),
        "AdamP": lambda m, p: m.AdamP(p, ADAM),
    },
    "pytorch_optimizer": {
        "LARS": lambda m, p: m.LARS(p, ANGLE / 5, trust_coefficient=1.0),
        "Nero": lambda m, p: m.Nero(p, ANGLE),
    },
    "geoopt": {
        "RiemannianSGD(momentum)": lambda m, p: m.optim.RiemannianSGD(
            _spheres(m, p), RATE, 0.9
        ),
        "RiemannianAdam": lambda m, p: m.optim.RiemannianAdam(
            _spheres(m, p), ANGLE
        ),
    },
    "Emerging-Optimizers": {
        "ObliqueSGD": lambda m, p: m.ObliqueSGD(p, RATE, 0.9, dim=1),
        "ObliqueAdam": lambda m, p: m.ObliqueAdam(p, ADAM, dim=1),
    },
    "riemannian-batch-normalization-pytorch": {
        "SGDG": lambda m, p: m.SGDG(_grassmann(p), lr=RATE, momentum=0.9),
        "AdamG": lambda m, p: m.AdamG(_grassmann(p), lr=ANGLE, momentum=0.9),
    },
    "REQ": {
        f"RotationalWrapper({inner})": lambda m, p, i=inner: (
            m.RotationalWrapper(p, inner_type=i, **REQ)
        )
        for inner in ("sgdm", "adamw")
    },
}
"""Makers from the module and the parameters."""

NAMES = tuple(f"{library} {x}" for library in MAKES for x in MAKES[library])


def measured() -> dict[str, dict[str, Any]]:
    """Measure the optimizers that can be imported here."""
    rows = {}
    for library, makes in MAKES.items():
        try:
            module = importlib.import_module(MODULES[library])
        except ImportError:
            continue
        version = "(source)"
        if library not in CLONES:
            version = importlib.metadata.version(library)
        for name, make in makes.items():
            rows[f"{library} {name}"] = {
                "library": library,
                "optimizer": name,
                "version": version,
                "claim": "",
                "powers_of_two": None,
                **problem.measure(_follow(module, make)),
            }
    return rows


def _follow(module: Any, make: Callable) -> problem.Run:
    """Return the run of an optimizer, whose parameters hold filters as rows."""
    tensor = torch().from_numpy
    parameter = torch().nn.Parameter

    def run(weights: problem.Weights) -> problem.Path:
        optimizer = make(
            module, [parameter(tensor(w.T.copy())) for w in weights.values()]
        )
        leaves = [p for g in optimizer.param_groups for p in g["params"]]
        path = []
        for step in range(problem.STEPS):
            gradients = problem.gradient(step, weights)
            for leaf, g in zip(leaves, gradients.values(), strict=True):
                leaf.grad = tensor(g.T.copy())
            optimizer.step()
            arrays = [leaf.detach().numpy().T.copy() for leaf in leaves]
            weights = dict(zip(gradients, arrays, strict=True))
            path.append(weights)
        return problem.stacked(path)

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
