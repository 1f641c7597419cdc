r"""Natural gradients of a graph convolutional network, on a graph of 34 nodes.

With the normalized adjacency matrix \(\hat A\), a layer \(\hat A X W\) is a
dense layer on \(\hat A X\). So its Kronecker factors are those of a dense
layer: the second moment of the rows of \(\hat A X\), and that of gradients with
respect to its outputs, for labels that the network predicts. All nodes
contribute to the factors, with or without a label.

The graph is Zachary's karate club: friendships of 34 members, and the club that
each of them joined after it split. Features are one-hot: X = I.

References:
    Izadi, Fang, Stevenson and Lin, [Optimization of graph neural networks with
    natural gradient descent](https://arxiv.org/abs/2008.09624), 2020; Martens
    and Grosse, [Optimizing neural networks with Kronecker-factored approximate
    curvature](https://arxiv.org/abs/1503.05671), ICML 2015; Zachary, An
    information flow model for conflict and fission in small groups, Journal of
    Anthropological Research 33(4), 1977.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.recipes.natural_gradient import centered_roots, preconditioner
from psi_optax import ScaleGroup

NODES = 34

# Node: neighbours with a higher number.
_NEIGHBOURS = {
    0: (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31),
    1: (2, 3, 7, 13, 17, 19, 21, 30),
    2: (3, 7, 8, 9, 13, 27, 28, 32),
    3: (7, 12, 13),
    4: (6, 10),
    5: (6, 10, 16),
    6: (16,),
    8: (30, 32, 33),
    9: (33,),
    13: (33,),
    14: (32, 33),
    15: (32, 33),
    18: (32, 33),
    19: (33,),
    20: (32, 33),
    22: (32, 33),
    23: (25, 27, 29, 32, 33),
    24: (25, 27, 31),
    25: (31,),
    26: (29, 33),
    27: (33,),
    28: (31, 33),
    29: (32, 33),
    30: (32, 33),
    31: (32, 33),
    32: (33,),
}
EDGES = tuple((a, b) for a, others in _NEIGHBOURS.items() for b in others)
"""The 78 edges, each once."""

_FIRST_CLUB = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 17, 19, 21)
LABELS = np.array([int(node not in _FIRST_CLUB) for node in range(NODES)])
"""The club that each member joined: 0 or 1."""

GROUPS = {"hidden": ScaleGroup(axes=0), "head": None}


class Factors(NamedTuple):
    """The factors of a layer's Fisher matrix, inputs x outputs.

    Attributes:
        inputs: second moment of the layer's inputs, shape (a, a).
        outputs: second moment of gradients of its outputs, shape (b, b).
    """

    inputs: jax.Array
    outputs: jax.Array


def adjacency() -> np.ndarray:
    """Return the normalized adjacency matrix of the graph with self-loops.

    Examples:
        >>> matrix = adjacency()
        >>> matrix.shape, bool((matrix == matrix.T).all())
        ((34, 34), True)
    """
    matrix = np.eye(NODES)
    for a, b in EDGES:
        matrix[a, b] = matrix[b, a] = 1
    root = 1 / np.sqrt(matrix.sum(1))
    return root[:, None] * matrix * root


def init_params(key: jax.Array, width: int = 8) -> dict[str, jax.Array]:
    """Draw the kernels of both layers."""
    keys = jax.random.split(key)
    hidden = jax.random.normal(keys[0], (NODES, width)) / NODES**0.5
    return {"hidden": hidden, "head": jax.random.normal(keys[1], (width, 2))}


def network(
    params: dict[str, jax.Array],
    offsets: dict[str, jax.Array] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the logits of the nodes and the inputs of both layers.

    The outputs of the first layer are standardized over the nodes without an
    epsilon: the columns of its kernel are scale groups.

    Args:
        params: kernels of "hidden" and "head".
        offsets: arrays that are added to the outputs of the layers; None for
            zeros.
    """
    matrix = jnp.asarray(adjacency(), params["head"].dtype)
    offsets = offsets or zero_offsets(params)
    outputs = matrix @ params["hidden"] + offsets["hidden"]
    hidden = jax.nn.standardize(outputs, axis=0, epsilon=0.0)
    inputs = {"hidden": matrix, "head": matrix @ jnp.tanh(hidden)}
    return inputs["head"] @ params["head"] + offsets["head"], inputs


def zero_offsets(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return an array of zeros like the outputs of each layer."""
    return {
        name: jnp.zeros((NODES, w.shape[1]), w.dtype)
        for name, w in params.items()
    }


def loss(params: dict[str, jax.Array], nodes: np.ndarray) -> jax.Array:
    """Return the mean cross-entropy of the nodes whose labels are known."""
    logits, _ = network(params)
    return optax.softmax_cross_entropy_with_integer_labels(
        logits[nodes], jnp.asarray(LABELS[nodes])
    ).mean()


def kronecker_factors(params: dict[str, jax.Array]) -> dict[str, Factors]:
    """Return the factors of both layers, with exact expectations of labels."""
    zeros = zero_offsets(params)
    logits, inputs = network(params)
    probabilities = jax.nn.softmax(logits)
    jacobian = jax.jacrev(lambda offsets: network(params, offsets)[0])(zeros)

    def factors(a: jax.Array, jacobian: jax.Array) -> Factors:
        # The axes are nodes with a label, classes, nodes of the layer, outputs.
        roots = centered_roots(probabilities, jacobian)
        outputs = jnp.einsum("icjx,icjy->xy", roots, roots) / NODES
        return Factors(a.T @ a / NODES, outputs)

    return {name: factors(inputs[name], jacobian[name]) for name in params}


def scale_by_kronecker_factors(
    factors_fn: Callable[[Any], dict[str, Factors]], damping: float
) -> optax.GradientTransformation:
    r"""Multiply kernels' updates by the inverses of damped Kronecker factors.

    \[G \mapsto (A + \sqrt\delta I)^{-1}\, G\, (B + \sqrt\delta I)^{-1}\]

    The damping is in the space of the parameters that the transform sees:
    directions inside of `psi`, weights elsewhere.

    Args:
        factors_fn: called as factors_fn(params); returns a dictionary with the
            keys of params.
        damping: positive.

    Returns:
        A stateless transform that needs params, a dictionary of kernels.

    Raises:
        ValueError: damping is not positive; params are missing in `update`.
    """

    def damped(matrix: jax.Array) -> jax.Array:
        return matrix + damping**0.5 * jnp.eye(len(matrix), dtype=matrix.dtype)

    def precondition(updates: Any, params: Any) -> Any:
        solve = jax.scipy.linalg.solve
        steps = {}
        for name, (a, b) in factors_fn(params).items():
            left = solve(damped(a), updates[name], assume_a="pos")
            steps[name] = solve(damped(b), left.T, assume_a="pos").T
        return steps

    return preconditioner(precondition, damping)
