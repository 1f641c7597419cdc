"""Train a CNN in Flax NNX with BatchNorm and dropout: keys passed as rngs."""

import jax
import optax
from flax import nnx
from sklearn.datasets import load_digits

STEPS = 50
BATCH_SIZE = 128
LEARNING_RATE = 0.01


class CNN(nnx.Module):
    """Two convolutions and two linear layers."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.norm1 = nnx.BatchNorm(16, rngs=rngs)
        self.dropout1 = nnx.Dropout(0.05)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.norm2 = nnx.BatchNorm(32, rngs=rngs)
        self.linear1 = nnx.Linear(128, 32, rngs=rngs)
        self.dropout2 = nnx.Dropout(0.1)
        self.linear2 = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x, rngs):
        x = self.norm1(self.dropout1(self.conv1(x), rngs=rngs))
        x = nnx.avg_pool(nnx.relu(x), (2, 2), (2, 2))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.avg_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        x = nnx.relu(self.dropout2(self.linear1(x), rngs=rngs))
        return self.linear2(x)


def loss_fn(model, batch, rngs):
    """Return the loss, and the logits for metrics."""
    logits = model(batch["image"], rngs)
    loss = optax.softmax_cross_entropy_with_integer_labels(
        logits, batch["label"]
    ).mean()
    return loss, logits


@nnx.jit
def train_step(model, optimizer, metrics, batch, rngs):
    """Take a step, and record its loss and accuracy."""
    grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
    (loss, logits), grads = grad_fn(model, batch, rngs)
    metrics.update(loss=loss, logits=logits, labels=batch["label"])
    optimizer.update(model, grads)
    return loss


def main(steps=STEPS):
    """Train on images of digits; return the losses."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
    key = jax.random.key(0)
    order = jax.random.randint(key, (steps, BATCH_SIZE), 0, len(labels))
    batches = [{"image": images[i], "label": labels[i]} for i in order]

    model = CNN(nnx.Rngs(0))
    rngs = nnx.Rngs(1)
    tx = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    metrics = nnx.MultiMetric(
        loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy()
    )
    losses = []
    model.train()
    for batch in batches:
        loss = train_step(model, optimizer, metrics, batch, rngs)
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())
