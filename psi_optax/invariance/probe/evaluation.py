"""The loss as a compiled function of its weights, in double precision."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups.paths import Tree, entries, map_with_path
from psi_optax.invariance import jaxprs

# In numpy: in JAX each shape of an array would be compiled for.
Leaves = dict[str, np.ndarray]


class UnmeasurableError(ValueError):
    """A loss that cannot be evaluated, or differentiated, on this machine."""


class Evaluator:
    """A loss in double precision, or in its own where it refuses that.

    It is traced once, and compiled once for each set of parameters that a
    gradient is asked for.

    Attributes:
        given: the floating-point weights that are given, by path.
        data: all else that the loss reads: the arrays that it closes over, and
            its arguments.
        precision: the rounding of the coarsest dtype that it computes in.
    """

    def __init__(
        self,
        loss: Callable,
        params: Tree,
        args: tuple,
        random: np.random.Generator,
    ):
        shown = [entry for entry in entries(params) if not entry.is_hole]
        floats = {e.path: e.leaf for e in shown if is_float(e.leaf)}
        # Shards stay where they are: a loss may depend on it.
        self._shardings = {
            path: leaf.sharding
            for path, leaf in floats.items()
            if isinstance(leaf, jax.Array) and len(leaf.devices()) > 1
        }
        self._sent: dict[str, tuple[np.ndarray, jax.Array]] = {}
        held = {path: jax.device_get(w) for path, w in floats.items()}
        flat = functools.partial(_flat_loss, loss, params)
        try:
            program, found = self._trace(flat, held, args, _wide)
        except (TypeError, ValueError):
            # A loss may refuse doubles: one that writes to single-precision
            # variables of its own, running averages for example.
            program, found = self._trace(flat, held, args, _as_given)
        self.precision = _precision(program)
        self._call, constants = jaxprs.without_constants(program)
        self.data = constants, self._args
        self._weights = random.normal(size=found.shape)
        self._compiled = functools.cache(self._compile)

    def _trace(
        self, flat: Callable, held: Leaves, args: tuple, convert: Callable
    ) -> tuple[Any, Any]:
        self.given = {path: convert(w) for path, w in held.items()}
        self._args = jax.tree.map(convert, args)
        return jaxprs.make_jaxpr(flat, self._placed(self.given), self._args)

    def __call__(
        self, leaves: Leaves, data: Any, paths: frozenset[str] = frozenset()
    ) -> tuple[np.ndarray, Leaves]:
        r"""Return all that the loss returns, as one vector, and a gradient.

        Args:
            leaves: the weights.
            data: like `self.data`.
            paths: the parameters whose gradient is returned, that of a sum with
                random weights over the vector.

        Raises:
            UnmeasurableError: the loss does not run, or has no derivative.
        """
        compiled, placed = self._compiled(paths), self._placed(leaves)
        try:
            return jax.device_get(compiled(placed, data))
        except Exception as error:
            # A kernel of another device, a callback without a derivative.
            what = "has no derivative" if paths else "does not run"
            first = next(iter(str(error).splitlines()), "")
            raise UnmeasurableError(
                f"the loss {what} in double precision here"
                f" ({type(error).__name__}: {first})"
            ) from error

    def _compile(self, paths: frozenset[str]) -> Callable:
        def value(leaves, data):
            constants, args = data
            [found] = self._call(constants, *jax.tree.leaves((leaves, args)))
            return found

        def total(some, leaves, data):
            found = value(leaves | some, data)
            return jnp.vdot(jnp.asarray(self._weights), found), found

        def value_and_gradient(leaves, data):
            if not paths:
                return value(leaves, data), {}
            some = {path: leaves[path] for path in paths}
            gradient, found = jax.grad(total, has_aux=True)(some, leaves, data)
            return found, gradient

        return jax.jit(value_and_gradient, compiler_options=_options())

    def _placed(self, leaves: Leaves) -> dict[str, jax.Array]:
        """Return arrays on devices; what is there already is not sent again."""
        for path, w in leaves.items():
            if path not in self._sent or self._sent[path][0] is not w:
                placed = jax.device_put(w, self._shardings.get(path))
                self._sent[path] = w, placed
        return {path: self._sent[path][1] for path in leaves}


def is_float(x: Any) -> bool:
    """Return whether something is an array of real floating-point numbers."""
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, np.floating)


def _options() -> dict[str, int]:
    """Return compiler options: of few runs the compilation takes the longest.

    Without any optimization, convolutions in double precision take ten times
    as long.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else {}


def _as_given(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) else jnp.asarray(x)


def _wide(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(np.float64) if is_float(x) else x
    return jnp.asarray(x, jnp.float64) if is_float(x) else x


def _flat_loss(
    loss: Callable, params: Tree, leaves: Mapping, args: tuple
) -> jax.Array:
    tree = map_with_path(lambda path, w: leaves.get(path, w), params)
    found = [jnp.ravel(x) for x in jax.tree.leaves(loss(tree, *args))]
    floats = [x.astype(jnp.float64) for x in found]
    return jnp.concatenate(floats)


def _precision(program: Any) -> float:
    floats = [
        d for d in jaxprs.dtypes(program) if jnp.issubdtype(d, np.floating)
    ]
    return max((float(jnp.finfo(d).eps) for d in floats), default=0.0)
