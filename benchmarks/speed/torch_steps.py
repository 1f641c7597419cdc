"""Time of a step of torch's optimizers, on the same parameters.

`python -m benchmarks step_time_torch` runs this in the environments that `make
oracles` makes, which have torch and no JAX. Kernels come as (out, fan_in)
matrices, which some libraries demand; vectors are left to the baseline, and
their cost is counted.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from benchmarks.harness import processes
from benchmarks.harness.files import one_message
from benchmarks.speed.sets import SETS, ParameterSet
from benchmarks.speed.turns import Run, compared, time_in_turns

SGD, ADAMW = "torch SGD(momentum, fused)", "torch AdamW(fused)"

TURNS, STEPS = 7, 3

Make = Callable[..., list]
"""Makes the optimizers of matrices and vectors."""

_DESCENT, _ADAM = {"lr": 0.01, "momentum": 0.9}, {"lr": 1e-3}
# By default HeavyBall drops the gradients behind each step.
_HEAVY = {"lr": 1e-3, "consume_grad": False}
_EMERGING = "emerging_optimizers.riemannian_optimizers"

LIBRARIES = [
    ("timm.optim.sgdp", "SGDP", _DESCENT),
    ("timm.optim.adamp", "AdamP", _ADAM),
    ("heavyball", "HyperBallAdamW", _HEAVY),
    (_EMERGING, "ObliqueSGD", {**_DESCENT, "dim": 1}),
    ("geoopt.optim", "RiemannianSGD", _DESCENT),
    ("geoopt.optim", "RiemannianAdam", _ADAM),
]
"""Module, optimizer and options."""


def cases(torch: Any) -> dict[str, Make]:
    """Return the makers of torch's fused optimizers and of the libraries'."""
    sgd = functools.partial(torch.optim.SGD, **_DESCENT, fused=True)
    adamw = functools.partial(torch.optim.AdamW, **_ADAM, fused=True)
    fused: dict[str, Callable] = {SGD: sgd, ADAMW: adamw}
    found = fused | _libraries()
    return {x: _beside(make, fused[baseline(x)]) for x, make in found.items()}


def _libraries() -> dict[str, Callable]:
    found = {}
    for module, kind, options in LIBRARIES:
        if loaded := load(module):
            name, make = module.partition(".")[0], getattr(loaded, kind)
            make = functools.partial(make, **options)
            made = _on_spheres(make) if name == "geoopt" else make
            found[f"{name} {kind}"] = made
    return found


def _beside(make: Callable, rest: Callable) -> Make:
    """Leave out what there is nothing for, which torch's optimizers refuse."""
    return lambda matrices, vectors: [
        one(params)
        for one, params in ((make, matrices), (rest, vectors))
        if params
    ]


def _on_spheres(make: Callable) -> Callable:
    """Give geoopt parameters that know their manifold."""
    geoopt = load("geoopt")

    def point(x):
        found = geoopt.ManifoldParameter(x.detach(), manifold=geoopt.Sphere())
        found.grad = x.grad
        return found

    return lambda params: make([point(x) for x in params])


def load(module: str) -> Any:
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


def measure(torch: Any, chosen: ParameterSet, device: str) -> list[dict]:
    """Measure a row for every optimizer that can be imported here."""
    torch.manual_seed(0)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    drawn, runs = _tensors(torch, chosen, device), {}
    for name, make in cases(torch).items():
        made = make(*_parameters(torch, drawn))
        runs[name] = _run([optimizer.step for optimizer in made], wait)
    times = time_in_turns(runs, TURNS, STEPS)
    return [compared(name, baseline(name), times) for name in runs]


def _run(parts: list[Callable[[], Any]], wait: Callable[[], None]) -> Run:
    """Return a function that takes steps of all these parts."""

    def run(steps: int) -> None:
        for part in steps * parts:
            part()
        wait()

    return run


def _tensors(torch: Any, chosen: ParameterSet, device: str) -> list[tuple]:
    """Draw weights and gradients; of kernels, matrices of a row a filter."""
    options = {"dtype": getattr(torch, chosen.dtype), "device": device}
    found = []
    for shape in chosen.shapes.values():
        turned = (shape[-1], -1) if len(shape) > 1 else shape
        w = (0.05 * torch.randn(shape, **options)).reshape(turned)
        found.append((w, 1e-3 * torch.randn_like(w)))
    return found


def _parameters(torch: Any, drawn: list[tuple]) -> tuple[list, list]:
    """Return matrices and vectors: copies of the weights, with gradients."""
    matrices, vectors = [], []
    for w, gradient in drawn:
        x = torch.nn.Parameter(w.clone())
        x.grad = gradient
        (matrices if x.ndim > 1 else vectors).append(x)
    return matrices, vectors


@one_message()
def main(name: str) -> None:
    """Print the rows of a set, the version of torch and the device, as JSON."""
    torch = processes.torch()
    cuda = torch.cuda.is_available()
    found = {
        "torch": importlib.metadata.version("torch"),
        "device": torch.cuda.get_device_name() if cuda else "the CPU",
        "rows": measure(torch, SETS[name], "cuda" if cuda else "cpu"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
