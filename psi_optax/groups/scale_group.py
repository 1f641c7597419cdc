"""The statement of one parameter's scale groups: the axes they lie along."""

import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, init=False)
class ScaleGroup:
    """The scale groups of one leaf: weights that share one positive scale.

    Multiplying the weights of a group by a positive number leaves the loss
    unchanged. A `ScaleGroup` is hashable and a leaf to `jax.tree` functions.

    Attributes:
        axes: the axes along which a group lies, those summed over for a norm;
            each index of the other axes is a separate group. An int or a
            tuple; negative axes count from the end; `()` makes each element a
            group, which is useful only in a tie.
        blocks: `{axis: n}` cuts an axis of `axes` into n equal blocks with
            separate groups, as GroupNorm does with channels.
        tie: leaves with the same tie form joint groups: a kernel and its bias
            in front of LayerNorm, or a whole network. Their group shapes must
            be equal.
        axis_name: the mesh axis, or axes, over which this leaf's `axes` are
            sharded *inside* `jax.shard_map` or `jax.pmap`, where its sums need
            a `psum`. It must not name one over which the leaf is replicated,
            whose copies would be added up, and a blocked axis must not be
            sharded. Outside of them the leaf is whole and the name has no
            effect.

    Raises:
        TypeError: an axis, a block count or a name is not of its type.
        ValueError: an axis is repeated, or a block count is not positive.

    Examples:
        >>> ScaleGroup(axes=0)  # a column of a Dense kernel (in, out)
        ScaleGroup(axes=(0,))
        >>> ScaleGroup(axes=(0, 1, 2))  # a filter of a Conv kernel (H, W, I, O)
        ScaleGroup(axes=(0, 1, 2))
        >>> ScaleGroup(axes=(0, 1, 2, 3), blocks={3: 8})  # before GroupNorm(8)
        ScaleGroup(axes=(0, 1, 2, 3), blocks={3: 8})
    """

    axes: tuple[int, ...]
    blocks: tuple[tuple[int, int], ...]
    tie: str | None
    axis_name: str | tuple[str, ...] | None

    def __init__(
        self,
        axes: int | Iterable[int],
        blocks: Mapping[int, int] | Iterable[tuple[int, int]] | None = None,
        tie: str | None = None,
        axis_name: str | Iterable[str] | None = None,
    ) -> None:
        pairs = blocks.items() if isinstance(blocks, Mapping) else blocks
        fields = {
            "axes": _integers(axes, "axes"),
            "blocks": _blocks(() if pairs is None else pairs),
            "tie": None if tie is None else _string(tie, "tie"),
            "axis_name": _names(axis_name),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if any(count < 1 for _, count in self.blocks):
            raise ValueError(f"{self}: a block count must be positive")
        for which in (self.axes, [axis for axis, _ in self.blocks]):
            if len(set(which)) < len(which):
                raise ValueError(f"{self}: an axis is repeated")

    def __repr__(self) -> str:
        shown = {
            "axes": self.axes,
            "blocks": dict(self.blocks) or None,
            "tie": self.tie,
            "axis_name": self.axis_name,
        }
        fields = [f"{k}={v!r}" for k, v in shown.items() if v is not None]
        return f"ScaleGroup({', '.join(fields)})"

    def resolve(self, shape: tuple[int, ...]) -> "ScaleGroup":
        """Return the same groups with sorted, non-negative axes.

        Args:
            shape: the shape of the leaf.

        Returns:
            The canonical statement: equal groups give equal objects.

        Raises:
            ValueError: an axis that is out of range, or repeated once negative
                axes are counted; a blocked axis that is not among `axes`; a
                block count that does not divide the axis.

        Examples:
            >>> ScaleGroup(axes=(-2, 0)).resolve((3, 4, 5))
            ScaleGroup(axes=(0, 1))
        """
        rank = len(shape)
        for axis in (*self.axes, *(axis for axis, _ in self.blocks)):
            if not -rank <= axis < rank:
                raise ValueError(f"axis {axis} is out of range")
        axes = sorted(axis % rank for axis in self.axes)
        blocks = {axis % rank: count for axis, count in self.blocks}
        if len(set(axes)) < len(axes) or len(blocks) < len(self.blocks):
            raise ValueError("an axis is repeated")
        for axis, count in blocks.items():
            if axis not in axes:
                raise ValueError(f"the blocked axis {axis} is not in axes")
            if shape[axis] % count:
                raise ValueError(
                    f"{count} blocks do not divide axis {axis}, of length"
                    f" {shape[axis]}"
                )
        return ScaleGroup(axes, blocks, self.tie, self.axis_name)

    def group_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a scalar per group; axes must be resolved.

        Examples:
            >>> ScaleGroup(axes=(0, 1, 2)).group_shape((3, 3, 16, 32))
            (32,)
        """
        blocks = dict(self.blocks)
        return tuple(
            blocks.get(axis, length)
            for axis, length in enumerate(shape)
            if axis not in self.axes or axis in blocks
        )

    def group_size(self, shape: tuple[int, ...]) -> int:
        """Return the number of elements in one group; axes must be resolved."""
        count = math.prod(self.group_shape(shape))
        return math.prod(shape) // count if count else 0


def _integers(value: Any, name: str) -> tuple[int, ...]:
    """Return one index or several, of any integer type, as ints."""
    many = value if isinstance(value, Iterable) else (value,)
    for one in many:
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise TypeError(
                f"{name}={value!r}: {one!r} is not an int; pass an int or a"
                " tuple of ints."
            )
    return tuple(operator.index(one) for one in many)


def _blocks(pairs: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(pairs, Iterable):
        raise TypeError(f"blocks={pairs!r}: write {{axis: n}}.")
    listed = [_integers(pair, "blocks") for pair in pairs]
    if any(len(pair) != 2 for pair in listed):
        raise TypeError(f"blocks={pairs!r}: write {{axis: n}}.")
    return tuple(sorted((axis, count) for axis, count in listed))


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: {value!r} is not a str.")
    return value


def _names(value: Any) -> str | tuple[str, ...] | None:
    if value is None or isinstance(value, str):
        return value
    many = value if isinstance(value, Iterable) else (value,)
    return tuple(_string(one, "axis_name") for one in many)
