"""Torch's optimizers on the problem of the equivariance table.

    build/oracles/venv/bin/python -m benchmarks.equivariance_peers

`benchmarks.equivariance` runs this in the environments that `make oracles`
makes, which have torch and no JAX, and reads what it prints: rows, in JSON, of
those optimizers that can be imported there.
"""

import argparse
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import equivariance_problem as problem, peers
from benchmarks.harness.files import one_message
from benchmarks.options import existing

RATE, ADAM, ANGLE = 0.02, 0.02, 0.05
# RotationalWrapper turns by sqrt(2 * lr * weight_decay * ...) a step.
REQ = {"lr": 0.05, "weight_decay": 0.1, "zero_mean": False}


class Peer(NamedTuple):
    """A library of optimizers.

    Attributes:
        module: where they are.
        distribution: whose version is recorded; None for a clone of sources.
        makes: makes each from the module and the parameters.
    """

    module: str
    distribution: str | None
    makes: dict[str, Callable[[Any, list], Any]]


def _spheres(geoopt: Any, parameters: list) -> list:
    """Parameters whose rows are points, not brought to the sphere."""
    sphere = geoopt.Sphere()
    return [geoopt.ManifoldParameter(p, manifold=sphere) for p in parameters]


PEERS = {
    "torch": Peer(
        "torch",
        "torch",
        {
            "SGD(momentum)": lambda m, p: m.optim.SGD(p, RATE, 0.9),
            "AdamW": lambda m, p: m.optim.AdamW(p, ADAM, weight_decay=0.3),
        },
    ),
    "adamp": Peer(
        "adamp",
        "adamp",
        {
            "SGDP(nesterov)": lambda m, p: m.SGDP(p, RATE, 0.9, nesterov=True),
            "AdamP": lambda m, p: m.AdamP(p, ADAM),
        },
    ),
    "pytorch_optimizer": Peer(
        "pytorch_optimizer",
        "pytorch_optimizer",
        {
            "LARS": lambda m, p: m.LARS(p, ANGLE / 5, trust_coefficient=1.0),
            "Nero": lambda m, p: m.Nero(p, ANGLE),
        },
    ),
    "geoopt": Peer(
        "geoopt",
        "geoopt",
        {
            "RiemannianSGD(momentum)": lambda m, p: m.optim.RiemannianSGD(
                _spheres(m, p), RATE, 0.9
            ),
            "RiemannianAdam": lambda m, p: m.optim.RiemannianAdam(
                _spheres(m, p), ANGLE
            ),
        },
    ),
    "Emerging-Optimizers": Peer(
        "emerging_optimizers.riemannian_optimizers",
        "emerging-optimizers",
        {
            "ObliqueSGD": lambda m, p: m.ObliqueSGD(p, RATE, 0.9, dim=1),
            "ObliqueAdam": lambda m, p: m.ObliqueAdam(p, ADAM, dim=1),
        },
    ),
    "riemannian-batch-normalization-pytorch": Peer(
        "grassmann_optimizer",
        None,
        {
            "SGDG": lambda m, p: m.SGDG(
                [{"params": p, "grassmann": True}], lr=RATE, momentum=0.9
            ),
            "AdamG": lambda m, p: m.AdamG(
                [{"params": p, "grassmann": True}], lr=ANGLE, momentum=0.9
            ),
        },
    ),
    "REQ": Peer(
        "shared.optimizers.rotational_wrapper",
        None,
        {
            f"RotationalWrapper({inner})": lambda m, p, i=inner: (
                m.RotationalWrapper(p, inner_type=i, **REQ)
            )
            for inner in ("sgdm", "adamw")
        },
    ),
}
"""By the names that the table gives them; clones by their folders."""


def missing() -> list[dict[str, Any]]:
    """A row for every optimizer, none of which was run."""
    return [
        {"library": library, "optimizer": name}
        for library, peer in PEERS.items()
        for name in peer.makes
    ]


def measured() -> list[dict[str, Any]]:
    """A row for every optimizer that can be imported here."""
    rows = []
    for library, peer in PEERS.items():
        try:
            module = importlib.import_module(peer.module)
        except ImportError:
            continue
        version = peer.distribution and importlib.metadata.version(
            peer.distribution
        )
        rows += [
            {
                "library": library,
                "version": version,
                "optimizer": name,
                **problem.measure(_follow(module, make)),
            }
            for name, make in peer.makes.items()
        ]
    return rows


def _follow(module: Any, make: Callable) -> problem.Run:
    """How an optimizer runs; its parameters hold filters as rows."""
    torch = importlib.import_module("torch")

    def run(weights: problem.Weights) -> problem.Path:
        optimizer = make(
            module,
            [
                torch.nn.Parameter(torch.from_numpy(w.T.copy()))
                for w in weights.values()
            ],
        )
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        path = []
        for step in range(problem.STEPS):
            gradients = problem.gradient(step, weights)
            for parameter, g in zip(
                parameters, gradients.values(), strict=True
            ):
                parameter.grad = torch.from_numpy(g.T.copy())
            optimizer.step()
            weights = {
                name: parameter.detach().numpy().T.copy()
                for name, parameter in zip(gradients, parameters, strict=True)
            }
            path.append(weights)
        return problem.stacked(path)

    return run


@one_message()
def main() -> None:
    """Prints the rows, after whatever the libraries print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sources", type=existing)
    sources = parser.parse_args().sources
    if sources:
        sys.path += [str(sources / library) for library in PEERS]
    torch = peers.torch()
    # Some of the libraries make their states in the default dtype.
    torch.set_default_dtype(torch.float64)
    print(json.dumps(measured()))


if __name__ == "__main__":
    main()
