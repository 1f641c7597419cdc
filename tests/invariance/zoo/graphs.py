"""Networks of graphs: what nodes send is summed over the edges."""

import jax
import jax.numpy as jnp
from jax import lax

from .plain import COLUMNS, standardize
from .registry import (
    INERT,
    cross_entropy,
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
    """Cross entropy of a head on the means over each graph's nodes."""

    def loss(p, x, senders, receivers, graph, y):
        x = features(p, x, senders, receivers)
        return cross_entropy(segment_mean(x, graph, GRAPHS) @ p["head"], y)

    params["head"] = 0.5 * normal(99, 5, 3)
    x = normal(120, NODES, 4)
    graph = jnp.arange(NODES) // 3
    return loss, params, (x, *edges(), graph, labels(GRAPHS))


def segment_mean(x, segments, count):
    total = jax.ops.segment_sum(x, segments, count)
    ones = jnp.ones((len(x), 1), x.dtype)
    return total / jax.ops.segment_sum(ones, segments, count)


@net(
    "plain_gcn",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS, **pair("gain", "shift")},
)
def gcn():
    """Each edge is weighted by the degrees of its ends, loops included."""

    def propagate(x, senders, receivers):
        ones = jnp.ones(len(senders), x.dtype)
        degree = jax.ops.segment_sum(ones, receivers, len(x)) + 1.0
        norm = lax.rsqrt(degree)[:, None]
        total = jax.ops.segment_sum((x * norm)[senders], receivers, len(x))
        return (total + x * norm) * norm

    def features(p, x, *edges):
        x = propagate(x @ p["a"], *edges) + p["a_bias"][None]
        x = standardize(x, 0)
        x = jax.nn.relu(x * p["gain"][None] + p["shift"][None])
        return leaky(standardize(propagate(x @ p["c"], *edges), 0))

    return graph_loss(
        features,
        a=normal(0, 4, 6),
        a_bias=jnp.zeros(6),
        gain=jnp.ones(6),
        shift=jnp.zeros(6),
        c=normal(1, 6, 5),
    )


@net(
    "plain_gin",
    {
        "a": COLUMNS,
        "a_bias": INERT,
        "c": COLUMNS,
        "d": COLUMNS,
        **pair("gain", "shift"),
    },
)
def gin():
    """A sum of neighbours and 1 + epsilon times the node, then layers."""

    def propagate(x, epsilon, senders, receivers):
        total = jax.ops.segment_sum(x[senders], receivers, len(x))
        return (1.0 + epsilon) * x + total

    def features(p, x, *edges):
        x = propagate(x, p["epsilon"], *edges) @ p["a"] + p["a_bias"][None]
        x = standardize(x, 0) * p["gain"][None] + p["shift"][None]
        x = leaky(standardize(jax.nn.relu(x) @ p["c"], 0))
        return leaky(standardize(propagate(x, p["second"], *edges) @ p["d"], 0))

    return graph_loss(
        features,
        a=normal(0, 4, 6),
        a_bias=jnp.zeros(6),
        gain=jnp.ones(6),
        shift=jnp.zeros(6),
        c=normal(1, 6, 5),
        d=normal(2, 5, 5),
        epsilon=jnp.asarray(0.4),
        second=jnp.asarray(0.2),
    )


@net("plain_graph_sage", pair("own", "others"))
def graph_sage():
    """The node and the mean of its neighbours, each by a kernel of its own."""

    def features(p, x, senders, receivers):
        mean = segment_mean(x[senders], receivers, len(x))
        return leaky(standardize(x @ p["own"] + mean @ p["others"], 0))

    return graph_loss(features, own=normal(0, 4, 5), others=normal(1, 4, 5))


@net("plain_graph_norm", {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS})
def graph_norm():
    """The largest of the neighbours; statistics within each graph."""

    def normalized(x, graph):
        x = x - segment_mean(x, graph, GRAPHS)[graph]
        variance = segment_mean(x**2, graph, GRAPHS)[graph]
        return x * lax.rsqrt(variance + 1e-10)

    def loss(p, x, senders, receivers, graph, y):
        x = x @ p["a"] + p["a_bias"][None]
        x = jax.ops.segment_max(x[senders], receivers, NODES)
        x = leaky(normalized(x, graph)) @ p["c"]
        x = leaky(normalized(x, graph))
        return cross_entropy(segment_mean(x, graph, GRAPHS) @ p["head"], y)

    params = {
        "a": normal(0, 4, 6),
        "a_bias": jnp.zeros(6),
        "c": normal(1, 6, 5),
        "head": 0.5 * normal(2, 5, 3),
    }
    graph = jnp.arange(NODES) // 3
    return (
        loss,
        params,
        (normal(120, NODES, 4), *edges(), graph, labels(GRAPHS)),
    )
