"""SGDP and AdamP of their authors, of timm and of pytorch_optimizer."""

import importlib
import importlib.util
import itertools
import pathlib
import sys
import types

import adamp
import pytorch_optimizer

from tests.oracles import problem
from tests.oracles.peers.following import follow

DISTRIBUTIONS = ("adamp", "pytorch_optimizer", "timm", "torch", "numpy")

# By which view of the weights finds the gradient orthogonal to them.
SCENARIOS = {
    "channel": problem.per_filter,
    "layer": problem.per_layer,
    "neither": problem.ordinary,
}
SGDP = {"lr": 0.05, "momentum": 0.9}
NESTEROV = {**SGDP, "nesterov": True}
ADAMP = {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-8}
DECAY = {"weight_decay": 0.1}


def cases():
    """Yields (file name, arrays)."""
    sgdp, adamp_ = _timm("sgdp").SGDP, _timm("adamp").AdamP
    for (scenario, gradient), decay in itertools.product(
        SCENARIOS.items(), ({}, DECAY)
    ):
        end = f"{scenario}_decay" if decay else scenario
        for name, optimizer, settings in (
            (f"timm_sgdp_{end}", sgdp, SGDP),
            (f"timm_sgdp_nesterov_{end}", sgdp, NESTEROV),
            (f"timm_adamp_{end}", adamp_, ADAMP),
        ):
            yield name, _follow(optimizer, gradient, {**settings, **decay})
    for name, optimizer, settings in (
        ("adamp_sgdp", adamp.SGDP, SGDP),
        ("adamp_sgdp_nesterov", adamp.SGDP, NESTEROV),
        ("adamp_adamp", adamp.AdamP, ADAMP),
        ("pytorch_optimizer_sgdp", pytorch_optimizer.SGDP, SGDP),
    ):
        yield (
            name,
            _follow(optimizer, problem.per_filter, {**settings, **DECAY}),
        )


def _follow(optimizer, gradient, settings):
    return follow(optimizer, problem.start(), gradient, settings)


def _timm(module):
    """A module of timm.optim by its path: `import timm` needs torchvision."""
    spec = importlib.util.find_spec("timm")
    package = types.ModuleType("timm_optim")
    package.__path__ = [str(pathlib.Path(spec.origin).parent / "optim")]
    sys.modules.setdefault("timm_optim", package)
    return importlib.import_module(f"timm_optim.{module}")
