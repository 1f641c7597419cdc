"""Learning rates for fixed norms, from those of other optimizers."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from psi_optax._schedules import LARGEST_STEP, map_rate, sample_rates
from psi_optax._text import short_repr
from psi_optax._validation import (
    check_choice,
    check_learning_rate,
    check_nonnegative,
    check_positive,
)
from psi_optax.dynamics.converted import (
    FACTOR,
    ConvertedLearningRate,
    RotationRange,
)
from psi_optax.dynamics.group_rates import (
    GroupRates,
    Measured,
    equilibrium_rates,
    initial_rates,
)
from psi_optax.dynamics.group_values import GroupTable, make_table
from psi_optax.dynamics.source import Source, make_source
from psi_optax.groups import Groups, Tree
from psi_optax.groups.frameworks import weights_of

TARGETS = ("psi", "angle")


_KEEP_RATES = (
    "if this matters, keep a rate for each group by optax.chain(optimizer,"
    " psi_optax.transforms.retract(groups)), with the old optimizer"
)
_TO_ANGLE = 'choose to="angle", which is the same for all groups'


def convert_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
    params: Tree,
    groups: Groups,
    *,
    optimizer: str = "sgd",
    to: str = "psi",
    weight_decay: float | None = None,
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: ArrayLike | Tree | None = None,
    measured_rotation: ArrayLike | Tree | None = None,
    weight_dimension_numbers: Any = None,
    consistent_rms: float | None = None,
) -> ConvertedLearningRate:
    r"""Convert a learning rate to fixed norms, at the same rotation per step.

    `psi` runs an optimizer on directions: its learning rate is not that of the
    same optimizer on weights. For a group of n weights, of norm r and with
    gradients g, a step rotates the direction by the arctangent of

    | optimizer | rate for `psi` | times, under noise |
    |---|---|---|
    | "sgd", "sgdw" | \(\eta/r^2\) | \(c/\sqrt{1-\mu^2}\), \(c = \|r g\|\) |
    | "adam", "adamw" | \(\eta/r\) | \(\sqrt{n (1-\mu)/(1+\mu)}\) |
    | "lion" | \(\eta/r\) | \(\sqrt n\) |
    | "muon" | \(\eta/r\) | \(0.9 \sqrt{k/m}\) times optax's scale |

    The first is exact: `psi(optax.sgd(rate, 0.9), groups)` and
    `psi_direction(rate, optax.trace(0.9), groups)` rotate each group as the
    optimizer on weights does, until norms grow. A norm grows by 5 % within
    about \(0.1\,\frac{1-\mu}{1+\mu}/\theta^2\) steps of rotation \(\theta\).
    The rotation of SGD is then 10 % smaller, that of the others 5 %.

    The second is an estimate: it assumes that gradients are independent noise.
    If they all agree, SGD and Adam rotate by \(\sqrt{(1+\mu)/(1-\mu)}\) times
    as much: Adam by \(\eta\sqrt n/r\). Hence `psi(optax.adam(0.001))`,
    with the rate unconverted, rotates by up to \(0.001 \sqrt n\) per step: 0.77
    radians for a kernel of 768 x 768 weights. To know the rotation,
    measure it in a short run of the optimizer that is converted: see
    `measured_rotation`. That of Lion and Muon depends on gradients hardly.

    Muon's is for m groups in a matrix of rank k, whose singular values become
    about 0.9. Its first step is the same only where the groups of each matrix
    have equal norms.

    With a weight decay norms have an equilibrium, and the rotation there is
    `equilibrium_rotation`, whatever the norms of `params`. This is
    `matching_learning_rate`, for each group. Muon's equilibrium is unknown: a
    run that is there is converted by the norms of its params, without a weight
    decay here. The same is better for Lion: in training it rotated up to 1.3
    times as much as under noise (docs/learning-rates.md).

    One learning rate for all groups is the geometric mean of their own, in
    which each weight counts once. It keeps this mean of their rotations, and
    fits all groups if each one's own is within a factor of 2. Otherwise let
    `psi_optax.transforms.retract(groups)` follow the optimizer, at its own
    learning rate, in a chain: each group then rotates as before. With a weight
    decay, choose an angle: it is the same for all. Norms that `normalize` makes
    equal are no remedy: the rotation at an old learning rate belongs to the old
    norms, from which it is converted.

    Args:
        learning_rate: of an optimizer on weights; a number or a schedule.
        params: arrays, whose norms are used; or a model, as for `find_groups`.
            A large learning rate without weight decay makes norms grow several
            times: pass the params of that run, such as after a quarter of it.
            With a weight decay, shapes suffice.
        groups: scale groups in any form; as the target has them, hence
            `joint_groups(groups)` for `hyperball` per tensor.
        optimizer: "sgd", "sgdw", "adam", "adamw", "lion" or "muon".
        to: "psi" for `psi`, `psi_direction`, `psi_sgd` and `psi_adam`, with the
            same optimizer inside. "angle" for `rotational`, `hyperball`,
            `adamh` and `muonh`.
        weight_decay: positive, multiplied by the learning rate, or None; not
            for "adam", whose decay is "adamw", and not for "muon".
        momentum: decay of the momentum, b1 for Adam and Lion, in [0, 1). None
            for 0.9 there, and for no momentum elsewhere. For Muon it has no
            effect.
        b2: Lion's second decay, with a weight decay; None for 0.99.
        gradient_norm: c of SGD, as RMS over steps; see `equilibrium_norm`. A
            number, or a tree like params with a number or an array of the
            group shape at grouped leaves. SGD needs it, or a measured
            rotation, for an angle, and for `psi` with a weight decay.
        measured_rotation: RMS or median rotation per step of groups under the
            optimizer on weights, from these params at this learning rate (for
            a schedule, its largest), in radians. A number, a tree as for
            `gradient_norm`, or the mapping that
            `optax.tree.get(state, "rotation")` reads from `monitor_groups`.
            It replaces the estimate under noise.
        weight_dimension_numbers: as in `optax.contrib.muon`, a tree of
            `MuonDimensionNumbers` for Muon, with None for what Adam trains.
            None for all matrices of two axes.
        consistent_rms: see `optax.contrib.muon`.

    Returns:
        The learning rate, the rotation it means, and each group's own learning
        rate. Groups of norm zero and groups of one weight never rotate; they
        are excluded and counted.

    Raises:
        TypeError: the learning rate is neither a number nor a schedule; a
            traced learning rate or traced params: their values are needed.
        ValueError: an unknown optimizer or target; an argument that is out of
            range, is missing, or has no effect; groups do not fit params;
            dimension numbers that are tuples, or state no parameter; no group
            can rotate; a non-finite norm.

    Examples:
        Four weights of norm 2, in place of SGD and of Adam with rate 0.1:

        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> w, groups = jnp.ones(4), ScaleGroup(axes=0)
        >>> print(f"{convert_learning_rate(0.1, w, groups).learning_rate:.3f}")
        0.025
        >>> print(convert_learning_rate(0.1, w, groups, optimizer="adam"))
        learning rate (psi): 0.05
        rotation: 0.0229 radians a step, 0.0229 to 0.0229 over groups
        one rate fits all groups: their own are within a factor of 1 of it

    References:
        van Laarhoven, [L2 regularization versus batch and weight
        normalization](https://arxiv.org/abs/1706.05350), 2017, for the
        effective learning rates; Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024.
    """
    check_choice("to", to, TARGETS)
    learning_rate, largest = _check_rate(learning_rate)
    source = make_source(
        optimizer,
        weight_decay=weight_decay,
        momentum=momentum,
        b2=b2,
        dimension_numbers=weight_dimension_numbers,
        consistent_rms=consistent_rms,
    )
    measured = Measured(gradient_norm, measured_rotation)
    _check_measured(source, measured, to)
    table = make_table(groups, weights_of(params))
    if source.weight_decay:
        rates = equilibrium_rates(source, table, largest, to, measured)
        base, remedy = source.matched(learning_rate, to), _TO_ANGLE
    else:
        rates = initial_rates(source, table, largest, to, measured)
        base, remedy = learning_rate, _KEEP_RATES
    converted = _summarize(rates, table, base, to, remedy)
    has_limit = to == "psi" and source.name in ("adam", "adamw", "lion")
    if not has_limit:
        return converted
    largest = table.sizes()[rates.rotates].max()
    return dataclasses.replace(converted, limit=LARGEST_STEP / largest**0.5)


def _check_rate(
    learning_rate: optax.ScalarOrSchedule,
) -> tuple[optax.ScalarOrSchedule, float]:
    """Return the learning rate, and the largest of 1,000 sampled steps."""
    if isinstance(learning_rate, jax.core.Tracer):
        raise TypeError(
            "learning_rate is traced, and its value is needed: convert it"
            " outside of jax.jit, or pass a schedule."
        )
    rate = check_learning_rate(learning_rate)
    rates = sample_rates(rate)
    if not rates:
        raise ValueError(
            f"learning_rate={short_repr(learning_rate)} has no known value at"
            " any step: pass a schedule of the step alone, without side"
            " effects."
        )
    name = f"learning_rate={short_repr(learning_rate)}"
    check_nonnegative(f"{name}: its smallest value", min(rates))
    check_positive(f"{name}: its largest value", max(rates))
    return rate, max(rates)


def _check_measured(source: Source, measured: Measured, to: str) -> None:
    """Reject what was measured, and has no effect.

    Raises:
        ValueError: a gradient norm or a rotation has no effect.
    """
    decayed = source.weight_decay > 0
    if measured.rotation is not None and decayed:
        raise ValueError(
            "measured_rotation has no effect with a weight_decay, whose"
            " equilibrium has a known rotation: omit one of them. A run at its"
            " equilibrium is converted from its params, without weight_decay."
        )
    if measured.gradient_norm is None:
        return
    if (
        not source.is_sgd
        or measured.rotation is not None
        or (decayed and to == "angle")
    ):
        raise ValueError(
            "gradient_norm has no effect: omit it. It is used for SGD alone,"
            ' without measured_rotation, and beside a weight_decay for "psi".'
        )


def _summarize(
    rates: GroupRates,
    table: GroupTable,
    base: optax.ScalarOrSchedule,
    to: str,
    remedy: str,
) -> ConvertedLearningRate:
    """Return the mean over weights, and how far each group is from it."""
    own, weights = rates.own[rates.rotates], table.sizes()[rates.rotates]
    rate, rotation = _mean(own, weights), None
    if rates.tangents is not None:
        tangents = rate / own * rates.tangents[rates.rotates]
        rotation = _range(np.arctan(tangents), weights)
    factors = np.where(rates.rotates, rates.own / rate, 1.0)
    factors = np.maximum(factors, 1 / factors)
    is_apart = factors > FACTOR
    return ConvertedLearningRate(
        learning_rate=_scaled(base, rate, rates.base),
        largest=rate,
        rotation=rotation,
        limit=math.inf,
        per_group=table.tree(np.where(rates.rotates, rates.own, rate)),
        spread=float(factors.max()),
        apart=tuple(dict.fromkeys(table.names()[is_apart])),
        share=float(table.sizes()[is_apart].sum() / table.sizes().sum()),
        excluded=int(np.sum(~rates.rotates)),
        to=to,
        remedy=remedy,
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.average(np.log(values), weights=weights)))


def _range(angles: np.ndarray, weights: np.ndarray) -> RotationRange:
    """Return the statistics of the rotations of groups."""
    low, high = float(angles.min()), float(angles.max())
    return RotationRange(_mean(angles, weights), low, high)


def _scaled(
    base: optax.ScalarOrSchedule, rate: float, base_rate: float
) -> float | optax.Schedule:
    """Return the rate, or the schedule in proportion to it."""
    if not callable(base):
        return rate
    factor = rate / base_rate
    return map_rate(lambda x: factor * jnp.asarray(x), base)
