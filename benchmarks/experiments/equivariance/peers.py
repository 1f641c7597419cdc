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

CLONES = ("riemannian-batch-normalization-pytorch", "REQ")
MODULES = {
    "Emerging-Optimizers": "emerging_optimizers.riemannian_optimizers",
    "riemannian-batch-normalization-pytorch": "grassmann_optimizer",
    "REQ": "shared.optimizers.rotational_wrapper",
}
"""By library, where they have another name."""


def _spheres(geoopt: Any, parameters: list) -> list:
    """Declare rows to be points of spheres, without moving them there."""
    sphere = geoopt.Sphere()
    return [geoopt.ManifoldParameter(p, manifold=sphere) for p in parameters]


def _grassmann(parameters: list) -> list:
    return [{"params": parameters, "grassmann": True}]


# It turns by sqrt(2 * lr * weight_decay * ...) a step.
_REQ = {"lr": 0.05, "weight_decay": 0.1, "zero_mean": False}

MAKES: dict[str, Callable[[Any, list], Any]] = {
    "torch SGD(momentum)": lambda m, p: m.optim.SGD(p, RATE, 0.9),
    "torch AdamW": lambda m, p: m.optim.AdamW(p, ADAM, weight_decay=0.3),
    "adamp SGDP(nesterov)": lambda m, p: m.SGDP(p, RATE, 0.9, nesterov=True),
    "adamp AdamP": lambda m, p: m.AdamP(p, ADAM),
    "pytorch_optimizer LARS": lambda m, p: m.LARS(
        p, ANGLE / 5, trust_coefficient=1.0
    ),
    "pytorch_optimizer Nero": lambda m, p: m.Nero(p, ANGLE),
    "geoopt RiemannianSGD(momentum)": lambda m, p: m.optim.RiemannianSGD(
        _spheres(m, p), RATE, 0.9
    ),
    "geoopt RiemannianAdam": lambda m, p: m.optim.RiemannianAdam(
        _spheres(m, p), ANGLE
    ),
    "Emerging-Optimizers ObliqueSGD": lambda m, p: m.ObliqueSGD(
        p, RATE, 0.9, dim=1
    ),
    "Emerging-Optimizers ObliqueAdam": lambda m, p: m.ObliqueAdam(
        p, ADAM, dim=1
    ),
    f"{CLONES[0]} SGDG": lambda m, p: m.SGDG(
        _grassmann(p), lr=RATE, momentum=0.9
    ),
    f"{CLONES[0]} AdamG": lambda m, p: m.AdamG(
        _grassmann(p), lr=ANGLE, momentum=0.9
    ),
    "REQ RotationalWrapper(sgdm)": lambda m, p: m.RotationalWrapper(
        p, inner_type="sgdm", **_REQ
    ),
    "REQ RotationalWrapper(adamw)": lambda m, p: m.RotationalWrapper(
        p, inner_type="adamw", **_REQ
    ),
}
"""Makers from the module and the parameters, by library and name."""


def measured() -> dict[str, dict[str, Any]]:
    """Measure the optimizers that can be imported here."""
    rows = {}
    for title, make in MAKES.items():
        library, _, name = title.partition(" ")
        try:
            module = importlib.import_module(MODULES.get(library, library))
        except ImportError:
            continue
        version = "(source)"
        if library not in CLONES:
            version = importlib.metadata.version(library)
        about = {"library": library, "optimizer": name, "version": version}
        found = problem.measure(_follow(module, make))
        rows[title] = {**about, "claim": "", "powers_of_two": None, **found}
    return rows


def _follow(module: Any, make: Callable) -> problem.Run:
    """Return the run of an optimizer, whose parameters hold filters as rows."""
    from_numpy = torch().from_numpy

    def run(weights: problem.Weights) -> problem.Path:
        rows = [from_numpy(w.T.copy()) for w in weights.values()]
        optimizer = make(module, [torch().nn.Parameter(row) for row in rows])
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
