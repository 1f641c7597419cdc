"""Optimizers on weights whose learning rate is converted to fixed norms."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from psi_optax._text import short_repr
from psi_optax._validation import (
    check_choice,
    check_decay,
    check_nonnegative,
    check_positive,
)
from psi_optax.dynamics.group_values import GroupTable
from psi_optax.dynamics.matching import matching_learning_rate
from psi_optax.groups import GroupedLeaf, Tree
from psi_optax.groups.paths import (
    is_within,
    leaves_with_paths,
    longest_prefix,
    normalize_paths,
)

# Each optimizer, with its default momentum.
MOMENTA = {
    "sgd": 0.0,
    "sgdw": 0.0,
    "adam": 0.9,
    "adamw": 0.9,
    "lion": 0.9,
    "muon": None,
}

# The polynomial of Muon maps singular values into 0.68 to 1.13. For matrices
# of noise of 9 to 1024 rows their RMS was 0.85 to 1.02.
MUON_SINGULAR_VALUE = 0.9


class Source(NamedTuple):
    """Optimizer on weights, after validation of its arguments.

    Attributes:
        name: a key of `MOMENTA`.
        momentum: b1 for Adam and Lion, and for what Muon leaves to Adam.
        b2: Lion's second decay, or None.
        weight_decay: multiplied by the learning rate; 0 for none.
        dimension_numbers: of Muon's matrices, or None.
        consistent_rms: of Muon, or None.
    """

    name: str
    momentum: float
    b2: float | None
    weight_decay: float
    dimension_numbers: Any
    consistent_rms: float | None

    @property
    def is_sgd(self) -> bool:
        """Return whether updates are as long as gradients are."""
        return self.name in ("sgd", "sgdw")

    def update_norms(
        self, table: GroupTable, gradient_norm: np.ndarray | None
    ) -> np.ndarray | None:
        """Return the norm of each group's update before the rate, under noise.

        For SGD it is that of the gradients in direction space, which must be
        known.
        """
        mu = self.momentum
        if self.is_sgd:
            if gradient_norm is None:
                return None
            return gradient_norm / math.sqrt(1 - mu * mu)
        if self.name == "muon":
            return np.sqrt(_muon_squares(self, table))
        share = 1.0 if self.name == "lion" else (1 - mu) / (1 + mu)
        return np.sqrt(share * table.sizes())

    def matched(
        self, learning_rate: optax.ScalarOrSchedule, to: str
    ) -> optax.ScalarOrSchedule:
        """Return the rate at the equilibrium of decay, for a unit group.

        For "psi" that is a group of one weight, or of gradient norm 1 for SGD.
        """
        # Adam's momentum is 1 - b1 times the sum that SGD's is.
        unit = {"sgd": 1.0, "sgdw": 1.0, "adamw": 1 - self.momentum}
        return matching_learning_rate(
            learning_rate,
            self.weight_decay,
            optimizer=self.name,
            momentum=self.momentum,
            b2=self.b2,
            gradient_norm=unit.get(self.name) if to == "psi" else None,
        )


def make_source(
    name: str,
    *,
    weight_decay: float | None,
    momentum: float | None,
    b2: float | None,
    dimension_numbers: Any,
    consistent_rms: float | None,
) -> Source:
    """Check the arguments of an optimizer, and fill in its defaults.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an unknown optimizer; an argument that is out of range, or
            has no effect.
    """
    check_choice("optimizer", name, MOMENTA)
    decay = _check_weight_decay(name, weight_decay)
    if name == "muon":
        _reject(name, momentum=momentum)
    else:
        _reject(
            name,
            weight_dimension_numbers=dimension_numbers,
            consistent_rms=consistent_rms,
        )
    if name != "lion" or not decay:
        _reject(f"{name} with weight_decay={weight_decay}", b2=b2)
    if consistent_rms is not None:
        check_positive("consistent_rms", consistent_rms)
    default = MOMENTA[name]
    mu = (0.9 if default is None else default) if momentum is None else momentum
    check_decay("momentum", mu)
    return Source(name, mu, b2, decay, dimension_numbers, consistent_rms)


def _check_weight_decay(name: str, weight_decay: float | None) -> float:
    """Return the weight decay, 0 for None, if its equilibrium is known."""
    if weight_decay is None:
        return 0.0
    check_nonnegative("weight_decay", weight_decay)
    if weight_decay == 0:
        return 0.0
    if name == "adam":
        raise ValueError(
            f"weight_decay={weight_decay!r}: optimizer='adam' has none. Choose"
            " optimizer='adamw'."
        )
    if name == "muon":
        raise ValueError(
            f"weight_decay={weight_decay!r}: the equilibrium of"
            " optimizer='muon' is unknown. Pass the params of a run at its"
            " equilibrium, and omit weight_decay."
        )
    return float(weight_decay)


def _reject(optimizer: str, **arguments: Any) -> None:
    """Reject arguments that have no effect on an optimizer."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"{name}={short_repr(value)} has no effect on {optimizer}:"
                f" omit {name}."
            )


