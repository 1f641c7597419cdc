"""Follows a torch optimizer through the problem."""

import json

import numpy as np
import torch

from tests.oracles import problem

# Some of the peers make their states in the default dtype.
torch.set_default_dtype(torch.float64)


def follow(optimizer, start, gradient, settings, wrap=torch.nn.Parameter):
    """What one optimizer does: the arrays of a trajectory.

    Args:
        optimizer: a class of torch's kind.
        start: the first weights, a numpy array.
        gradient: one of the gradients in `problem`.
        settings: the keyword arguments of the optimizer.
        wrap: makes a parameter from a tensor.
    """
    parameter = wrap(torch.from_numpy(start.copy()))
    instance = optimizer([parameter], **settings)
    gradients, params = [], []
    for step in range(problem.STEPS):
        gradients.append(gradient(step, parameter.detach().numpy()))
        parameter.grad = torch.from_numpy(gradients[-1].copy())
        instance.step()
        params.append(parameter.detach().numpy().copy())
    return {
        "start": start,
        "gradients": np.stack(gradients),
        "params": np.stack(params),
        "settings": json.dumps(settings),
    }
