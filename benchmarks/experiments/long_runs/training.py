"""Training in stretches, each of which begins from a checkpoint."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import psi_optax
from benchmarks import data, training
from benchmarks.experiments.noisy_data import flip_labels
from benchmarks.experiments.precision.modes import MODES
from benchmarks.training import Build
from psi_optax.models import linen

COPIES, NOISE = 50, 0.3
"""Copies of each image, and the share of wrong labels among them."""


DEAD = 1e-6
"""A norm, over the first, below which a group is dead.

Weight decay brings a filter there that no gradient reaches, as behind a ReLU
whose inputs are all negative.
"""


class Stretch(NamedTuple):
    """Values of a stretch of steps.

    Attributes:
        rotation: root mean square over steps and groups, in radians a step.
        loss: mean over steps.
        norm: median over groups of the last norms over the first.
        deviation: largest relative distance of a norm from its first.
        dead: number of groups whose last norm is below `DEAD` of the first.
            Their rotation is not counted.
    """

    rotation: jax.Array
    loss: jax.Array
    norm: jax.Array
    deviation: jax.Array
    dead: jax.Array


class Runs:
    """Training of one network at a constant learning rate.

    Args:
        widths: of the hidden layers.
        batch_size: examples in a batch.
        steps: in a stretch.
        seeds: number of runs, which are trained at once.
    """

    def __init__(
        self, widths: tuple[int, ...], batch_size: int, steps: int, seeds: int
    ):
        digits = data.load("digits")
        self.evaluated = digits
        # The network can't remember so many wrong labels: its gradients do not
        # vanish.
        images = np.tile(digits.train_images, (COPIES, 1, 1, 1))
        labels = np.tile(digits.train_labels, COPIES)
        labels = flip_labels(labels, NOISE, digits.num_classes)
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels)
        self.shape, self.seeds = (steps, batch_size), seeds
        self.model = linen.MLP(widths, digits.num_classes, momentum=0.9)
        self.groups = training.kernel_groups(self.model, images).groups

    def run(
        self,
        build: Build,
        mode: str,
        point: tuple[float, float],
        stretches: int,
        seed: int = 0,
        restart: Callable[[Any], Any] | None = None,
    ) -> Iterator[tuple[Stretch, jax.Array]]:
        """Yield the values of each stretch and the test accuracy, by seed.

        Args:
            build: makes the optimizer of a rate, a decay and groups.
            mode: the dtype of weights, with a wrapper.
            point: the rate and the decay.
            stretches: their number.
            seed: the first one.
            restart: returns variables and state as read from a checkpoint;
                None to write one, and read it.
        """
        restart = restart or _through_a_checkpoint
        seeds = range(seed, seed + self.seeds)
        dtype, wrap = MODES[mode]
        tx = wrap(build(rate=point[0], decay=point[1], groups=self.groups))
        evaluate = training.make_evaluate(self.model, self.evaluated)
        example = self.evaluated.train_images
        variables = training.initialize(self.model, example, seeds)
        params = jax.tree.map(
            lambda x: x.astype(dtype), variables.pop("params")
        )
        first = jax.vmap(self._norms)(params)
        carry = {"params": params, **variables}, jax.vmap(tx.init)(params)
        advance = jax.jit(jax.vmap(self._advance(tx), (None, None, 0, 0, 0)))
        for index in range(stretches):
            batches = np.stack([self._batches(x, index) for x in seeds])
            arrays = self.images, self.labels
            carry, seen = advance(*arrays, carry, first, batches)
            yield seen, evaluate(carry[0])[0]
            carry = restart(carry)

    def _batches(self, seed: int, index: int) -> np.ndarray:
        random = np.random.RandomState([seed, index])
        return random.randint(len(self.labels), size=self.shape)

    def _norms(self, params: Any) -> jax.Array:
        """Return the norms of all groups in float32, as a vector."""
        wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
        return _vector(psi_optax.group_norms(wide, self.groups))

    def _advance(self, tx: Any) -> Callable:
        """Return the training of a stretch from one seed, not compiled."""

        def advance(images, labels, carry, first, batches):
            def look(before, after, gradients, loss):
                del gradients
                angles = psi_optax.rotation(before, after, self.groups)
                ratio = self._norms(after) / first
                alive = ratio > DEAD
                squares = jnp.square(_vector(angles))
                square = jnp.where(alive, squares, 0).sum() / alive.sum()
                return square, loss, ratio

            step = training.make_step(self.model, tx, images, labels, look)
            carry, (squares, losses, ratios) = jax.lax.scan(
                step, carry, batches
            )
            return carry, Stretch(
                jnp.sqrt(squares.mean()),
                losses.mean(),
                jnp.median(ratios[-1]),
                jnp.abs(ratios - 1).max(),
                (ratios[-1] <= DEAD).sum(),
            )

        return advance


def _vector(tree: Any) -> jax.Array:
    return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])


def _through_a_checkpoint(carry: Any) -> Any:
    """Write variables and state to a file, and return what is read from it."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "checkpoint"
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, carry)
            checkpointer.wait_until_finished()
            return checkpointer.restore(path, carry)
