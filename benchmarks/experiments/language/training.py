"""Training of the language model on the text, by any of the methods."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.experiments.held_rate import held_rotation, hold_then_decay
from benchmarks.experiments.language import text
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.training import cross_entropy
from psi_optax.dynamics import equilibrium_rotation, matching_learning_rate
from psi_optax.models import linen
from psi_optax.models.architectures import TransformerArchitecture
from psi_optax.models.functions import squared_relu

GROUPS = "layer_.*/kernel"
"""The parameters whose groups are used. AdamW trains the embedding."""


def make(name, groups, rate, decay, factor=1.0, unit=1.0):
    """Make a method, from the rate and the decay of AdamW.

    Parameters without groups are trained by AdamW. Groups turn faster than
    under AdamW by the factor. `unit` is the rate at which `psi_adam` turns by a
    radian, extrapolated from small angles.
    """
    adamw = OPTIMIZERS["adamw"].make
    ordinary = adamw(rate, decay=decay)
    if name == "adamw":
        # Rotations are proportional to the square root of the rate.
        faster = adamw(_times(factor**2, rate), decay=decay)
        return optax.partition(
            {"scale": faster, "ordinary": ordinary},
            lambda params: psi_optax.group_labels(params, groups),
        )
    if name == "psi_adam":
        factor = factor * unit
    matched = matching_learning_rate(rate, decay, optimizer="adamw")
    options = {"ordinary": ordinary}
    if name == "rotational":
        options["direction"] = optax.scale_by_adam()
    return OPTIMIZERS[name].make(_times(factor, matched), groups, **options)


def _times(factor, schedule):
    return lambda step: factor * schedule(step)


class Runs:
    """Training of one model, with its scale groups."""

    def __init__(self, settings):
        self.settings, self.text = settings, text.load()
        sizes = settings.length, settings.width, settings.depth, settings.heads
        # All matrices but the head are scale-invariant with these options.
        architecture = TransformerArchitecture(
            *sizes, activation=squared_relu, post_norms=True, tied_head=False
        )
        self.model = linen.Transformer(architecture, text.VOCABULARY)
        piece = jnp.zeros((settings.batch_size, settings.length + 1), int)
        params = jax.eval_shape(self._init, jax.random.key(0))
        report = psi_optax.find_groups(self._loss, params, piece)
        self.groups = report.select(GROUPS)
        self.init, self.loss = jax.jit(self._init), jax.jit(self._loss)
        self.compiled = functools.cache(self._compile)

    def train(self, name, seed, rate, decay, factor=1.0, unit=1.0):
        """Train, and measure losses and, in radians a step, RMS rotations.

        Non-finite ones are None. There is a validation loss and a rotation for
        each chunk of steps.
        """
        hyper, (begin, advance) = (
            (rate, decay, factor, unit),
            self.compiled(name),
        )
        validation = self.held_out(self.text.validation)
        carry = begin(self.init(jax.random.key(seed)), hyper)
        rotations, losses = [], []
        for batches in self.batches(seed):
            carry, rotation = advance(carry, batches, hyper)
            rotations.append(_number(rotation))
            losses.append(_number(self.loss(carry[0], validation)))
        test = _number(self.loss(carry[0], self.held_out(self.text.test)))
        return {"validation": losses, "rotation": rotations, "test": test}

    def pilot(self, seed, unit, rate, decay):
        """Return a better unit of `psi_adam`, from its rotation with this."""
        found = self.train("psi_adam", seed, rate, decay, 1.0, unit)
        turned = held_rotation(dataclasses.asdict(self.settings), found)
        wanted = equilibrium_rotation(rate, decay, optimizer="adamw")
        return unit * float(jnp.tan(wanted) / np.tan(turned))

    def batches(self, seed):
        """Draw pieces of shape (chunks, steps, batch, length + 1)."""
        settings, train = self.settings, self.text.train
        steps = settings.steps // settings.chunks
        shape = settings.chunks, steps, settings.batch_size
        last = len(train) - settings.length
        starts = np.random.RandomState(seed).randint(last, size=shape)
        return text.windows(train, starts, settings.length)

    def held_out(self, tokens):
        """Return pieces at equal distances."""
        length, last = self.settings.length, len(tokens) - 1
        starts = np.linspace(0, last - length, self.settings.held_out)
        return text.windows(tokens, starts.astype(int), length)

    def _compile(self, name):
        """Return the beginning of a run, and a chunk of its steps."""

        def optimizer(hyper):
            schedule = hold_then_decay(hyper[0], self.settings.steps)
            return make(name, self.groups, schedule, *hyper[1:])

        def begin(params, hyper):
            return params, optimizer(hyper).init(params)

        def advance(carry, batches, hyper):
            step = functools.partial(self._step, optimizer(hyper))
            carry, squares = jax.lax.scan(step, carry, batches)
            return carry, jnp.sqrt(jnp.mean(squares))

        return jax.jit(begin), jax.jit(advance)

    def _step(self, optimizer, carry, batch):
        """Return the next parameters and state; the mean square rotation."""
        params, state = carry
        gradients = jax.grad(self._loss)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        following = optax.apply_updates(params, updates)
        angles = psi_optax.rotation(params, following, self.groups)
        squares = [(angle**2).mean() for angle in jax.tree.leaves(angles)]
        return (following, state), sum(squares) / len(squares)

    def _init(self, key):
        piece = jnp.zeros((1, self.settings.length), int)
        return self.model.init(key, piece, train=False)["params"]

    def _loss(self, params, pieces):
        variables, tokens = {"params": params}, pieces[:, :-1]
        logits = self.model.apply(variables, tokens, train=True)
        return cross_entropy(logits, pieces[:, 1:]).mean()


def _number(value):
    """Return a number as JSON has it, which has no NaN."""
    return float(value) if np.isfinite(value) else None
