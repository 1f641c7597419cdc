"""Train a CNN in Haiku with BatchNorm: parameters and state apart."""

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from psi_optax import find_groups, psi

STEPS = 50
BATCH_SIZE = 128
LEARNING_RATE = 0.1


def forward(images, is_training):
    """Return the logits."""
    x = images
    for channels, stride in ((8, 1), (16, 2), (16, 1)):
        x = hk.Conv2D(channels, 3, stride, with_bias=False)(x)
        x = hk.BatchNorm(True, True, decay_rate=0.9)(x, is_training)
        x = jax.nn.relu(x)
    return hk.Linear(10)(x.mean((1, 2)))


network = hk.without_apply_rng(hk.transform_with_state(forward))


def lr_schedule(step):
    """Warm up for 5 steps, then divide by ten at two thirds."""
    rate = jnp.where(step < 2 * STEPS // 3, 1.0, 0.1) * LEARNING_RATE
    return rate * jnp.minimum(1.0, (step + 1) / 5)


def loss_fn(params, state, batch):
    """Return the loss, and the new state of the network."""
    logits, state = network.apply(params, state, batch["image"], True)
    loss = optax.softmax_cross_entropy_with_integer_labels(
        logits, batch["label"]
    ).mean()
    return loss, state


def main(steps=STEPS):
    """Train on images of digits; return the losses."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
    key = jax.random.key(0)
    order = jax.random.randint(key, (steps, BATCH_SIZE), 0, len(labels))
    batches = [{"image": images[i], "label": labels[i]} for i in order]

    params, state = network.init(key, batches[0]["image"], True)
    optimizer = optax.chain(
        optax.trace(decay=0.9, nesterov=True),
        optax.scale_by_schedule(lr_schedule),
        optax.scale(-1),
    )
    report = find_groups(loss_fn, params, state, batches[0], has_aux=True)
    # Filters have norms near 1, at which the learning rate stays as it is.
    optimizer = psi(optimizer, report)
    opt_state = optimizer.init(params)

    @jax.jit
    def train_step(params, state, opt_state, batch):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, state), grads = grad_fn(params, state, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return params, state, opt_state, loss

    losses = []
    for batch in batches:
        params, state, opt_state, loss = train_step(
            params, state, opt_state, batch
        )
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())
