"""Train in Flax Linen on several devices: loss scaling, L2 in the loss."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import jax_utils, linen as nn
from flax.training import dynamic_scale, train_state
from sklearn.datasets import load_digits

STEPS = 50
BATCH_SIZE = 128
LEARNING_RATE = 0.1
WEIGHT_DECAY = 1e-3


class ResNet(nn.Module):
    """A stem, a residual block and a head, with synchronized statistics."""

    dtype: Any = jnp.float16

    @nn.compact
    def __call__(self, x, train=True):
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            dtype=self.dtype,
            axis_name="batch",
        )
        x = nn.relu(norm()(conv(8, (3, 3))(x)))
        y = nn.relu(norm()(conv(16, (3, 3), (2, 2))(x)))
        y = norm()(conv(16, (3, 3))(y))
        x = nn.relu(y + norm()(conv(16, (1, 1), (2, 2))(x)))
        x = nn.Dense(10, dtype=self.dtype, name="head")(x.mean((1, 2)))
        return jnp.asarray(x, jnp.float32)


class TrainState(train_state.TrainState):
    """A state with statistics and the scale of the loss."""

    batch_stats: Any
    dynamic_scale: dynamic_scale.DynamicScale


def cross_entropy_loss(logits, labels):
    """Return the mean over a device's images."""
    return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
    ).mean()


def create_train_state(key, schedule, images):
    """Return the initial state."""
    model = ResNet()
    variables = model.init(key, images, train=False)
    tx = optax.sgd(schedule, momentum=0.9, nesterov=True)
    return TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=tx,
        batch_stats=variables["batch_stats"],
        dynamic_scale=dynamic_scale.DynamicScale(),
    )


def train_step(state, images, labels):
    """Take a step on one device; return the state and the loss."""

    def loss_fn(params):
        logits, updated = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            mutable=["batch_stats"],
        )
        weights = [x for x in jax.tree.leaves(params) if x.ndim > 1]
        weight_l2 = sum(jnp.sum(x**2) for x in weights)
        loss = cross_entropy_loss(logits, labels)
        return loss + WEIGHT_DECAY * 0.5 * weight_l2, (updated, loss)

    grad_fn = state.dynamic_scale.value_and_grad(
        loss_fn, has_aux=True, axis_name="batch"
    )
    scale, is_finite, (_, (updated, loss)), grads = grad_fn(state.params)
    new = state.apply_gradients(grads=grads, batch_stats=updated["batch_stats"])
    keep = functools.partial(jnp.where, is_finite)
    new = new.replace(
        opt_state=jax.tree.map(keep, new.opt_state, state.opt_state),
        params=jax.tree.map(keep, new.params, state.params),
        dynamic_scale=scale,
    )
    return new, jax.lax.pmean(loss, "batch")


def main(steps=STEPS):
    """Train on images of digits; return the losses."""
    devices = jax.local_devices()[:2]
    shape = (steps, len(devices), BATCH_SIZE // len(devices))
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
    order = jax.random.randint(jax.random.key(0), shape, 0, len(labels))

    schedule = optax.warmup_cosine_decay_schedule(0, LEARNING_RATE, 5, steps)
    state = create_train_state(jax.random.key(1), schedule, images[:8])
    state = jax_utils.replicate(state, devices)
    step = jax.pmap(train_step, axis_name="batch", devices=devices)
    losses = []
    for i in order:
        state, loss = step(state, images[i], labels[i])
        losses.append(loss[0].item())
    return losses


if __name__ == "__main__":
    print(main())
