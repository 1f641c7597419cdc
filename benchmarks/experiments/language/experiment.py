"""A small language model, by AdamW and at a matched rotation.

    python -m benchmarks.experiments.language

`docs/experiments/language.md` says what is measured.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.experiments import language_report, language_text
from benchmarks.experiments.command import Experiment, main
from benchmarks.experiments.language_methods import builds
from benchmarks.experiments.language_model import LanguageModel
from benchmarks.experiments.results import Results
from benchmarks.held_rate import hold_then_decay

__all__ = ["EXPERIMENT", "Settings"]

# Far from the seeds of the final runs, which start at 0.
TUNING_SEED, PILOT_SEED = 1000, 2000

PILOTS = 4
"""The number of pilots, one after the other."""

GROUPS = "layer_.*/kernel"
"""The parameters whose groups are used; the embedding is AdamW's."""


class Settings(NamedTuple):
    """What the numbers depend on.

    Attributes:
        rates: AdamW's, to try.
        decays: AdamW's, to try with each.
        factors: of the matched rotation.
        seeds: number of seeds of the final runs.
        steps: of each training.
        chunks: how often during these the validation loss is measured.
        depth, width, heads: as in `LanguageModel`.
        length: number of characters that the model sees.
        batch_size: number of such pieces in a batch.
        held_out: number of pieces that validation and test losses are of.
    """

    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    decays: tuple[float, ...] = (0.003, 0.03, 0.3)
    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    seeds: int = 3
    steps: int = 1000
    chunks: int = 20
    depth: int = 2
    width: int = 32
    heads: int = 4
    length: int = 64
    batch_size: int = 8
    held_out: int = 256


def measure(settings: Settings, results: Results) -> None:
    """Tune AdamW, train with it, and then with each method at each factor."""
    runs = functools.cache(lambda: _Runs(settings))
    results.part("groups", lambda: str(runs().groups))
    for rate, decay in itertools.product(settings.rates, settings.decays):
        results.part(
            f"tuning/{rate:g}/{decay:g}",
            lambda rate=rate, decay=decay: runs().train(
                "adamw", TUNING_SEED, rate, decay
            ),
        )
    tuned = language_report.tuned(results.content)
    for seed in range(settings.seeds):
        results.part(
            f"tuned/{seed}",
            lambda seed=seed: runs().train("adamw", seed, *tuned),
        )
    point = language_report.settling(results.content)
    unit = 1.0
    for pilot in range(PILOTS):
        unit = results.part(
            f"pilot/{pilot}",
            lambda unit=unit, pilot=pilot: runs().pilot(pilot, unit, *point),
        )
    for name, factor, seed in itertools.product(
        builds(unit), settings.factors, range(settings.seeds)
    ):
        results.part(
            f"{name}/{factor:g}/{seed}",
            lambda name=name, factor=factor, seed=seed: runs().train(
                name, seed, *point, factor, unit
            ),
        )


