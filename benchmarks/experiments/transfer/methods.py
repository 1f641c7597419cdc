"""The methods, their grids, and muP's rule for the width."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from benchmarks.experiments.transfer.problems import HEAD, Problem
from benchmarks.optimizers import OPTIMIZERS, are_kernels
from psi_optax.groups.paths import map_with_path

Make = Callable[[Any, Any, Problem, int], optax.GradientTransformation]


class Method(NamedTuple):
    """A method, and the lattice of its learning rates.

    Attributes:
        label: its name in tables and figures.
        make: takes a schedule of the learning rate, a schedule of the tuned
            hyperparameter, the problem and the growth of the width.
        tuned: the setting that lists values of the tuned hyperparameter: a
            weight decay, or the rate of Adam for ordinary parameters.
        lowest: by problem, the power of two that is its lowest rate.
        all_seeds: False for one seed only.
    """

    label: str
    make: Make
    tuned: str
    lowest: dict[str, int]
    all_seeds: bool = True

    @property
    def is_on_spheres(self) -> bool:
        """True where it keeps norms, and Adam has the ordinary parameters."""
        return self.tuned == ORDINARY


ORDINARY = "ordinary_rates"
GROUPS, SPHERES = "groups", "spheres"


def _sgd(rate, decay, problem, growth):
    del problem, growth
    return OPTIMIZERS["sgd"].make(rate, decay=decay)


def _adamw(rate, decay, problem, growth):
    del problem, growth
    return OPTIMIZERS["adamw"].make(rate, decay=decay)


def _mup(rate, decay, problem, growth):
    """Divide the rates of hidden matrices and of the head by the growth.

    The product of rate and decay remains, as in the authors' library.
    """

    def divide(updates):
        return map_with_path(
            lambda path, u: u / growth if grows(path, problem) else u, updates
        )

    return optax.chain(
        optax.scale_by_adam(),
        optax.stateless(lambda updates, _: divide(updates)),
        optax.add_decayed_weights(decay, are_kernels),
        optax.scale_by_learning_rate(rate),
    )


def grows(path: str, problem: Problem) -> bool:
    """Tell whether the input of a matrix grows with the width."""
    return bool(re.fullmatch(f"{problem.matrices}|{HEAD}", path))


def _on(name: str, where: str, **options: Any) -> Make:
    """Make a method on the proven groups, or on all hidden matrices."""

    def make(rate, ordinary, problem, growth):
        del growth
        groups, adam = getattr(problem, where), optax.adam(ordinary)
        return OPTIMIZERS[name].make(rate, groups, ordinary=adam, **options)

    return make


def _muonh(rate, ordinary, problem, growth):
    axes = muon_axes(problem.spheres)
    make = _on("muonh", SPHERES, weight_dimension_numbers=axes)
    return make(rate, ordinary, problem, growth)


def muon_axes(spheres: Any) -> Any:
    """Return the axes of rows and columns of each matrix.

    Those of attention map the stream to all heads, and back.
    """

    def axes(path, group):
        if group is None:
            return None
        last = max(group.axes[-1], 1)
        if path.endswith(("query/kernel", "key/kernel", "value/kernel")):
            return optax.contrib.MuonDimensionNumbers(0, (1, 2))
        return optax.contrib.MuonDimensionNumbers(tuple(range(last)), last)

    return map_with_path(axes, spheres)


def shrink_head(variables: Any, growth: int) -> Any:
    """Divide the initial head by the root of the growth, for muP.

    Its standard deviation then falls in proportion to the width.
    """
    params = map_with_path(
        lambda path, w: w / growth**0.5 if path == HEAD else w,
        variables["params"],
    )
    return {**variables, "params": params}


MUP, PLAIN = "adamw_mup", "adamw"
"""AdamW with and without muP's rule, which are the same but for the width."""

METHODS = {
    "sgd": Method("SGD", _sgd, "sgd_decays", {"mlp": -8, "language": -6}),
    PLAIN: Method(
        "AdamW", _adamw, "adamw_decays", {"mlp": -11, "language": -10}
    ),
    MUP: Method(
        "AdamW, muP", _mup, "adamw_decays", {"mlp": -11, "language": -10}
    ),
    "psi_sgd": Method(
        "psi_sgd",
        _on("psi_sgd", GROUPS),
        ORDINARY,
        {"mlp": -9, "language": -11},
    ),
    "psi_adam": Method(
        "psi_adam",
        _on("psi_adam", GROUPS),
        ORDINARY,
        {"mlp": -12, "language": -13},
    ),
    "rotational": Method(
        "rotational",
        _on("rotational", SPHERES, direction=optax.scale_by_adam()),
        ORDINARY,
        {"mlp": -11, "language": -11},
        all_seeds=False,
    ),
    "adamh": Method(
        "adamh",
        _on("adamh", SPHERES),
        ORDINARY,
        {"mlp": -11, "language": -11},
        all_seeds=False,
    ),
    "muonh": Method(
        "muonh", _muonh, ORDINARY, {"mlp": -11, "language": -9}, all_seeds=False
    ),
}
"""The methods, by name."""


def is_trained(name: str, factor: str) -> bool:
    """Tell whether a method has rows over a factor.

    The rule of muP changes the width only.
    """
    return name != MUP or factor == "width"
