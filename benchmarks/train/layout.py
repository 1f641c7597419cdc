"""What lies on which device: batches, weights, and the optimizer's state.

A mesh of devices has up to three axes, and their names say what they are for:

- `data`: a batch is divided among the devices, and weights are on each of them;
- `fsdp`: a batch is divided, and the weights and the optimizer's state are as
  well; weights are gathered for the forward and the backward pass alone;
- `model`: output channels are divided, and what is computed of them.

Only weights of two or more axes are divided, and only where the number of
devices divides an axis: `model` takes the last one, the output channels, and
`fsdp` the last one that is left. Scale groups lie along the other axes, so that
their sums need no communication as long as the last axis will do.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = ["AXES", "AXIS_TYPES", "Layout", "make_layout"]

AXES = ("data", "fsdp", "model")
"""The axes that a mesh may have."""

AXIS_TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
"""What the axes may be, by name."""


class Layout(NamedTuple):
    """A mesh, and how it is used.

    Attributes:
        mesh: with the axes `AXES`, all of one type.
    """

    mesh: Mesh

    @property
    def is_explicit(self) -> bool:
        """Whether shardings are part of the types of arrays."""
        return AxisType.Explicit in self.mesh.axis_types

    @property
    def parts(self) -> int:
        """Among how many devices a batch is divided."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def batch(self) -> NamedSharding:
        """Where the examples of a batch are."""
        return self._named([("data", "fsdp")])

    @property
    def everywhere(self) -> NamedSharding:
        """All of it on each device."""
        return self._named([])

    def shardings(self, params: Any) -> Any:
        """Where the weights are between two steps: a tree like params."""
        return jax.tree.map(
            lambda x: self._weights(x, ("model", "fsdp")), params
        )

    def gather(self, params: Any) -> Any:
        """Weights as the forward pass needs them: not divided along `fsdp`."""
        move = jax.reshard if self.is_explicit else _constrain
        return jax.tree.map(
            lambda x: move(x, self._weights(x, ("model",))), params
        )

    def init(self, optimizer: optax.GradientTransformation, params: Any) -> Any:
        """The optimizer's state, where `state_shardings` says."""
        shardings = self.state_shardings(optimizer, params)
        return jax.jit(optimizer.init, out_shardings=shardings)(params)

    def state_shardings(
        self, optimizer: optax.GradientTransformation, params: Any
    ) -> Any:
        """Where the optimizer's state is between two steps.

        Args:
            optimizer: any.
            params: the weights, or their shapes.

        Returns:
            A tree like the state. What is like the weights is where they are,
            and a number for each group where the group is.
        """
        # Types follow from what is computed; without them the compiler would
        # have all zeros on every device.
        typed = Layout(_of_type(self.mesh, "explicit"))
        with jax.set_mesh(typed.mesh):
            states = jax.eval_shape(optimizer.init, typed.shapes(params))
        return jax.tree.map(
            lambda x: self._named(getattr(x.sharding, "spec", ())), states
        )

    def shapes(self, params: Any) -> Any:
        """The shapes of the weights, and where they are between two steps."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=self._weights(x)
            ),
            params,
        )

    def put(self, count: int, load: Callable[[slice], np.ndarray]) -> jax.Array:
        """A batch on the devices, of which each process loads its part.

        Args:
            count: number of examples.
            load: the examples in a slice of the batch.

        Returns:
            An array of `count` examples.
        """
        shape = (count,)
        places = self.batch.addressable_devices_indices_map(shape)
        rows = {_ends(index, count) for index in places.values()}
        loaded = {ends: load(slice(*ends)) for ends in rows}
        example = next(iter(loaded.values()))
        return jax.make_array_from_callback(
            (count, *example.shape[1:]),
            self.batch,
            lambda index: loaded[_ends(index, count)],
        )

    def _weights(
        self, x: Any, names: tuple[str, ...] = ("model", "fsdp")
    ) -> NamedSharding:
        """Where a weight is, as far as these axes of the mesh divide it."""
        parts: list[str | None] = [None] * x.ndim
        last = x.ndim - 1
        takes = {"model": [last], "fsdp": range(last, -1, -1)}
        for name, axes in takes.items() if x.ndim > 1 else ():
            size = self.mesh.shape[name]
            free = (
                axis
                for axis in axes
                if parts[axis] is None and x.shape[axis] % size == 0
            )
            axis = next(free, None)
            if size > 1 and axis is not None:
                parts[axis] = name
        return self._named(part if part in names else None for part in parts)

    def _named(self, parts: Iterable[Any]) -> NamedSharding:
        kept = list(parts)
        # Automatic axes leave out None at the end.
        while kept and kept[-1] is None:
            kept.pop()
        return NamedSharding(self.mesh, PartitionSpec(*kept))


def make_layout(sizes: dict[str, int], axes: str = "auto") -> Layout:
    """A layout on the first devices there are.

    Args:
        sizes: number of devices along each axis of the mesh, by name; 1 along
            those that are not named.
        axes: "auto", where the compiler decides what it moves, or "explicit",
            where the types say where everything is.

    Returns:
        The layout.

    Raises:
        ValueError: no such axis; more devices than there are, or fewer than
            the processes have; explicit axes, of which one is `model`.

    Examples:
        >>> make_layout({"data": 1}).parts
        1
    """
    unknown = set(sizes) - set(AXES)
    if unknown or min(sizes.values(), default=1) < 1:
        raise ValueError(
            f"--mesh {_shown(sizes)}: the axes are {', '.join(AXES)}, each of"
            " one device or more, as in --mesh data=4,model=2."
        )
    if axes == "explicit" and sizes.get("model", 1) > 1:
        raise ValueError(
            f"--mesh {_shown(sizes)} --axes explicit: the networks do not say"
            " where the sums over divided channels are to be. Divide output"
            " channels with --axes auto."
        )
    shape = tuple(sizes.get(name, 1) for name in AXES)
    count, there = math.prod(shape), jax.device_count()
    if count > there or (jax.process_count() > 1 and count < there):
        raise ValueError(
            f"--mesh {_shown(sizes)} has {count} devices, and there are"
            f" {there}{' in all processes' * (jax.process_count() > 1)}."
        )
    return Layout(
        jax.make_mesh(
            shape,
            AXES,
            axis_types=(AXIS_TYPES[axes],) * len(AXES),
            devices=jax.devices()[:count],
        )
    )


def _shown(sizes: dict[str, int]) -> str:
    return ",".join(f"{name}={size}" for name, size in sizes.items())


def _of_type(mesh: Mesh, axes: str) -> Mesh:
    """The same mesh with axes of another type."""
    types = (AXIS_TYPES[axes],) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=types)


def _ends(index: Any, count: int) -> tuple[int, int]:
    """Where the rows of an index begin and end."""
    start, stop, _ = index[0].indices(count)
    return start, stop


def _constrain(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, sharding)
