"""What the frozen optimizers do, in plain numpy.

A rule is a generator: from the first weights and the gradients seen, the
weights after every step. Its keywords are the peer's own. Weights are rows, one
filter each. What is the fault of one peer alone is a switch, off by default.
"""

import math

import numpy as np

TINY = 1e-8  # The default epsilon of every peer.


def sgd(w, gradients, *, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """torch's: the decay is added to the gradient."""
    buffer = 0.0
    for g in gradients:
        g = g + weight_decay * w
        buffer = momentum * buffer + g
        w = w - lr * (g + momentum * buffer if nesterov else buffer)
        yield w


def adamw(w, gradients, *, lr, betas, eps, weight_decay):
    """torch's: the decay is decoupled."""
    for step in adam_steps(gradients, betas, eps):
        w = w - lr * (step + weight_decay * w)
        yield w


def sgdp(
    w,
    gradients,
    *,
    lr,
    momentum,
    nesterov=False,
    weight_decay=0.0,
    projects_buffer=False,
):
    """SGD whose step is projected where the gradient is orthogonal to w.

    With `projects_buffer` the projection happens in the buffer's own memory,
    as in adamp without Nesterov.
    """
    buffer = 0.0
    for g in gradients:
        buffer = momentum * buffer + g
        step = g + momentum * buffer if nesterov else buffer
        step, ratio = project_step(w, g, step)
        buffer = step if projects_buffer else buffer
        decay = lr * weight_decay * ratio / (1 - momentum)
        w = (1 - decay) * w - lr * step
        yield w


def adamp(w, gradients, *, lr, betas, eps, weight_decay=0.0):
    """Adam whose step is projected where the gradient is orthogonal to w."""
    for g, step in zip(
        gradients, adam_steps(gradients, betas, eps), strict=True
    ):
        step, ratio = project_step(w, g, step)
        w = (1 - lr * weight_decay * ratio) * w - lr * step
        yield w


def riemannian_sgd(
    w, gradients, *, lr, momentum=0.0, exact=False, starts_euclidean=False
):
    """Gradient descent on the sphere, the momentum transported by projection.

    With `starts_euclidean` the buffer starts, before its first step, at the
    first gradient with its radial part, as in geoopt with momentum.
    """
    buffer = gradients[0] if starts_euclidean else 0.0
    for g in gradients:
        buffer = momentum * buffer + tangent(w, g)
        w = exponential(w, -lr * buffer) if exact else unit(w - lr * buffer)
        buffer = tangent(w, buffer)
        yield w


def riemannian_adam(w, gradients, *, lr, betas, eps):
    """geoopt's: one second moment a filter, transport by projection."""
    m, v = 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        g = tangent(w, g)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * dot(g, g)
        length = np.sqrt(v / (1 - betas[1] ** t)) + eps
        w = unit(w - lr * m / (1 - betas[0] ** t) / length)
        m = tangent(w, m)
        yield w


def oblique_sgd(w, gradients, *, lr, momentum):
    """Euclidean momentum, its tangent part taken at every step."""
    buffer = 0.0
    for g in gradients:
        buffer = momentum * buffer + g
        w = unit(w - lr * tangent(w, buffer))
        yield w


def oblique_adam(w, gradients, *, lr, betas, eps, roots_correction=True):
    """Adam's step, its tangent part taken.

    Without `roots_correction` the root of the second moment is divided by
    1 - b^t, not by its root, as in Emerging-Optimizers 0.3.0.
    """
    for step in adam_steps(gradients, betas, eps, roots_correction):
        w = unit(w - lr * tangent(w, step))
        yield w


def sgd_g(w, gradients, *, lr, momentum, grad_clip=math.inf, eps=TINY):
    """Exponential map, and parallel transport of the momentum along its step.

    The epsilon is added to a norm that is divided by, as in the port of Cho and
    Lee's code; it is 0 in the paper.
    """
    buffer = 0.0
    for g in gradients:
        w = unit(w, eps)
        h = clip(tangent(w, g), grad_clip)
        buffer = momentum * buffer - lr * h
        direction, angle = unit(buffer, eps), norm(buffer)
        moved = w * np.cos(angle) + direction * np.sin(angle)
        buffer = (direction * np.cos(angle) - w * np.sin(angle)) * angle
        w = moved
        yield w


def adam_g(
    w,
    gradients,
    *,
    lr,
    momentum,
    beta2=0.99,
    epsilon=TINY,
    grad_clip=math.inf,
    eps=TINY,
):
    """One second moment a filter, and parallel transport of the first.

    `epsilon` stands under the root; `eps` as in `sgd_g`.
    """
    m, v = 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        w = unit(w, eps)
        h = clip(tangent(w, g), grad_clip)
        m = momentum * m + (1 - momentum) * h
        v = beta2 * v + (1 - beta2) * dot(h, h)
        rate = lr * np.sqrt(1 - beta2**t) / (1 - momentum**t)
        step = -rate * m / np.sqrt(v + epsilon)
        direction, angle = unit(step, eps), norm(step)
        turn = np.sin(angle) * w + (1 - np.cos(angle)) * direction
        m = m - dot(direction, m) * turn
        w = w * np.cos(angle) + direction * np.sin(angle)
        yield w


def rotational(w, gradients, *, inner_type, lr, weight_decay, **settings):
    """Kosson et al.: rotates every filter by a given angle in RMS.

    The radius is that of the start. With `zero_mean` weights and steps are
    centered, which the peer does to the start as well.
    """
    zero_mean, decay = settings["zero_mean"], 0.9
    if inner_type == "sgdm":
        beta = settings["momentum"]
        steps, share = trace(gradients, beta), 1 / (1 + beta)
    else:
        beta = settings["betas"][0]
        steps = adam_steps(gradients, settings["betas"], settings["eps"])
        share = (1 - beta) / (1 + beta)
    rate = math.sqrt(2 * lr * weight_decay * share)
    radius, mean_square = norm(w), 0.0
    for t, step in enumerate(steps, start=1):
        step = step - w * dot(step, w) / radius**2
        if zero_mean:
            step = step - step.mean(axis=1, keepdims=True)
        mean_square = decay * mean_square + (1 - decay) * dot(step, step)
        rms = np.sqrt(mean_square / (1 - decay**t))
        w = radius * unit(w - rate * radius * step / (rms + TINY))
        yield w


def adam_steps(gradients, betas, eps, roots_correction=True):
    """Adam's directions, without the learning rate."""
    m, v = 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        correction = 1 - betas[1] ** t
        if roots_correction:
            correction = math.sqrt(correction)
        yield m / (1 - betas[0] ** t) / (np.sqrt(v) / correction + eps)


def trace(gradients, momentum):
    """The momentum buffers."""
    buffer = 0.0
    for g in gradients:
        buffer = momentum * buffer + g
        yield buffer


def project_step(w, g, step, ratio=0.1):
    """The step of SGDP and AdamP, and what the decay is multiplied by."""
    view = firing_view(w, g)
    if view == "neither":
        return step, 1.0
    shape = w.shape if view == "channel" else (1, w.size)
    v, rows = unit(w.reshape(shape), TINY), step.reshape(shape)
    return (rows - v * dot(v, rows)).reshape(w.shape), ratio


def firing_view(w, g, delta=0.1):
    """The first view in which no row of the gradient has a radial part."""
    for view, shape in {"channel": w.shape, "layer": (1, w.size)}.items():
        a, b = w.reshape(shape), g.reshape(shape)
        cosine = np.abs(dot(a, b) / (norm(a) * norm(b)))
        if cosine.max() < delta / math.sqrt(shape[1]):
            return view
    return "neither"


def exponential(w, step):
    """The great circle from w along the step."""
    angle = norm(step)
    return w * np.cos(angle) + step * np.sin(angle) / angle


def tangent(w, u):
    """The tangent part at w, which is on the unit sphere."""
    return u - w * dot(w, u)


def clip(u, longest):
    """Shortens what is longer."""
    return u * np.minimum(1, longest / norm(u))


def unit(w, eps=0.0):
    """Rows of length one, or a little less."""
    return w / (norm(w) + eps)


def norm(w):
    """One a row."""
    return np.linalg.norm(w, axis=1, keepdims=True)


def dot(a, b):
    """One a row."""
    return np.sum(a * b, axis=1, keepdims=True)
