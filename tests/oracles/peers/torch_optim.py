"""torch's own SGD and AdamW."""

import torch

from tests.oracles import problem
from tests.oracles.peers.following import follow

DISTRIBUTIONS = ("torch", "numpy")

MOMENTUM = {"lr": 0.05, "momentum": 0.9}
CASES = {
    "torch_sgd": (torch.optim.SGD, {"lr": 0.05}),
    "torch_sgd_momentum": (torch.optim.SGD, MOMENTUM),
    "torch_sgd_nesterov_decay": (
        torch.optim.SGD,
        {**MOMENTUM, "nesterov": True, "weight_decay": 0.1},
    ),
    "torch_adamw": (
        torch.optim.AdamW,
        {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1},
    ),
}


def cases():
    """Yields (file name, arrays)."""
    for name, (optimizer, settings) in CASES.items():
        yield (
            name,
            follow(optimizer, problem.start(), problem.ordinary, settings),
        )
