"""Estimate the cost of measurements from a program, to choose the cheaper."""

import math
from typing import Any

from psi_optax import _compat
from psi_optax.invariance import jaxprs

# To compile the gradient of an equation takes as long as this many
# multiplications of a matrix product, in double precision on a CPU. Those of a
# convolution take a few times as long there.
_COMPILATION = 2.5e7
_CONVOLUTION = 4


def is_gradient_cheaper(program: Any, evaluations: int) -> bool:
    """Check that a gradient costs less than evaluations of a program.

    Args:
        program: the jaxpr.
        evaluations: their number. The gradient is not compiled yet.
    """
    compilation = _COMPILATION * sum(1 for _ in jaxprs.all_equations(program))
    return evaluations * count_operations(program) > compilation


def count_operations(program: Any) -> int:
    """Return the number of multiplications and of results of a program.

    A loop of unknown length counts once, a branch as all of its cases.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> w = jnp.ones((3, 4))
        >>> count_operations(jax.make_jaxpr(lambda x: x @ w)(jnp.ones((2, 3))))
        24
    """
    inner, _ = jaxprs.open_jaxpr(program)
    return sum(map(_operations, inner.eqns))


def _operations(equation: Any) -> int:
    bodies = list(_compat.jaxprs_in_params(equation.params))
    if bodies:
        turns = equation.params.get("length", 1)
        return turns * sum(map(count_operations, bodies))
    results = sum(math.prod(jaxprs.shape_of(v)) for v in equation.outvars)
    return results * _operations_of_each(equation)


def _operations_of_each(equation: Any) -> int:
    """Return the number of multiplications for each element of a result."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = jaxprs.shape_of(equation.invars[0])
        return math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = jaxprs.shape_of(equation.invars[1])
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return _CONVOLUTION * math.prod(kernel) // max(features, 1)
    return 1
