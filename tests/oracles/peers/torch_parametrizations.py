"""torch's parametrizations, and standardized weights by torch's functions.

Kernels are (out, in, height, width). The loss is a sum that a cotangent weighs,
which is the gradient with respect to the kernel that a convolution would have.
"""

import numpy as np
import torch
from torch.nn.functional import batch_norm, layer_norm
from torch.nn.utils import parametrizations

DISTRIBUTIONS = ("torch", "numpy")

SHAPE = 5, 3, 3, 3
SIZE = 27
EPSILON = 1e-6
GAIN = 1.7


def cases():
    """Yields (file name, arrays)."""
    random = np.random.RandomState(0)
    weight, cotangent = random.normal(size=(2, *SHAPE))
    gains = random.uniform(0.5, 2.0, size=SHAPE[0])
    yield (
        "torch_parametrizations",
        {
            "weight": weight,
            "cotangent": cotangent,
            "gains": gains,
            **_weight_norm(weight, cotangent, gains),
            **_standardized(weight, cotangent),
            "spectral_norm": _spectral_norm(weight),
        },
    )


def _convolution(weight):
    layer = torch.nn.Conv2d(3, 5, 3, bias=False).double()
    layer.weight.data = torch.tensor(weight)
    return layer


def _weight_norm(weight, cotangent, gains):
    layer = parametrizations.weight_norm(_convolution(weight))
    gain, direction = layer.parametrizations.weight.parameters()
    gain.data = torch.tensor(gains).reshape(-1, 1, 1, 1)
    (layer.weight * torch.tensor(cotangent)).sum().backward()
    return {
        "weight_norm": layer.weight.detach().numpy(),
        "weight_norm_of_gains": gain.grad.numpy().reshape(-1),
        "weight_norm_of_weight": direction.grad.numpy(),
    }


def _standardized(weight, cotangent):
    """Yields four published forms, and the gradient of the first."""
    w = torch.tensor(weight, requires_grad=True)
    rest = w - w.mean((1, 2, 3), keepdim=True)
    deviation = w.reshape(5, -1).std(1).reshape(5, 1, 1, 1)
    exact = rest / deviation
    (exact * torch.tensor(cotangent)).sum().backward()
    flat = w.detach().reshape(1, 5, -1)
    spread, mean = torch.std_mean(w, (1, 2, 3), unbiased=False, keepdim=True)
    return {
        "standardized": exact.detach().numpy(),
        "standardized_of_weight": w.grad.numpy(),
        "standardized_beside": (rest / (deviation + 1e-5)).detach().numpy(),
        "standardized_batch_norm": batch_norm(
            flat, None, None, training=True, momentum=0.0, eps=EPSILON
        )
        .reshape(SHAPE)
        .numpy(),
        "standardized_layer_norm": layer_norm(
            w.detach(), SHAPE[1:], eps=EPSILON
        ).numpy(),
        "standardized_scaled": (GAIN * SIZE**-0.5 * (w - mean) / spread)
        .detach()
        .numpy(),
    }


def _spectral_norm(weight):
    torch.manual_seed(0)
    layer = parametrizations.spectral_norm(
        _convolution(weight), n_power_iterations=100
    )
    return layer.weight.detach().numpy()
