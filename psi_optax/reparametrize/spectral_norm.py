"""Parameters of spectral norm one."""

import jax
import jax.numpy as jnp

from psi_optax._validation import check_period
from psi_optax.groups import Groups, Tree, make_plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.reparametrize._centering import nonzero_norm
from psi_optax.reparametrize._matrices import check_whole, from_rows, to_rows
from psi_optax.transforms.contract import cast_like

_EXACT = jax.lax.Precision.HIGHEST


def spectral(params: Tree, groups: Groups, *, steps: int = 10) -> Tree:
    r"""Divide each parameter by its largest singular value.

    A group is a row of the matrix. A power iteration starts at the longest row
    in each call, so no state is kept. After t steps the value is too small by a
    relative error of at most about \((s_2/s_1)^{4t}\), for the two largest
    singular values. Derivatives are those of \(u^\top W v\) for fixed vectors.
    The parameter as a whole is a scale group.

    Args:
        params: arrays.
        groups: scale groups in any form, each a row.
        steps: the number of steps of the power iteration.

    Returns:
        A tree like params. Ordinary parameters are unchanged; a parameter of
        zeros stays zero.

    Raises:
        TypeError: steps are not a number.
        ValueError: groups do not fit params; steps are not a positive integer.
        NotImplementedError: ties, or an `axis_name`: the whole matrix is
            needed.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> kernel = jnp.array([[3.0, 0.0], [0.0, 4.0]])
        >>> spectral(kernel, ScaleGroup(axes=0)).tolist()
        [[0.75, 0.0], [0.0, 1.0]]

    References:
        Miyato et al., [Spectral
        normalization](https://arxiv.org/abs/1802.05957), ICLR 2018, algorithm
        1, without its state.
    """
    check_period("steps", steps)
    plan = make_plan(groups, params)
    check_whole(plan, "spectral")
    w = plan.select(params)
    moved = {}
    for leaf in plan.leaves:
        if 0 in leaf.shape:
            moved[leaf.path] = w[leaf.path]
            continue
        matrix = to_rows(leaf, to_accumulator(w[leaf.path]))
        moved[leaf.path] = from_rows(leaf, _divided(matrix, steps))
    return plan.merge(params, cast_like(moved, w))


def _divided(matrix: jax.Array, steps: int) -> jax.Array:
    """Divide a matrix by its largest singular value."""
    square = jnp.sum(matrix * matrix)
    # All that follows is scale-invariant, the power iteration too.
    matrix = matrix / nonzero_norm(square, square, jnp.ones_like(square))
    u, v = _singular_vectors(jax.lax.stop_gradient(matrix), steps)
    value = jnp.dot(u, jnp.dot(matrix, v, precision=_EXACT), precision=_EXACT)
    return matrix / jnp.where(value == 0, 1, value)


def _singular_vectors(
    matrix: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    """Return vectors of the largest singular value; zeros of zeros."""

    def step(
        _: int, vectors: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        u = _unit(jnp.dot(matrix, vectors[1], precision=_EXACT))
        return u, _unit(jnp.dot(u, matrix, precision=_EXACT))

    # No matrix but zero has its longest row in its null space.
    longest = jnp.argmax(jnp.sum(matrix * matrix, axis=1))
    start = jnp.zeros_like(matrix[:, 0]), _unit(matrix[longest])
    return jax.lax.fori_loop(0, steps, step, start)


def _unit(x: jax.Array) -> jax.Array:
    norm = jnp.sqrt(jnp.sum(x * x))
    return x / jnp.where(norm == 0, 1, norm)
