"""Train a GPT in Flax NNX: AdamW that decays matrices alone, by labels."""

import inspect

import jax
import jax.numpy as jnp
import optax
from flax import nnx

STEPS = 60
BATCH_SIZE = 32
CONTEXT = 32
LEARNING_RATE = 5e-3


class Block(nnx.Module):
    """Attention with normalized queries and keys, and a perceptron."""

    def __init__(self, width, rngs):
        self.norm1 = nnx.LayerNorm(width, use_bias=False, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=2,
            in_features=width,
            normalize_qk=True,
            use_bias=False,
            decode=False,
            rngs=rngs,
        )
        self.norm2 = nnx.LayerNorm(width, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, x, mask):
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class GPT(nnx.Module):
    """Two blocks, with embeddings that are shared with the head."""

    def __init__(self, vocabulary, rngs, width=32):
        self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
        self.positions = nnx.Embed(CONTEXT, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(width, use_bias=False, rngs=rngs)

    def __call__(self, tokens):
        x = self.tokens(tokens) + self.positions(jnp.arange(CONTEXT))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.tokens.attend(self.norm(x))


def loss_fn(model, batch):
    """Return the loss, and the logits."""
    inputs, targets = batch
    logits = model(inputs)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return loss.mean(), logits


@nnx.jit
def train_step(model, optimizer, batch):
    """Take a step; return the loss."""
    grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
    (loss, _), grads = grad_fn(model, batch)
    optimizer.update(model, grads)
    return loss


def decay_labels(params):
    """Label matrices, which decay, and vectors, which do not."""
    return jax.tree.map(lambda p: "decay" if p.ndim > 1 else "plain", params)


def main(steps=STEPS):
    """Train on the source of a module; return the losses."""
    text = inspect.getsource(inspect)
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    data = jnp.array([letters[letter] for letter in text])
    shape, limit = (steps, BATCH_SIZE, 1), len(data) - CONTEXT
    starts = jax.random.randint(jax.random.key(0), shape, 0, limit)
    places = starts + jnp.arange(CONTEXT)
    batches = [(data[i], data[i + 1]) for i in places]

    model = GPT(len(letters), nnx.Rngs(0))
    schedule = optax.warmup_cosine_decay_schedule(0, LEARNING_RATE, 6, steps)
    kinds = {
        "decay": optax.adamw(schedule, b2=0.95, weight_decay=0.1),
        "plain": optax.adam(schedule, b2=0.95),
    }
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.multi_transform(kinds, decay_labels),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return [train_step(model, optimizer, batch).item() for batch in batches]


if __name__ == "__main__":
    print(main())