def _muon_squares(source: Source, table: GroupTable) -> np.ndarray:
    """Return the mean square of the norms of updates, of groups of each name.

    A matrix of rank k has k singular values.
    """
    numbers = _numbers_by_path(source.dimension_numbers, table)
    squares: dict[str, float] = {}
    for leaf in table.plan.leaves:
        axes = numbers.get(leaf.path)
        if axes is None:
            size = math.prod(leaf.shape)
            square = size * (1 - source.momentum) / (1 + source.momentum)
        else:
            square = _matrix_square(leaf.shape, axes, source.consistent_rms)
        share = square / max(math.prod(leaf.group_shape), 1)
        squares[leaf.name] = squares.get(leaf.name, 0.0) + share
    return table.row({name: np.asarray(x) for name, x in squares.items()})


def _matrix_square(
    shape: tuple[int, ...],
    axes: optax.contrib.MuonDimensionNumbers,
    consistent_rms: float | None,
) -> float:
    """Return the squared norm of Muon's update of a parameter."""
    rows, columns = (_product(shape, x) for x in axes)
    matrices = math.prod(shape) / (rows * columns)
    rank = min(rows, columns)
    if consistent_rms is None:
        scale = max(1.0, columns / rows)
    else:
        scale = max(rows, columns) * consistent_rms**2
    return matrices * rank * scale * MUON_SINGULAR_VALUE**2


def _product(shape: tuple[int, ...], axes: Any) -> int:
    """Return the product of the lengths of one axis or several."""
    return math.prod(shape[axis] for axis in np.atleast_1d(axes))


def _numbers_by_path(given: Any, table: GroupTable) -> dict[str, Any]:
    """Return the dimension numbers of the grouped leaves that are matrices."""
    kind, leaves = optax.contrib.MuonDimensionNumbers, table.plan.leaves
    if given is None:
        return {x.path: kind() for x in leaves if len(x.shape) == 2}
    stated = _stated_numbers(given, table.params)
    found = {}
    for leaf in leaves:
        path = longest_prefix(leaf.path, stated)
        if path is not None:
            _check_axes(stated[path], leaf)
            found[leaf.path] = stated[path]
    return found


def _stated_numbers(given: Any, params: Tree) -> dict[str, Any]:
    """Return dimension numbers by path, of parameters or of parents.

    Raises:
        ValueError: another value than dimension numbers; a path without a
            parameter.
    """
    kind = optax.contrib.MuonDimensionNumbers
    if callable(given):
        given = given(params)
    pairs, _ = jax.tree_util.tree_flatten_with_path(
        given, is_leaf=lambda x: isinstance(x, kind)
    )
    paths = normalize_paths([path for path, _ in pairs])
    stated = dict(zip(paths, (numbers for _, numbers in pairs), strict=True))
    for path, numbers in stated.items():
        if not isinstance(numbers, kind):
            raise ValueError(
                f"weight_dimension_numbers have {short_repr(numbers)} at"
                f" {path!r}: pass optax.contrib.MuonDimensionNumbers of the"
                " axes, not a tuple, or None."
            )
    known = [x.path for x in leaves_with_paths(params)]
    for path in stated:
        if not any(is_within(x, path) for x in known):
            raise ValueError(
                f"weight_dimension_numbers state {path!r}, where params have no"
                f" parameter: pass paths of params, such as {known[0]!r}."
            )
    return stated


def _check_axes(
    numbers: optax.contrib.MuonDimensionNumbers, leaf: GroupedLeaf
) -> None:
    """Require dimension numbers that fit a parameter."""
    rank = len(leaf.shape)
    axes = [axis for x in numbers for axis in np.atleast_1d(x)]
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(
            f"weight_dimension_numbers={short_repr(numbers)} do not fit {leaf}:"
            " pass optax.contrib.MuonDimensionNumbers of its axes, or None."
        )
