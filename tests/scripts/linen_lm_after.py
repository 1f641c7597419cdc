"""Train a character-level Transformer in Flax Linen, with dropout."""

import inspect

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from psi_optax import find_groups, psi_adam
from psi_optax.dynamics import convert_learning_rate

STEPS = 60
BATCH_SIZE = 32
CONTEXT = 32
LEARNING_RATE = 5e-3


class LanguageModel(nn.Module):
    """Two blocks of attention and a multilayer perceptron."""

    vocabulary: int
    width: int = 32
    dropout: float = 0.1

    @nn.compact
    def __call__(self, tokens, training):
        positions = nn.Embed(CONTEXT, self.width)(jnp.arange(tokens.shape[1]))
        x = nn.Embed(self.vocabulary, self.width)(tokens) + positions
        mask = nn.make_causal_mask(tokens)
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(
                num_heads=2,
                dropout_rate=self.dropout,
                deterministic=not training,
            )(nn.LayerNorm()(x), mask=mask)
            y = nn.relu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            y = nn.Dropout(self.dropout, deterministic=not training)(y)
            x = x + nn.Dense(self.width)(y)
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(x))


def main(steps=STEPS):
    """Train on the source of a module; return the losses."""
    text = inspect.getsource(inspect)
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    data = jnp.array([letters[letter] for letter in text])

    def get_batch(key):
        starts = jax.random.randint(
            key, (BATCH_SIZE, 1), 0, len(data) - CONTEXT
        )
        places = starts + jnp.arange(CONTEXT)
        return data[places], data[places + 1]

    model = LanguageModel(len(letters))

    def loss_fn(params, x, y, dropout_key):
        logits = model.apply(params, x, True, rngs={"dropout": dropout_key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    key, init_key = jax.random.split(jax.random.key(0))
    batch = get_batch(key)
    params = model.init(init_key, batch[0], False)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    opt = optax.adamw(schedule)
    report = find_groups(loss_fn, params, *batch, key)
    found = convert_learning_rate(schedule, params, report, optimizer="adam")
    opt = psi_adam(found.learning_rate, report, ordinary=opt)
    opt_state = opt.init(params)

    @jax.jit
    def train_step(params, opt_state, key):
        batch_key, dropout_key = jax.random.split(key)
        loss, grads = jax.value_and_grad(loss_fn)(
            params, *get_batch(batch_key), dropout_key
        )
        updates, opt_state = opt.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    losses = []
    for step_key in jax.random.split(key, steps):
        params, opt_state, loss = train_step(params, opt_state, step_key)
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())
