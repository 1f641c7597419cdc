"""The optimizers that are trained with, compared and timed, by name.

`OPTIMIZERS[name].make(rate, groups, decay=None, momentum=0.9)` makes one, with
further options of the call behind it. Kernels decay, except those whose norms
the method preserves. `TUNED` adds labels and grids for comparisons.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import psi_optax
from psi_optax.dynamics import matching_learning_rate
from psi_optax.transforms import retract

MOMENTUM = 0.9

Make = Callable[..., optax.GradientTransformation]


class Optimizer(NamedTuple):
    """Maker of an optimizer, and its properties.

    Attributes:
        make: function of a learning rate or schedule, groups, `decay`,
            `momentum`, and options of the call behind it.
        baseline: the optimizer without knowledge of groups, "sgd" or "adam",
            that its steps are compared with.
        invariance: largest parts, "filter", "tensor" or "none", whose positive
            factors at the beginning leave trajectories unchanged; None where
            nothing is claimed.
        decays: True where it has a weight decay.
    """

    make: Make
    baseline: str = "sgd"
    invariance: str | None = None
    decays: bool = True


def are_kernels(params: Any) -> Any:
    """Mark kernels: biases and parameters of normalizations do not decay."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _sgd(rate, groups=None, *, decay=None, momentum=MOMENTUM, **options):
    del groups
    return _decayed(decay, optax.sgd(rate, momentum, **options))


def _adam(rate, groups=None, *, decay=None, momentum=None, **options):
    del groups, momentum
    return _decayed(decay, optax.adam(rate, **options))


def _decayed(decay, optimizer):
    """Add the decay of kernels to the gradients."""
    if decay is None:
        return optimizer
    return optax.chain(optax.add_decayed_weights(decay, are_kernels), optimizer)


def _adamw(rate, groups=None, *, decay=None, momentum=None, **options):
    del groups, momentum
    decay = 1e-4 if decay is None else decay  # The default of optax.adamw.
    return optax.adamw(rate, weight_decay=decay, mask=are_kernels, **options)


def _plain(make: Make) -> Make:
    """Take no groups, decay or momentum."""

    def build(rate, groups=None, *, decay=None, momentum=None, **options):
        del groups, decay, momentum
        return make(rate, **options)

    return build


def _lion(rate, groups=None, *, decay=None, momentum=None, **options):
    del groups, momentum
    decay = 1e-3 if decay is None else decay  # The default of optax.lion.
    return optax.lion(rate, weight_decay=decay, mask=are_kernels, **options)


def _lars(rate, groups=None, *, decay=None, momentum=MOMENTUM, **options):
    del groups
    decay = 0.0 if decay is None else decay
    return optax.lars(rate, decay, are_kernels, momentum=momentum, **options)


