"""Time of a step of torch's optimizers, on the same parameters.

`python -m benchmarks step_time --peers` runs this in the environments that
`make oracles` makes, which have torch and no JAX, and reads the rows that it
prints. Cases run in turns, and ratios are formed turn by turn, here to torch's
own fused SGD and AdamW. Kernels come as (out, fan_in) matrices, which some
libraries demand; vectors are left to the baseline, and their cost is counted.
The libraries are timed on ResNet-50, and torch's own optimizers on every set.
"""

import argparse
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import types
from collections.abc import Callable
from typing import Any

from benchmarks.harness import processes
from benchmarks.harness.files import one_message
from benchmarks.speed.sets import SETS, ParameterSet
from benchmarks.speed.turns import Run, quartiles, time_in_turns

SGD, ADAMW = "torch SGD(momentum, fused)", "torch AdamW(fused)"

AXPY = "w.add_(g, alpha=0.01)"

TURNS, STEPS = 7, 3

Make = Callable[..., list]
"""Makes the optimizers of matrices and vectors."""

_DESCENT, _ADAM = {"lr": 0.01, "momentum": 0.9}, {"lr": 1e-3}
# By default HeavyBall drops the gradients behind each step.
_HEAVY = {"lr": 1e-3, "consume_grad": False}
_RIEMANNIAN = "emerging_optimizers.riemannian_optimizers"

LIBRARIES = [
    ("timm.optim.sgdp", "SGDP", SGD, _DESCENT),
    ("timm.optim.adamp", "AdamP", ADAMW, _ADAM),
    ("adamp", "SGDP", SGD, _DESCENT),
    ("adamp", "AdamP", ADAMW, _ADAM),
    ("pytorch_optimizer", "SGDP", SGD, _DESCENT),
    ("pytorch_optimizer", "LARS", SGD, {"lr": 0.01}),
    ("heavyball", "SGD", SGD, _HEAVY),
    ("heavyball", "AdamW", ADAMW, _HEAVY),
    ("heavyball", "HyperBallAdamW", ADAMW, _HEAVY),
    (_RIEMANNIAN, "ObliqueSGD", SGD, {**_DESCENT, "dim": 1}),
]
"""Module, optimizer, the one of vectors, and options."""


def cases(torch: Any, libraries: bool = True) -> dict[str, Make]:
    """Return what makes optimizers; without libraries, torch's fused ones."""
    sgd, adamw = torch.optim.SGD, torch.optim.AdamW
    fused = {
        SGD: functools.partial(sgd, lr=0.01, momentum=0.9, fused=True),
        ADAMW: functools.partial(adamw, lr=1e-3, fused=True),
    }
    found = {name: _beside(make, make) for name, make in fused.items()}
    if not libraries:
        return found
    single = functools.partial(sgd, **_DESCENT, foreach=False)
    found["torch SGD(momentum)"] = _beside(single, fused[SGD])
    single = functools.partial(adamw, **_ADAM, foreach=False)
    found["torch AdamW"] = _beside(single, fused[ADAMW])
    for module, kind, rest, options in LIBRARIES:
        loaded = _load(module)
        if loaded is not None:
            make = functools.partial(getattr(loaded, kind), **options)
            name = f"{module.partition('.')[0]} {kind}"
            found[name] = _beside(make, fused[rest])
    return found | _geoopt(fused)


def _beside(make: Callable, rest: Callable) -> Make:
    """Leave out what there is nothing for, which torch's optimizers refuse."""

    def made(matrices, vectors):
        parts = (make, matrices), (rest, vectors)
        return [one(params) for one, params in parts if params]

    return made


def _geoopt(fused: dict[str, Callable]) -> dict[str, Make]:
    """Return those that need parameters which know their manifold."""
    geoopt = _load("geoopt")
    if geoopt is None:
        return {}
    sphere = geoopt.Sphere()

    def point(x):
        found = geoopt.ManifoldParameter(x.detach(), manifold=sphere)
        found.grad = x.grad
        return found

    def descent(params):
        points = list(map(point, params))
        return geoopt.optim.RiemannianSGD(points, **_DESCENT)

    def adam(params):
        return geoopt.optim.RiemannianAdam(list(map(point, params)), **_ADAM)

    return {
        "geoopt RiemannianSGD": _beside(descent, fused[SGD]),
        "geoopt RiemannianAdam": _beside(adam, fused[ADAMW]),
    }


def _load(module: str) -> Any:
    """Import a module, or return None; one of timm's without the rest of it."""
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
    """Return the optimizer that a case is compared with."""
    return ADAMW if "Adam" in name else SGD


def measure(
    torch: Any, chosen: ParameterSet, device: str
) -> list[dict[str, Any]]:
    """Measure a row for every optimizer that can be imported here."""
    torch.manual_seed(0)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    shared = _tensors(torch, chosen, device)
    runs = {AXPY: _axpy(shared, wait)}
    for name, make in cases(torch, chosen.family).items():
        runs[name] = _run(make(*_parameters(torch, shared)), wait)
    seconds = time_in_turns(runs, TURNS, STEPS)
    moved = 3 * shared[0][0].element_size()
    return [_row(name, seconds, moved) for name in runs if name != AXPY]


def _row(name: str, seconds: dict[str, list[float]], moved: int) -> dict:
    own, base = seconds[name], baseline(name)
    low, middle, high = quartiles(own, seconds[base])
    return {
        "optimizer": name,
        "baseline": base,
        "ratio": middle,
        "quartiles": [low, high],
        "milliseconds": 1e3 * statistics.median(own),
        "bytes_per_weight": moved * quartiles(own, seconds[AXPY])[1],
    }


def _run(optimizers: list, wait: Callable[[], None]) -> Run:
    def run(steps: int) -> None:
        for _ in range(steps):
            for optimizer in optimizers:
                optimizer.step()
        wait()

    return run


def _axpy(shared: list[tuple], wait: Callable[[], None]) -> Run:
    """Return the yardstick, on weights of its own."""
    weights = [w.clone() for w, _ in shared]

    def run(steps: int) -> None:
        for _ in range(steps):
            for w, (_, g) in zip(weights, shared, strict=True):
                w.add_(g, alpha=0.01)
        wait()

    return run


def _tensors(
    torch: Any, chosen: ParameterSet, device: str
) -> list[tuple[Any, Any]]:
    """Draw weights and gradients; of kernels, matrices of a row a filter."""
    options = {"dtype": getattr(torch, chosen.dtype), "device": device}
    found = []
    for shape in chosen.shapes.values():
        turned = (shape[-1], -1) if len(shape) > 1 else shape
        w = (0.05 * torch.randn(shape, **options)).reshape(turned)
        found.append((w, 1e-3 * torch.randn_like(w)))
    return found


def _parameters(torch: Any, shared: list[tuple]) -> tuple[list, list]:
    """Return matrices and vectors: copies of the weights, with gradients."""
    matrices, vectors = [], []
    for w, gradient in shared:
        x = torch.nn.Parameter(w.clone())
        x.grad = gradient
        (matrices if x.ndim > 1 else vectors).append(x)
    return matrices, vectors


@one_message()
def main(arguments: list[str]) -> None:
    """Print the rows, the version of torch and the device, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=SETS)
    chosen = SETS[parser.parse_args(arguments).set]
    torch = processes.torch()
    cuda = torch.cuda.is_available()
    found = {
        "torch": importlib.metadata.version("torch"),
        "device": torch.cuda.get_device_name() if cuda else "the CPU",
        "rows": measure(torch, chosen, "cuda" if cuda else "cpu"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