class _Runs:
    """Training of the model on the text."""

    def __init__(self, settings: Settings):
        self.settings, self.text = settings, language_text.load()
        self.model = LanguageModel(
            settings.depth,
            settings.width,
            settings.heads,
            language_text.VOCABULARY,
        )
        piece = jnp.zeros((settings.batch_size, settings.length + 1), int)
        params = jax.eval_shape(self._init, jax.random.key(0))
        report = psi_optax.find_groups(self._loss, params, piece)
        self.groups = report.select(GROUPS)
        self.init, self.loss = jax.jit(self._init), jax.jit(self._loss)
        self.compiled = functools.cache(self._compile)

    def train(
        self,
        name: str,
        seed: int,
        rate: float,
        decay: float,
        factor: float = 1.0,
        unit: float = 1.0,
    ) -> dict[str, Any]:
        """Train, and measure losses and rotations.

        Returns:
            In nats a character, the validation loss after each chunk of steps
            and the test loss at the end, None where they are not finite; and
            the RMS rotation of each chunk, in radians a step.
        """
        begin, advance = self.compiled(name)
        hyper = rate, decay, factor, unit
        validation = self._held_out(self.text.validation)
        carry = begin(self.init(jax.random.key(seed)), hyper)
        rotations, losses = [], []
        for batches in self._batches(seed):
            carry, rotation = advance(carry, batches, hyper)
            rotations.append(_number(rotation))
            losses.append(_number(self.loss(carry[0], validation)))
        test = self.loss(carry[0], self._held_out(self.text.test))
        return {
            "validation": losses,
            "rotation": rotations,
            "test": _number(test),
        }

    def pilot(self, pilot: int, unit: float, rate: float, decay: float):
        """A better unit for `psi_adam`, from how far it turns with this one."""
        seed = PILOT_SEED + pilot
        found = self.train("psi_adam", seed, rate, decay, 1.0, unit)
        turned = language_report.held_rotation(self.settings._asdict(), found)
        wanted = psi_optax.dynamics.equilibrium_rotation(
            rate, decay, optimizer="adamw"
        )
        return unit * float(jnp.tan(wanted) / np.tan(turned))

    def _compile(self, name: str) -> tuple[Callable, Callable]:
        """What begins a run, and what does a chunk of its steps."""

        def optimizer(hyper):
            rate, decay, factor, unit = hyper
            schedule = hold_then_decay(rate, self.settings.steps)
            return builds(unit)[name](
                rate=schedule, decay=decay, factor=factor, groups=self.groups
            )

        @jax.jit
        def begin(params, hyper):
            return params, optimizer(hyper).init(params)

        @jax.jit
        def advance(carry, batches, hyper):
            step = functools.partial(self._step, optimizer(hyper))
            carry, squares = jax.lax.scan(step, carry, batches)
            return carry, jnp.sqrt(jnp.mean(squares))

        return begin, advance

    def _step(self, optimizer, carry, batch):
        """The next parameters and state; the mean square rotation."""
        params, state = carry
        gradients = jax.grad(self._loss)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        following = optax.apply_updates(params, updates)
        angles = psi_optax.rotation(params, following, self.groups)
        squares = [(angle**2).mean() for angle in jax.tree.leaves(angles)]
        return (following, state), sum(squares) / len(squares)

    def _init(self, key: jax.Array) -> Any:
        piece = jnp.zeros((1, self.settings.length), int)
        return self.model.init(key, piece)["params"]

    def _loss(self, params: Any, pieces: jax.Array) -> jax.Array:
        logits: Any = self.model.apply({"params": params}, pieces[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, pieces[:, 1:]
        ).mean()

    def _batches(self, seed: int) -> np.ndarray:
        """Pieces that begin anywhere, (chunks, steps, batch, length + 1)."""
        settings, train = self.settings, self.text.train
        starts = np.random.RandomState(seed).randint(
            len(train) - settings.length,
            size=(
                settings.chunks,
                settings.steps // settings.chunks,
                settings.batch_size,
            ),
        )
        return language_text.windows(train, starts, settings.length)

    def _held_out(self, tokens: np.ndarray) -> np.ndarray:
        """Pieces at equal distances."""
        settings = self.settings
        last = len(tokens) - settings.length - 1
        starts = np.linspace(0, last, settings.held_out).astype(int)
        return language_text.windows(tokens, starts, settings.length)


def _number(value: jax.Array) -> float | None:
    """As JSON has it, which has no NaN."""
    return float(value) if np.isfinite(value) else None


EXPERIMENT = Experiment(
    "language",
    "AdamW and methods that keep norms, on a small language model.",
    Settings(),
    Settings(
        rates=(0.05, 0.1),
        decays=(1.0,),
        factors=(0.5, 1.0),
        seeds=2,
        steps=12,
        chunks=3,
        depth=1,
        width=8,
        heads=2,
        length=8,
        held_out=4,
    ),
    measure,
    language_report.table,
    language_report.figure,
)


if __name__ == "__main__":
    main(EXPERIMENT)