def _muon(rate, groups, *, decay=None, momentum=None, **options):
    """Orthogonalize grouped parameters, as matrices of one column a group."""
    del decay, momentum

    def matrix(group, w):
        # Within muon what its Adam updates is masked.
        if group is None or isinstance(w, optax.MaskedNode):
            return None
        rows = tuple(range(w.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(rows, w.ndim - 1)

    def numbers(params):
        return jax.tree.map(matrix, groups, params, is_leaf=lambda x: x is None)

    return optax.contrib.muon(
        rate, muon_weight_dimension_numbers=numbers, **options
    )


def _sgd_retracted(rate, groups, *, radius="init", **options):
    """Step, then return to the norm, as is often written by hand."""
    return optax.chain(_sgd(rate, **options), retract(groups, radius=radius))


def _projected(recipe: Make, plain: Make) -> Make:
    """Project the steps of a recipe, of which kernels alone decay."""

    def build(rate, groups, *, decay=None, **options):
        if decay is None:
            return recipe(rate, groups, **options)
        kernels = recipe(rate, groups, weight_decay=decay, **options)
        rest = plain(rate, **options)
        parts: dict[Any, Any] = {True: kernels, False: rest}
        return optax.partition(parts, are_kernels)

    return build


def _without_momentum(recipe: Make) -> Make:
    def build(rate, groups=None, *, momentum=None, **options):
        del momentum
        return recipe(rate, groups, **options)

    return build


def _rescaled(rate, groups, *, decay=None, momentum=MOMENTUM, **options):
    inner = _sgd(rate, decay=decay, momentum=momentum)
    return psi_optax.weight_rescaling(inner, groups, **options)


def _ordinary(options, make, rate, decay, momentum=MOMENTUM):
    """Let an optimizer that decays have the ordinary parameters."""
    if decay is not None and "ordinary" not in options:
        options["ordinary"] = make(rate, decay=decay, momentum=momentum)
    return options


def _psi(recipe: Make) -> Make:
    """Make a recipe with momentum."""

    def build(rate, groups, *, decay=None, momentum=MOMENTUM, **options):
        options = _ordinary(options, _sgd, rate, decay, momentum)
        return recipe(rate, groups, momentum=momentum, **options)

    return build


def _directed(recipe: Make) -> Make:
    """Make a recipe with a direction, by default the momentum.

    Ordinary parameters follow the direction at the same rate, if nothing else
    is given.
    """

    def build(rate, groups, *, decay=None, momentum=MOMENTUM, **options):
        options = _ordinary(options, _sgd, rate, decay, momentum)
        direction = options.pop("direction", optax.trace(momentum))
        descent = optax.chain(direction, optax.scale_by_learning_rate(rate))
        options = {"ordinary": descent, **options}
        return recipe(rate, direction, groups, **options)

    return build


def _adaptive(recipe: Make) -> Make:
    """Make a recipe like Adam."""

    def build(rate, groups, *, decay=None, momentum=None, **options):
        del momentum
        options = _ordinary(options, _adamw, rate, decay)
        return recipe(rate, groups, **options)

    return build


def _ball(recipe: Make) -> Make:
    """Make a recipe like Adam, with Adam at the same rate for the rest."""
    make = _adaptive(recipe)

    def build(rate, groups, *, decay=None, **options):
        if decay is None:
            options = {"ordinary": optax.adam(rate), **options}
        return make(rate, groups, decay=decay, **options)

    return build


def _any_rate(recipe: Make) -> Make:
    """Make a recipe that does not warn of a large learning rate.

    Grids reach beyond the best rates, and the best of short trainings begin
    with steps that are larger than the package recommends.
    """

    def build(rate, groups, **options):
        tx = optax.with_extra_args_support(recipe(rate, groups, **options))

        def init(params):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "learning_rate=.* radians")
                return tx.init(params)

        return optax.GradientTransformationExtraArgs(init, tx.update)

    return build


_psi_adam = _any_rate(psi_optax.psi_adam)

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(_sgd),
    "sgd_retracted": Optimizer(_sgd_retracted),
    "lars": Optimizer(_lars),
    "adam": Optimizer(_adam, "adam"),
    "adamw": Optimizer(_adamw, "adam"),
    "lamb": Optimizer(_plain(optax.lamb), "adam", decays=False),
    "lion": Optimizer(_lion, "adam"),
    "rmsprop": Optimizer(_plain(optax.rmsprop), "adam", decays=False),
    "novograd": Optimizer(_plain(optax.novograd), "adam", decays=False),
    "muon": Optimizer(_muon, "adam", decays=False),
    "sgdp": Optimizer(_projected(psi_optax.sgdp, _sgd), "sgd", "none"),
    "adamp": Optimizer(
        _without_momentum(_projected(psi_optax.adamp, _adam)), "adam", "none"
    ),
    "weight_rescaling": Optimizer(_rescaled, "sgd", "none"),
    "sgd_g": Optimizer(_psi(psi_optax.sgd_g), "sgd", "filter"),
    "psi_sgd": Optimizer(_psi(psi_optax.psi_sgd), "sgd", "filter"),
    "psi_sgdm": Optimizer(_psi(psi_optax.psi_sgdm), "sgd", "filter"),
    "rotational": Optimizer(_directed(psi_optax.rotational), "sgd", "filter"),
    "hyperball": Optimizer(_directed(psi_optax.hyperball), "sgd", "tensor"),
    "adam_g": Optimizer(_adaptive(psi_optax.adam_g), "adam", "filter"),
    "adamh": Optimizer(_ball(psi_optax.adamh), "adam", "tensor"),
    "muonh": Optimizer(_ball(psi_optax.muonh), "adam", "tensor"),
    "psi_adam": Optimizer(_adaptive(_psi_adam), "adam", "filter"),
}


def _sgd_g_as_published(rate, groups):
    """Give filters 20 times the learning rate of the other parameters."""
    twentieth = lambda step: (rate(step) if callable(rate) else rate) / 20  # noqa: E731
    ordinary = optax.sgd(twentieth, MOMENTUM, nesterov=True)
    return psi_optax.sgd_g(rate, groups, momentum=MOMENTUM, ordinary=ordinary)


