"""Natural gradients of a graph network: the graph, factors and equivariance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from benchmarks.recipes import graph_network
from benchmarks.recipes.graph_network import (
    EDGES,
    GROUPS,
    LABELS,
    NODES,
    adjacency,
    kronecker_factors,
    network,
)
from benchmarks.recipes.natural_gradient import fisher_matrix

pytestmark = pytest.mark.usefixtures("x64")

# One member of each club: the instructor and the president.
KNOWN = np.array([0, 33])


def weights():
    params = graph_network.init_params(jax.random.key(0))
    return {k: x.astype(jnp.float64) for k, x in params.items()}


def test_the_graph_is_the_published_one():
    matrix = np.zeros((NODES, NODES))
    for a, b in EDGES:
        matrix[a, b] = matrix[b, a] = 1
    assert (len(EDGES), matrix.sum()) == (78, 156)
    assert matrix.sum(1)[[0, 33, 32, 2]].tolist() == [16, 17, 12, 10]
    assert np.trace(matrix @ matrix @ matrix) == pytest.approx(6 * 45)
    # Known to this many digits.
    assert np.linalg.eigvalsh(matrix)[-1] == pytest.approx(6.7257, abs=5e-5)
    assert LABELS.sum() == 17
    assert np.linalg.eigvalsh(adjacency())[-1] == pytest.approx(1, abs=1e-14)


def head_block(params):
    """Return the Fisher matrix of the head's kernel, inputs x outputs twice."""

    def logits(head):
        return network(params | {"head": head})[0]

    matrix = fisher_matrix(logits, params["head"])
    return matrix.reshape(*[*params["head"].shape] * 2)


def product(factors):
    return jnp.einsum("ac,bd->abcd", *factors)


def test_factors_of_the_last_layer_are_exact_for_equal_probabilities():
    params = weights()
    params["head"] = jnp.zeros_like(params["head"])
    factors, exact = kronecker_factors(params)["head"], head_block(params)
    # Sums of 34 products of numbers up to 1.
    np.testing.assert_allclose(product(factors), exact, atol=1e-15)
    # The controls: inputs without the graph, and other probabilities.
    _, inputs = network(params)
    own = jnp.linalg.solve(jnp.asarray(adjacency()), inputs["head"])
    without = factors._replace(inputs=own.T @ own / NODES)
    assert jnp.abs(product(without) - exact).max() > 0.5 * exact.max()
    other = weights()
    exact = head_block(other)
    wrong = product(kronecker_factors(other)["head"]) - exact
    assert jnp.abs(wrong).max() > 0.1 * exact.max()


def test_factors_of_the_first_layer_are_sums_over_all_nodes():
    """By finite sums over labels: gradients of log-probabilities."""
    params = weights()
    zeros = graph_network.zero_offsets(params)
    p = jax.nn.softmax(network(params)[0])

    def gradient(node, label):
        def log_probability(offset):
            outputs, _ = network(params, zeros | {"hidden": offset})
            return jax.nn.log_softmax(outputs[node])[label]

        return jax.grad(log_probability)(zeros["hidden"])

    nodes, labels = map(jnp.ravel, jnp.indices(p.shape))
    g = jax.vmap(gradient)(nodes, labels)
    expected = jnp.einsum("k,kjx,kjy->xy", p.ravel(), g, g) / NODES
    found = kronecker_factors(params)["hidden"].outputs
    np.testing.assert_allclose(found, expected, atol=1e-14)
    # The control: only the nodes whose labels are known.
    known = jnp.isin(nodes, KNOWN)
    few = jnp.einsum("k,kjx,kjy->xy", p.ravel()[known], g[known], g[known])
    assert jnp.abs(few / len(KNOWN) - expected).max() > 0.01


def run(tx, params, steps):
    @jax.jit
    def step(params, state):
        gradient = jax.grad(graph_network.loss)(params, KNOWN)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def natural():
    return graph_network.scale_by_kronecker_factors(kronecker_factors, 0.1)


def test_a_run_inside_psi_ignores_scale_to_the_bit():
    tx = psi_optax.psi_direction(0.1, natural(), GROUPS)
    params = weights()
    large = params | {"hidden": 8 * params["hidden"]}
    after, after_large = (run(tx, p, 10) for p in (params, large))
    np.testing.assert_array_equal(after_large["hidden"], 8 * after["hidden"])
    np.testing.assert_array_equal(after_large["head"], after["head"])
    before, loss = (graph_network.loss(p, KNOWN) for p in (params, after))
    assert loss < before / 2
    # Two labels suffice for more than the larger club.
    assert (network(after)[0].argmax(1) == LABELS).mean() > 0.75


def test_outside_it_does_not():
    descend = optax.chain(natural(), optax.scale(-0.1))
    params = weights()
    large = params | {"hidden": 8 * params["hidden"]}
    after, after_large = (run(descend, p, 1) for p in (params, large))
    step = 8 * (after["hidden"] - params["hidden"])
    wrong = after_large["hidden"] - large["hidden"] - step
    assert jnp.abs(wrong).max() > 0.9 * jnp.abs(step).max()


def test_errors():
    for damping in 0.0, -0.1:
        with pytest.raises(ValueError, match="positive"):
            graph_network.scale_by_kronecker_factors(kronecker_factors, damping)
    tx, params = natural(), weights()
    with pytest.raises(ValueError, match="pass params"):
        tx.update(params, tx.init(params))


def test_the_columns_of_the_first_kernel_are_found():
    report = psi_optax.find_groups(
        functools.partial(graph_network.loss, nodes=KNOWN), weights()
    )
    assert report["hidden"].group == GROUPS["hidden"]
    assert report["head"].group is None
