"""Placement of batches, weights and optimizer states on a mesh of devices.

- `data` divides a batch; weights are on each of its devices;
- `fsdp` divides a batch, and the weights and the optimizer's state as well;
  weights are gathered for the forward and the backward pass alone;
- `model` divides output channels, and the activations computed of them.

Only weights of two or more axes are divided, along axes that divide evenly:
`model` takes the last one, the output channels, `fsdp` the last one left. Scale
groups lie along the others: their sums need no communication while it suffices.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "model")

AXIS_TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}


class Layout(NamedTuple):
    """A mesh with the axes `AXES`, and the shardings of arrays on it."""

    mesh: jax.sharding.Mesh

    @property
    def parts(self) -> int:
        """Number of parts that a batch is divided into."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def batch(self) -> NamedSharding:
        """Sharding of a batch, along its first axis."""
        return self._named([("data", "fsdp")])

    @property
    def everywhere(self) -> NamedSharding:
        """Sharding of arrays that are whole on each device."""
        return self._named([])

    def shardings(self, params: Any) -> Any:
        """Return the shardings of weights between two steps."""
        return jax.tree.map(self._weight, params)

    def shapes(self, params: Any) -> Any:
        """Return the shapes of weights with their shardings."""
        shape = jax.ShapeDtypeStruct
        return jax.tree.map(
            lambda x: shape(x.shape, x.dtype, sharding=self._weight(x)), params
        )

    def gather(self, params: Any) -> Any:
        """Gather weights along `fsdp`, as the forward pass needs them."""
        explicit = AxisType.Explicit in self.mesh.axis_types
        move = (
            jax.sharding.reshard
            if explicit
            else jax.lax.with_sharding_constraint
        )
        return jax.tree.map(
            lambda x: move(x, self._weight(x, "model").spec), params
        )

    def init(self, optimizer: optax.GradientTransformation, params: Any) -> Any:
        """Initialize an optimizer's state, divided as the weights are."""
        places = self.state_shardings(optimizer, params)
        return jax.jit(optimizer.init, out_shardings=places)(params)

    def state_shardings(
        self, optimizer: optax.GradientTransformation, params: Any
    ) -> Any:
        """Return the shardings of a state: of weights, or of their groups."""
        # On explicit axes they follow from types. On automatic ones the
        # compiler would place all zeros on every device.
        types = (AxisType.Explicit,) * len(AXES)
        typed = Layout(self.mesh.update(axis_types=types))
        with jax.set_mesh(typed.mesh):
            states = jax.eval_shape(optimizer.init, typed.shapes(params))
        return jax.tree.map(
            lambda x: self._named(getattr(x.sharding, "spec", ())), states
        )

    def put(self, shape: tuple[int, ...], load: Callable) -> jax.Array:
        """Put a batch on its devices; each process loads its slices once."""
        rows = functools.cache(lambda start, stop: load(slice(start, stop)))

        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(shape[0])
            return rows(start, stop)

        return jax.make_array_from_callback(shape, self.batch, part)

    def _weight(self, x: Any, *names: str) -> NamedSharding:
        """Return a weight's sharding along these axes of the mesh, or all."""
        parts: list[str | None] = [None] * x.ndim
        last = x.ndim - 1
        takes = {"model": [last], "fsdp": range(last, -1, -1)}
        for name, axes in takes.items() if x.ndim > 1 else ():
            size = self.mesh.shape[name]
            free = (a for a in axes if not parts[a] and x.shape[a] % size == 0)
            if size > 1 and (axis := next(free, None)) is not None:
                parts[axis] = name
        return self._named(p if p in (names or AXES) else None for p in parts)

    def _named(self, parts: Iterable[Any]) -> NamedSharding:
        kept = list(parts)
        # The compiler omits None at the end, and equality sees the difference.
        while kept and kept[-1] is None:
            kept.pop()
        return NamedSharding(self.mesh, PartitionSpec(*kept))


def make_layout(sizes: Mapping[str, Any], axes: str = "auto") -> Layout:
    """Make a mesh; by default `data` has all devices that are left."""
    there = jax.device_count()
    defaults: dict[str, Any] = {"data": None, "fsdp": 1, "model": 1}
    data, fsdp, model = {**defaults, **sizes}.values()
    if data is None:
        data, rest = divmod(there, max(fsdp * model, 1))
        if rest or not data:
            raise ValueError(
                f"--mesh.fsdp {fsdp} --mesh.model {model}: the number of"
                f" devices, {there}, is no multiple of {fsdp * model}."
            )
    shape = (data, fsdp, model)
    said = " ".join(f"--mesh.{n} {k}" for n, k in zip(AXES, shape, strict=True))
    count = math.prod(shape)
    least = there if jax.process_count() > 1 else 1
    if min(shape) < 1 or not least <= count <= there:
        raise ValueError(f"{said} has {count} devices, and there are {there}.")
    if axes == "explicit" and model > 1:
        raise ValueError(
            f"{said} --mesh.axes explicit: the networks do not say where sums"
            " over divided channels are to be: divide with --mesh.axes auto."
        )
    types = (AXIS_TYPES[axes],) * len(AXES)
    devices = jax.devices()[:count]
    return Layout(jax.make_mesh(shape, AXES, axis_types=types, devices=devices))
