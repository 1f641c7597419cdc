"""Square roots and quotients without NaN, and values with other derivatives."""

import jax
import jax.numpy as jnp


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Return the square root, with derivative zero at zero. NaN stays NaN."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the quotient, and zero if the denominator is zero.

    It is NaN if the denominator is infinite, as an overflown sum of squares.
    """
    # The division is last: XLA computes it once, where it would repeat selects
    # after it for every element that the quotient is broadcast to.
    zero = y == 0
    y = jnp.where(zero, 1, jnp.where(jnp.isinf(y), jnp.nan, y))
    return jnp.where(zero, 0, x) / y


@jax.custom_jvp
def replace_value(smooth: jax.Array, value: jax.Array) -> jax.Array:
    """Return `value`, with the derivatives of `smooth` of every order.

    The rules for rounding and for zero steps change a value by its rounding at
    most, but would change its derivative entirely.
    """
    del smooth
    return value


@replace_value.defjvp
def _derivative_of_smooth(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return replace_value(*primals), tangents[0]
