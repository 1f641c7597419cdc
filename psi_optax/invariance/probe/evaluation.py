"""Evaluate a loss, and its gradient, in double precision."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups.paths import map_with_path
from psi_optax.groups.types import Tree
from psi_optax.invariance import jaxprs
from psi_optax.invariance.hoisting import hoist_constants, inner_constants
from psi_optax.invariance.tracing import TracedLoss

# By path. In NumPy: JAX would compile for each shape of an array.
Weights = dict[str, np.ndarray]


class UnmeasurableError(ValueError):
    """A loss that cannot be evaluated, or differentiated, on this machine."""


class Evaluator:
    """A loss in double precision, or in its own where it refuses that.

    It is traced once, and compiled once for each set of parameters whose
    gradient is asked for.

    Attributes:
        given: the given floating-point weights, by path.
        data: all other inputs of the loss: the arrays that it closes over, and
            its arguments.
        program: the jaxpr.
        fixed: arrays that functions inside of its loops close over.
        precision: the rounding of the coarsest dtype that it computes in.
    """

    def __init__(self, loss: TracedLoss, random: np.random.Generator) -> None:
        weights = {e.path: e.leaf for e in loss.parameters if is_float(e.leaf)}
        # Shards stay where they are: a loss may depend on it.
        self._shardings = {
            path: w.sharding
            for path, w in weights.items()
            if isinstance(w, jax.Array) and len(w.devices()) > 1
        }
        self._sent: dict[str, tuple[np.ndarray, jax.Array]] = {}
        held = {path: jax.device_get(w) for path, w in weights.items()}
        try:
            self.program, found = self._trace(loss, held, _widened)
        except (TypeError, ValueError):
            # A loss may refuse doubles: one that writes to single-precision
            # variables of its own, such as running averages.
            self.program, found = self._trace(loss, held, _as_given)
        self.precision = _precision(self.program)
        self._call, constants = jaxprs.without_constants(self.program)
        self.data = constants, self._args
        self.fixed = list(inner_constants(self.program))
        self._factors = random.normal(size=found.shape)
        self._compiled = functools.cache(self._compile)

    def _trace(
        self, loss: TracedLoss, held: Weights, convert: Callable[[Any], Any]
    ) -> tuple[Any, Any]:
        self.given = {path: convert(w) for path, w in held.items()}
        self._args = jax.tree.map(convert, loss.args)
        flat = functools.partial(_flat_loss, loss)
        args = self._placed(self.given), self._args
        program, found = jaxprs.make_jaxpr(flat, *args)
        return hoist_constants(program, *args), found

    def __call__(
        self, weights: Weights, data: Any, paths: frozenset[str] = frozenset()
    ) -> tuple[np.ndarray, Weights]:
        r"""Return all arrays of the loss, as one vector, and a gradient.

        Args:
            weights: the weights, by path.
            data: like `self.data`.
            paths: the parameters whose gradient is returned: that of a sum over
                the vector with random factors.

        Raises:
            UnmeasurableError: the loss does not run, or has no derivative.
        """
        compiled, placed = self._compiled(paths), self._placed(weights)
        try:
            return jax.device_get(compiled(placed, data))
        except Exception as error:
            # A kernel of another device, a callback without a derivative.
            failure = "has no derivative" if paths else "does not run"
            first = next(iter(str(error).splitlines()), "")
            raise UnmeasurableError(
                f"the loss {failure} in double precision here"
                f" ({type(error).__name__}: {first})"
            ) from error

    def _compile(self, paths: frozenset[str]) -> Callable[..., Any]:
        def value(weights: Tree, data: Any) -> jax.Array:
            constants, args = data
            [found] = self._call(constants, *jax.tree.leaves((weights, args)))
            return found

        def total(
            some: Tree, weights: Tree, data: Any
        ) -> tuple[jax.Array, jax.Array]:
            found = value(weights | some, data)
            return jnp.vdot(jnp.asarray(self._factors), found), found

        def value_and_gradient(
            weights: Tree, data: Any
        ) -> tuple[jax.Array, Tree]:
            if not paths:
                return value(weights, data), {}
            some = {path: weights[path] for path in paths}
            gradient, found = jax.grad(total, has_aux=True)(some, weights, data)
            return found, gradient

        return jax.jit(value_and_gradient, compiler_options=_options())

    def _placed(self, weights: Weights) -> dict[str, jax.Array]:
        """Return arrays on devices; arrays already there are not sent again."""
        for path, w in weights.items():
            if path not in self._sent or self._sent[path][0] is not w:
                placed = jax.device_put(w, self._shardings.get(path))
                self._sent[path] = w, placed
        return {path: self._sent[path][1] for path in weights}


def is_float(x: Any) -> bool:
    """Check that an object is an array of real floating-point numbers."""
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, np.floating)


def _options() -> dict[str, int]:
    """Return compiler options: for few runs, compilation takes the longest.

    Without any optimization, convolutions in double precision take ten times
    as long.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else {}


def _as_given(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) else jnp.asarray(x)


def _widened(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(np.float64) if is_float(x) else x
    if is_float(x):
        return jnp.asarray(x, jnp.float64)
    if getattr(x, "weak_type", False) and jnp.issubdtype(x.dtype, np.integer):
        return x + 0  # As the loss would widen a counter, by adding to it.
    return x


def _flat_loss(
    loss: TracedLoss, weights: dict[str, jax.Array], args: tuple[Any, ...]
) -> jax.Array:
    """Return all arrays of a loss as one vector."""
    tree = map_with_path(lambda path, w: weights.get(path, w), loss.params)
    found = [jnp.ravel(x) for x in jax.tree.leaves(loss.function(tree, *args))]
    return jnp.concatenate([x.astype(jnp.float64) for x in found])


def _precision(program: Any) -> float:
    """Return the rounding of the coarsest dtype that a program computes in."""
    dtypes = jaxprs.dtypes_of(program)
    floats = [d for d in dtypes if jnp.issubdtype(d, np.floating)]
    return max((float(jnp.finfo(d).eps) for d in floats), default=0.0)
