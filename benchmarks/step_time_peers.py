"""What a step of torch's optimizers costs, on the parameters of ResNet-50.

    build/oracles/venv/bin/python -m benchmarks.step_time_peers

`benchmarks.step_time --peers` runs this in the environments that `make oracles`
makes, which have torch and no JAX, and reads what it prints: rows in JSON. As
there, cases run in turns and ratios are formed turn by turn, here to torch's
own fused SGD and AdamW. Convolutions come as (out, fan_in) matrices, which some
of these libraries demand; vectors are left to the baseline, and their cost is
counted.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import Any

from benchmarks.shapes import resnet50

SGD, ADAMW = "torch SGD(momentum, fused)", "torch AdamW(fused)"


def cases(torch: Any) -> dict[str, Callable[..., list]]:
    """From matrices and vectors to the optimizers of both, by name."""

    def sgd(params):
        return torch.optim.SGD(params, 0.01, 0.9, fused=True)

    def adamw(params):
        return torch.optim.AdamW(params, 1e-3, fused=True)

    def beside(make, rest):
        return lambda matrices, vectors: [make(matrices), rest(vectors)]

    found = {
        SGD: beside(sgd, sgd),
        "torch SGD(momentum)": beside(
            lambda p: torch.optim.SGD(p, 0.01, 0.9, foreach=False), sgd
        ),
        ADAMW: beside(adamw, adamw),
        "torch AdamW": beside(
            lambda p: torch.optim.AdamW(p, 1e-3, foreach=False), adamw
        ),
    }
    for module, kind, rest, options in [
        ("timm.optim.sgdp", "SGDP", sgd, {"lr": 0.01, "momentum": 0.9}),
        ("timm.optim.adamp", "AdamP", adamw, {"lr": 1e-3}),
        ("adamp", "SGDP", sgd, {"lr": 0.01, "momentum": 0.9}),
        ("adamp", "AdamP", adamw, {"lr": 1e-3}),
        ("pytorch_optimizer", "SGDP", sgd, {"lr": 0.01, "momentum": 0.9}),
        ("pytorch_optimizer", "LARS", sgd, {"lr": 0.01}),
        (
            "emerging_optimizers.riemannian_optimizers",
            "ObliqueSGD",
            sgd,
            {"lr": 0.01, "momentum": 0.9, "dim": 1},
        ),
    ]:
        loaded = _load(module)
        if loaded is not None:
            name = f"{module.partition('.')[0]} {kind}"
            make = getattr(loaded, kind)
            found[name] = beside(
                lambda p, make=make, options=options: make(p, **options), rest
            )
    geoopt = _load("geoopt")
    if geoopt is not None:
        sphere = geoopt.Sphere()

        def on_spheres(make):
            def made(params):
                points = []
                for x in params:
                    point = geoopt.ManifoldParameter(
                        x.detach(), manifold=sphere
                    )
                    point.grad = x.grad
                    points.append(point)
                return make(points)

            return made

        found["geoopt RiemannianSGD"] = beside(
            on_spheres(lambda p: geoopt.optim.RiemannianSGD(p, 0.01, 0.9)), sgd
        )
        found["geoopt RiemannianAdam"] = beside(
            on_spheres(lambda p: geoopt.optim.RiemannianAdam(p, 1e-3)), adamw
        )
    return found


def _load(module: str) -> Any:
    """A module, or None; one of timm's without the rest of timm."""
    if module.startswith("timm."):
        # `import timm` needs torchvision, its optimizers do not.
        found = importlib.util.find_spec("timm")
        if found is None or not found.submodule_search_locations:
            return None
        package = types.ModuleType("timm_optim")
        folder = found.submodule_search_locations[0]
        package.__path__ = [os.path.join(folder, "optim")]
        sys.modules.setdefault("timm_optim", package)
        module = module.replace("timm.optim", "timm_optim")
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def baseline(name: str) -> str:
    """The optimizer that a case is compared with."""
    return ADAMW if "Adam" in name else SGD


def measured(turns: int, steps: int) -> list[dict[str, Any]]:
    """A row for every optimizer that can be imported here."""
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    made = {
        name: make(*_parameters(torch)) for name, make in cases(torch).items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(turns + 1):
        for name, optimizers in made.items():
            start = time.perf_counter()
            for _ in range(steps):
                for optimizer in optimizers:
                    optimizer.step()
            if turn:
                taken = (time.perf_counter() - start) / steps
                seconds[name].append(taken)
    rows = []
    for name, own in seconds.items():
        pairs = zip(own, seconds[baseline(name)], strict=True)
        ratios = [mine / theirs for mine, theirs in pairs]
        low, middle, high = statistics.quantiles(
            ratios, n=4, method="inclusive"
        )
        rows.append(
            {
                "optimizer": name,
                "baseline": baseline(name),
                "ratio": middle,
                "quartiles": [low, high],
            }
        )
    return rows


def _parameters(torch: Any) -> tuple[list, list]:
    """Matrices with filters as rows, and vectors, each with a gradient."""
    matrices, vectors = [], []
    for shape in resnet50().values():
        turned = (shape[-1], -1) if len(shape) > 1 else shape
        x = torch.nn.Parameter((0.05 * torch.randn(shape)).reshape(turned))
        x.grad = 1e-3 * torch.randn_like(x)
        (matrices if len(shape) > 1 else vectors).append(x)
    return matrices, vectors


def main() -> None:
    """Prints the rows and the version of torch, in JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    version = importlib.metadata.version("torch")
    rows = measured(args.turns, args.steps)
    print(json.dumps({"torch": version, "rows": rows}))


if __name__ == "__main__":
    main()
