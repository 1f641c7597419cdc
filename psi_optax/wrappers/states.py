"""States of the wrappers."""

from typing import Any, NamedTuple

import jax
import optax


class AverageWeightsState(NamedTuple):
    """State of `average_weights`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        weight: sum of the shares of all weights before normalization;
            shape=(), 0 before the first step and at most 1.
        average: like params, float32 for 16-bit leaves; zeros before the first
            step.
    """

    count: jax.typing.ArrayLike
    weight: jax.typing.ArrayLike
    average: Any


class MasterWeightsState(NamedTuple):
    """State of `master_weights`.

    Attributes:
        weights: like params, in float32; an `optax.MaskedNode` at leaves that
            are not bfloat16 or float16.
        inner: of the inner optimizer, which sees these weights.
    """

    weights: Any
    inner: optax.OptState


class ProjectByCosineState(NamedTuple):
    """State of `project_by_cosine`.

    Attributes:
        inner: of the inner optimizer.
    """

    inner: optax.OptState


class StochasticRoundingState(NamedTuple):
    """State of `stochastic_rounding`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        inner: of the inner optimizer, which sees float32 in place of 16 bits.
    """

    count: jax.typing.ArrayLike
    inner: optax.OptState
