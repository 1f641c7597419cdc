"""Train a ResNet in Flax NNX: L2 in the loss, a one-cycle schedule."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

STEPS = 50
BATCH_SIZE = 128
PEAK_LR = 0.1
L2 = 1e-4


class Block(nnx.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs, filters, stride, rngs):
        self.conv1 = nnx.Conv(
            inputs, filters, (3, 3), stride, use_bias=False, rngs=rngs
        )
        self.bn1 = nnx.BatchNorm(filters, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(
            filters, filters, (3, 3), use_bias=False, rngs=rngs
        )
        self.bn2 = nnx.BatchNorm(filters, momentum=0.9, rngs=rngs)
        self.proj = nnx.Conv(
            inputs, filters, (1, 1), stride, use_bias=False, rngs=rngs
        )
        self.bn3 = nnx.BatchNorm(filters, momentum=0.9, rngs=rngs)

    def __call__(self, x, training):
        y = nnx.relu(self.bn1(self.conv1(x), not training))
        y = self.bn2(self.conv2(y), not training)
        return nnx.relu(y + self.bn3(self.proj(x), not training))


class ResNet(nnx.Module):
    """A stem, two blocks and a linear head."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(1, 8, (3, 3), use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.block1 = Block(8, 8, 1, rngs)
        self.block2 = Block(8, 16, 2, rngs)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x, training):
        x = nnx.relu(self.bn(self.stem(x), not training))
        x = self.block2(self.block1(x, training), training)
        return self.head(x.mean((1, 2)))


def loss_fn(model, batch, training):
    """Return the loss with its penalty, and the accuracy."""
    logits = model(batch["image"], training)
    loss = optax.softmax_cross_entropy_with_integer_labels(
        logits, batch["label"]
    ).mean()
    params = nnx.state(model, nnx.Param)
    penalty = sum(jnp.sum(optax.l2_loss(p)) for p in jax.tree.leaves(params))
    accuracy = jnp.mean(logits.argmax(-1) == batch["label"])
    return loss + L2 * penalty, accuracy


@nnx.jit
def train_step(model, optimizer, batch):
    """Take a step; return the loss."""
    grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
    (loss, _), grads = grad_fn(model, batch, True)
    optimizer.update(model, grads)
    return loss


def main(steps=STEPS):
    """Train on images of digits; return the losses."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
    key = jax.random.key(0)
    order = jax.random.randint(key, (steps, BATCH_SIZE), 0, len(labels))
    batches = [{"image": images[i], "label": labels[i]} for i in order]

    model = ResNet(nnx.Rngs(0))
    schedule = optax.linear_onecycle_schedule(steps, PEAK_LR)
    tx = optax.sgd(schedule, momentum=0.9)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return [train_step(model, optimizer, batch).item() for batch in batches]


if __name__ == "__main__":
    print(main())