def _rotational_as_published(rate, groups, decay):
    """Rotate filters as far as the rate and the decay of SGD would."""
    matched = matching_learning_rate(rate, decay, momentum=MOMENTUM)
    return OPTIMIZERS["rotational"].make(
        matched, groups, ordinary=_sgd(rate, decay=decay)
    )


def _psi_adam_decayed(rate, groups, decay):
    return _psi_adam(rate, groups, weight_decay=decay)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """An optimizer in a comparison, and the grid that it is tuned on.

    Attributes:
        label: its name in tables and figures.
        make: takes a rate, groups and, if there is a grid of them, a decay.
        rates: learning rates to try, ascending.
        decays: weight decays to try with each, ascending.
    """

    label: str
    make: Make
    rates: tuple[float, ...]
    decays: tuple[float, ...] = ()

    def trials(self) -> list[tuple[float, float]]:
        """Return every pair of a rate and a decay, 0 where there is none."""
        return list(itertools.product(self.rates, self.decays or (0.0,)))

    def build(
        self, rate: Any, decay: Any, groups: Any
    ) -> optax.GradientTransformation:
        """Make the optimizer for a trial."""
        if not self.decays:
            return self.make(rate, groups)
        return self.make(rate, groups, decay=decay)


def _rates(low: float, high: float) -> tuple[float, ...]:
    """Return 12 rates, evenly spaced on a logarithmic axis."""
    return tuple(float(f"{rate:.3g}") for rate in np.geomspace(low, high, 12))


_SGD, _ADAM = _rates(0.01, 3.0), _rates(0.001, 0.3)
_SGD_GRID = (0.01, 0.03, 0.1, 0.3), (0.01, 0.1, 1.0)
_ADAM_GRID = (0.001, 0.003, 0.01, 0.03), (1.0, 10.0, 100.0)


def _of(name: str, **options: Any) -> Make:
    def build(rate, groups, **decay):
        return OPTIMIZERS[name].make(rate, groups, **decay, **options)

    return build


# As many trials for each: 12 rates, or 4 rates and 3 decays. The decays reach
# beyond usual values, to where validation accuracy falls in a short training.
TUNED: dict[str, Tuned] = {
    "sgd": Tuned("SGD", _of("sgd"), _SGD),
    "sgd_usual_decay": Tuned(
        "SGD, weight decay 5e-4", _of("sgd"), _SGD, (5e-4,)
    ),
    "sgd_decay": Tuned("SGD, tuned weight decay", _of("sgd"), *_SGD_GRID),
    "adamw": Tuned("AdamW, tuned weight decay", _of("adamw"), *_ADAM_GRID),
    "adamw_usual_decay": Tuned(
        "AdamW, weight decay 1e-2", _of("adamw"), _ADAM, (1e-2,)
    ),
    "adamp": Tuned("AdamP, tuned weight decay", _of("adamp"), *_ADAM_GRID),
    "sgd_renormalize": Tuned(
        "SGD, then renormalize", _of("sgd_retracted"), _SGD
    ),
    "sgd_unit": Tuned(
        "SGD, then to norm 1", _of("sgd_retracted", radius=1.0), _SGD
    ),
    "sgd_g": Tuned("sgd_g", _sgd_g_as_published, _rates(0.03, 10.0)),
    "weight_rescaling": Tuned(
        "weight_rescaling", _of("weight_rescaling"), _SGD
    ),
    "rotational": Tuned(
        "rotational, tuned weight decay", _rotational_as_published, *_SGD_GRID
    ),
    "psi_sgd": Tuned("psi_sgd", _of("psi_sgd"), _SGD),
    "psi_sgdm": Tuned("psi_sgdm", _of("psi_sgdm"), _SGD),
    "psi_sgd_decay": Tuned(
        "psi_sgd, head decayed",
        _of("psi_sgd"),
        (0.03, 0.1, 0.3, 1.0),
        (0.01, 0.1, 1.0),
    ),
    "psi_adam": Tuned("psi_adam", _of("psi_adam"), _ADAM),
    "psi_adam_decay": Tuned(
        "psi_adam, rest decayed",
        _psi_adam_decayed,
        (0.003, 0.01, 0.03, 0.1),
        (0.1, 1.0, 10.0),
    ),
}

DEFAULT = (
    *("sgd", "sgd_usual_decay", "sgd_decay", "adamw"),
    *("sgd_renormalize", "sgd_unit", "psi_sgd", "psi_adam"),
)
"""The methods that are compared where none are named."""
