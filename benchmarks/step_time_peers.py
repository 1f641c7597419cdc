"""What a step of torch's optimizers costs, on the same parameters.

    build/oracles/venv/bin/python -m benchmarks.step_time_peers
    python -m benchmarks.step_time_peers --set gpt_1_3b --device cuda

`benchmarks.step_time --peers` runs this in the environments that `make oracles`
makes, which have torch and no JAX, and reads what it prints: rows in JSON. As
there, cases run in turns and ratios are formed turn by turn, here to torch's
own fused SGD and AdamW, and w + 0.01 g in place says how many bytes a step is
worth. Kernels come as (out, fan_in) matrices, which some of these libraries
demand; vectors are left to the baseline, and their cost is counted. The
libraries are timed on ResNet-50, and torch's own optimizers on every set.
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

from benchmarks import peers
from benchmarks.harness.files import one_message
from benchmarks.options import at_least, one_of
from benchmarks.step_time_sets import SETS, ParameterSet
from benchmarks.step_time_turns import Run, quartiles, time_in_turns

SGD, ADAMW = "torch SGD(momentum, fused)", "torch AdamW(fused)"

AXPY = "w.add_(g, alpha=0.01)"

Make = Callable[..., list]
"""From matrices and vectors to the optimizers of both."""


def cases(torch: Any, libraries: bool = True) -> dict[str, Make]:
    """What makes optimizers, by their names.

    Args:
        torch: the module.
        libraries: whether to look for more than torch's own fused ones.
    """

    def sgd(params):
        return torch.optim.SGD(params, 0.01, 0.9, fused=True)

    def adamw(params):
        return torch.optim.AdamW(params, 1e-3, fused=True)

    fused = {SGD: _beside(sgd, sgd), ADAMW: _beside(adamw, adamw)}
    if not libraries:
        return fused
    return {
        **fused,
        "torch SGD(momentum)": _beside(
            lambda p: torch.optim.SGD(p, 0.01, 0.9, foreach=False), sgd
        ),
        "torch AdamW": _beside(
            lambda p: torch.optim.AdamW(p, 1e-3, foreach=False), adamw
        ),
        **_found(sgd, adamw),
        **_geoopt(sgd, adamw),
    }


def _beside(make: Callable, rest: Callable) -> Make:
    """Torch's optimizers refuse to be made for nothing."""

    def made(matrices, vectors):
        parts = (make, matrices), (rest, vectors)
        return [one(params) for one, params in parts if params]

    return made


def _found(sgd: Callable, adamw: Callable) -> dict[str, Make]:
    """Those that can be imported here and need nothing but options."""
    descent = {"lr": 0.01, "momentum": 0.9}
    # By default HeavyBall drops the gradients behind each step.
    heavy = {"lr": 1e-3, "consume_grad": False}
    found = {}
    for module, kind, rest, options in [
        ("timm.optim.sgdp", "SGDP", sgd, descent),
        ("timm.optim.adamp", "AdamP", adamw, {"lr": 1e-3}),
        ("adamp", "SGDP", sgd, descent),
        ("adamp", "AdamP", adamw, {"lr": 1e-3}),
        ("pytorch_optimizer", "SGDP", sgd, descent),
        ("pytorch_optimizer", "LARS", sgd, {"lr": 0.01}),
        ("heavyball", "SGD", sgd, heavy),
        ("heavyball", "AdamW", adamw, heavy),
        ("heavyball", "HyperBallAdamW", adamw, heavy),
        (
            "emerging_optimizers.riemannian_optimizers",
            "ObliqueSGD",
            sgd,
            {**descent, "dim": 1},
        ),
    ]:
        loaded = _load(module)
        if loaded is not None:
            make = functools.partial(getattr(loaded, kind), **options)
            found[f"{module.partition('.')[0]} {kind}"] = _beside(make, rest)
    return found


def _geoopt(sgd: Callable, adamw: Callable) -> dict[str, Make]:
    """Those that need parameters which know their manifold."""
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
        return geoopt.optim.RiemannianSGD(points, 0.01, 0.9)

    def adam(params):
        return geoopt.optim.RiemannianAdam(list(map(point, params)), 1e-3)

    return {
        "geoopt RiemannianSGD": _beside(descent, sgd),
        "geoopt RiemannianAdam": _beside(adam, adamw),
    }


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


def measured(
    torch: Any, chosen: ParameterSet, device: str, turns: int, steps: int
) -> list[dict[str, Any]]:
    """A row for every optimizer that can be imported here.

    Args:
        torch: the module.
        chosen: the set of parameters.
        device: "cpu" or "cuda".
        turns: how often each has its turn.
        steps: how many steps a turn has at most.
    """
    torch.manual_seed(0)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    shared = _tensors(torch, chosen, device)
    runs = {AXPY: _axpy(shared, wait)}
    for name, make in cases(torch, chosen.family).items():
        runs[name] = _run(make(*_parameters(torch, shared)), wait)
    seconds = time_in_turns(runs, turns, steps)
    width = shared[0][0].element_size()
    rows = []
    for name in [name for name in runs if name != AXPY]:
        own, base = seconds[name], baseline(name)
        low, middle, high = quartiles(own, seconds[base])
        _, lengths, _ = quartiles(own, seconds[AXPY])
        rows.append(
            {
                "optimizer": name,
                "baseline": base,
                "ratio": middle,
                "quartiles": [low, high],
                "milliseconds": 1e3 * statistics.median(own),
                "bytes_per_weight": 3 * width * lengths,
            }
        )
    return rows


def _run(optimizers: list, wait: Callable[[], None]) -> Run:
    def run(steps: int) -> None:
        for _ in range(steps):
            for optimizer in optimizers:
                optimizer.step()
        wait()

    return run


def _axpy(shared: list[tuple], wait: Callable[[], None]) -> Run:
    """The yardstick, on weights of its own."""
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
    """Weights and gradients; of kernels, matrices with a row a filter."""
    options = {"dtype": getattr(torch, chosen.dtype), "device": device}
    found = []
    for shape in chosen.shapes.values():
        turned = (shape[-1], -1) if len(shape) > 1 else shape
        w = (0.05 * torch.randn(shape, **options)).reshape(turned)
        found.append((w, 1e-3 * torch.randn_like(w)))
    return found


def _parameters(torch: Any, shared: list[tuple]) -> tuple[list, list]:
    """Matrices and vectors, on copies of the weights, with their gradients."""
    matrices, vectors = [], []
    for w, gradient in shared:
        x = torch.nn.Parameter(w.clone())
        x.grad = gradient
        (matrices if x.ndim > 1 else vectors).append(x)
    return matrices, vectors


@one_message()
def main(argv: list[str] | None = None) -> None:
    """Prints the rows, the version of torch and the device, in JSON."""
    torch = peers.torch()
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--set", choices=SETS, type=one_of(SETS), default="resnet50")
    devices = ["cpu", "cuda"]
    add("--device", choices=devices, type=one_of(devices), default=usual)
    add("--turns", type=at_least(1), default=7)
    add("--steps", type=at_least(1), default=3)
    args = parser.parse_args(argv)
    chosen = SETS[args.set]
    rows = measured(torch, chosen, args.device, args.turns, args.steps)
    cuda = args.device == "cuda"
    found = {
        "torch": importlib.metadata.version("torch"),
        "device": torch.cuda.get_device_name() if cuda else "the CPU",
        "rows": rows,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
