"""Train an Equinox model with state: BatchNorm and a spectral norm."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from psi_optax import find_groups, psi

STEPS = 50
BATCH_SIZE = 128
LEARNING_RATE = 0.01


class Model(eqx.Module):
    """Layers with and without state."""

    linear1: eqx.nn.Linear
    norm1: eqx.nn.BatchNorm
    spectral: eqx.nn.SpectralNorm[eqx.nn.Linear]
    norm2: eqx.nn.BatchNorm
    linear2: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.linear1 = eqx.nn.Linear(64, 32, use_bias=False, key=keys[0])
        self.norm1 = eqx.nn.BatchNorm(32, "batch", mode="batch")
        self.spectral = eqx.nn.SpectralNorm(
            eqx.nn.Linear(32, 32, key=keys[1]), "weight", key=keys[2]
        )
        self.norm2 = eqx.nn.BatchNorm(32, "batch", mode="batch")
        self.linear2 = eqx.nn.Linear(32, 10, key=keys[3])

    def __call__(self, x, state):
        x, state = self.norm1(self.linear1(x), state)
        x, state = self.spectral(jax.nn.relu(x), state)
        x, state = self.norm2(x, state)
        return self.linear2(jax.nn.relu(x)), state


def loss_fn(model, state, images, labels):
    """Return the loss, and the new state."""
    batched = jax.vmap(
        model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    logits, state = batched(images, state)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), state


def main(steps=STEPS):
    """Train on images of digits; return the losses."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    key = jax.random.key(0)
    order = jax.random.randint(key, (steps, BATCH_SIZE), 0, len(labels))
    batches = [(images[i], labels[i]) for i in order]

    model, state = eqx.nn.make_with_state(Model)(key)
    optim = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    report = find_groups(loss_fn, model, state, *batches[0], has_aux=True)
    # Most groups have norms near 1, at which the learning rate stays as it is.
    optim = psi(optim, report)
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def make_step(model, state, opt_state, images, labels):
        grad_fn = eqx.filter_value_and_grad(loss_fn, has_aux=True)
        (loss, state), grads = grad_fn(model, state, images, labels)
        updates, opt_state = optim.update(grads, opt_state, model)
        model = eqx.apply_updates(model, updates)
        return model, state, opt_state, loss

    losses = []
    for batch in batches:
        model, state, opt_state, loss = make_step(
            model, state, opt_state, *batch
        )
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())
