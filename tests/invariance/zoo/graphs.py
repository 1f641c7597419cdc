"""Networks of graphs: what nodes send is summed over the edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .plain import COLUMNS, standardize
from .registry import (
    INERT,
    cross_entropy,
    draw,
    given,
    labels,
    leaky,
    net,
    normal,
    pair,
)

NODES, GRAPHS = 18, 6
# Rings of three nodes each, with a chord to the next ring's first node.
SENDERS = jnp.arange(NODES)
RECEIVERS = SENDERS // 3 * 3 + (SENDERS + 1) % 3
CHORDS = jnp.arange(0, NODES, 3)


def edges():
    """Both directions of each."""
    one = jnp.concatenate([SENDERS, CHORDS])
    other = jnp.concatenate([RECEIVERS, jnp.roll(CHORDS, 1)])
    return jnp.concatenate([one, other]), jnp.concatenate([other, one])


def graph_loss(features, **params):
    """Return the loss of a head on the means over each graph's nodes."""

    def loss(p, x, senders, receivers, graph, y):
        x = features(p, x, senders, receivers)
        return cross_entropy(segment_mean(x, graph, GRAPHS) @ p["head"], y)

    params = draw(**params, head=0.5 * normal(99, 5, 3))
    return loss, params, nodes()


graphs = partial(net, build=graph_loss)


def nodes():
    """Return features of nodes, edges, and each graph's nodes and class."""
    graph = jnp.arange(NODES) // 3
    return normal(120, NODES, 4), *edges(), graph, labels(GRAPHS)


def segment_mean(x, segments, count):
    total = jax.ops.segment_sum(x, segments, count)
    ones = jnp.ones((len(x), 1), x.dtype)
    return total / jax.ops.segment_sum(ones, segments, count)


@graphs(
    "plain_gcn",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS, **pair("gain", "shift")},
    a=(4, 6),
    a_bias=np.zeros(6),
    gain=np.ones(6),
    shift=np.zeros(6),
    c=(6, 5),
)
def gcn(p, x, *edges):
    """Each edge is weighted by the degrees of its ends, loops included."""

    def propagate(x, senders, receivers):
        ones = jnp.ones(len(senders), x.dtype)
        degree = jax.ops.segment_sum(ones, receivers, len(x)) + 1.0
        norm = lax.rsqrt(degree)[:, None]
        total = jax.ops.segment_sum((x * norm)[senders], receivers, len(x))
        return (total + x * norm) * norm

    x = propagate(x @ p["a"], *edges) + p["a_bias"][None]
    x = standardize(x, 0)
    x = jax.nn.relu(x * p["gain"][None] + p["shift"][None])
    return leaky(standardize(propagate(x @ p["c"], *edges), 0))


@graphs(
    "plain_gin",
    {
        "a": COLUMNS,
        "a_bias": INERT,
        "c": COLUMNS,
        "d": COLUMNS,
        **pair("gain", "shift"),
    },
    a=(4, 6),
    a_bias=np.zeros(6),
    gain=np.ones(6),
    shift=np.zeros(6),
    c=(6, 5),
    d=(5, 5),
    epsilon=0.4,
    second=0.2,
)
def gin(p, x, *edges):
    """A sum of neighbours and 1 + epsilon times the node, then layers."""

    def propagate(x, epsilon, senders, receivers):
        total = jax.ops.segment_sum(x[senders], receivers, len(x))
        return (1.0 + epsilon) * x + total

    x = propagate(x, p["epsilon"], *edges) @ p["a"] + p["a_bias"][None]
    x = standardize(x, 0) * p["gain"][None] + p["shift"][None]
    x = leaky(standardize(jax.nn.relu(x) @ p["c"], 0))
    return leaky(standardize(propagate(x, p["second"], *edges) @ p["d"], 0))


@graphs("plain_graph_sage", pair("own", "others"), own=(4, 5), others=(4, 5))
def graph_sage(p, x, senders, receivers):
    """The node and the mean of its neighbours, each by a kernel of its own."""
    mean = segment_mean(x[senders], receivers, len(x))
    return leaky(standardize(x @ p["own"] + mean @ p["others"], 0))


@given(
    "plain_graph_norm",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS},
    args=nodes,
    a=(4, 6),
    a_bias=np.zeros(6),
    c=(6, 5),
    head=0.5 * normal(2, 5, 3),
)
def graph_norm(p, x, senders, receivers, graph, y):
    """The largest of the neighbours; statistics within each graph."""

    def normalized(x):
        x = x - segment_mean(x, graph, GRAPHS)[graph]
        variance = segment_mean(x**2, graph, GRAPHS)[graph]
        return x * lax.rsqrt(variance + 1e-10)

    x = x @ p["a"] + p["a_bias"][None]
    x = jax.ops.segment_max(x[senders], receivers, NODES)
    x = leaky(normalized(leaky(normalized(x)) @ p["c"]))
    return cross_entropy(segment_mean(x, graph, GRAPHS) @ p["head"], y)
