"""The finder finds the groups that follow from the layers of the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, find_groups
from psi_optax.groups import make_plan
from psi_optax.groups.paths import map_with_path

from .twins import CASES, found, linen_loss, nnx_loss, variables_of

FILTERS = ScaleGroup((0, 1, 2))
WHOLE = ScaleGroup((0, 1, 2, 3))
HEADS = ScaleGroup((0, 2))


def tied(group, tie):
    return ScaleGroup(group.axes, tie=tie)


def pair(norm):
    """Return groups of a normalization that another one follows."""
    return {
        f"{norm}/{name}": ScaleGroup(0, tie=f"{norm}/bias")
        for name in ("scale", "bias")
    }


def layer(name):
    """Return groups of a convolution and its normalization, likewise."""
    return {f"{name}/conv/kernel": FILTERS, **pair(f"{name}/norm")}


def kernels(*names):
    return {f"{name}/kernel": FILTERS for name in names}


def preact_block(name):
    """Return groups of a block that starts a stage.

    The branch has one factor with the normalization that starts the stream.
    """
    tie = f"{name}/conv_1/kernel"
    groups = {f"{name}/conv_0/kernel": FILTERS, tie: tied(WHOLE, tie)}
    for leaf in ("scale", "bias"):
        groups[f"{name}/norm_0/{leaf}"] = ScaleGroup(0, tie=tie)
    return groups


def inner_block(name, first):
    """Return groups of a block that adds to the stream of the first block."""
    branch = tied(WHOLE, f"{first}/conv_1/kernel")
    return {
        f"{name}/conv_0/kernel": FILTERS,
        f"{name}/conv_1/kernel": branch,
        **pair(f"{name}/norm_0"),
    }


def projected_block(name):
    """Return groups of a block with a projection.

    Its sum is normalized channel by channel. The normalizations before the sum
    have one factor.
    """
    tie, norms = f"{name}/conv_1/kernel", f"{name}/norm_0/bias"
    groups = {f"{name}/conv_0/kernel": FILTERS, tie: tied(FILTERS, tie)}
    groups[f"{name}/shortcut/kernel"] = tied(FILTERS, tie)
    for norm in ("norm_0", "norm_1"):
        for leaf in ("scale", "bias"):
            groups[f"{name}/{norm}/{leaf}"] = ScaleGroup(0, tie=norms)
    return groups


HEADS_ONLY = {
    f"layer_0/attention/{name}/kernel": HEADS for name in ("query", "key")
}
# Each of them is behind a normalization of all channels.
SANDWICHED = {
    "layer_0/attention_norm/scale": 1,
    "layer_0/attention/value/kernel": 3,
    "layer_0/attention/out/kernel": 3,
    "layer_0/mlp_norm/scale": 1,
    "layer_0/mlp/up/kernel": 2,
    "layer_0/mlp/down/kernel": 2,
}
# These are added to the stream.
STREAM = {
    "positions/embedding": 2,
    "embed_norm/scale": 1,
    "layer_0/attention_out_norm/scale": 1,
    "layer_0/mlp_out_norm/scale": 1,
}


def whole(ranks, tie=None):
    """Return one group for each leaf of these ranks."""
    return {
        path: ScaleGroup(tuple(range(rank)), tie=tie)
        for path, rank in ranks.items()
    }


# All others are ordinary.
EXPECTED = {
    "MLP": {
        "hidden_0/kernel": ScaleGroup(0),
        "hidden_1/kernel": ScaleGroup(0),
        **pair("norm_0"),
    },
    "CNN": {**kernels("hidden_0", "hidden_1"), **pair("norm_0")},
    "VGG": {
        **layer("layer_0"),
        **layer("layer_1"),
        **kernels("layer_2/conv"),
    },
    # With shortcuts without parameters the stream runs from the stem to the
    # head. All normalizations that write to it are ordinary.
    "ResNet": {
        **kernels("stem/conv"),
        **{
            key: group
            for index in range(3)
            for key, group in {
                **layer(f"block_{index}/layer_0"),
                **kernels(f"block_{index}/layer_1/conv"),
            }.items()
        },
    },
    # The stream of the first block ends in the second one's projection.
    "Bottlenecks": {
        **kernels("stem/conv", "block_1/shortcut/conv"),
        **{
            key: group
            for index in range(2)
            for key, group in {
                **layer(f"block_{index}/layer_0"),
                **layer(f"block_{index}/layer_1"),
                **kernels(f"block_{index}/layer_2/conv"),
            }.items()
        },
        **{
            f"{norm}/{leaf}": ScaleGroup(0, tie="block_0/layer_2/norm/bias")
            for norm in ("stem/norm", "block_0/layer_2/norm")
            for leaf in ("scale", "bias")
        },
    },
    "PreActResNet": {
        **kernels("stem"),
        **preact_block("block_0"),
        **inner_block("block_1", first="block_0"),
        **preact_block("block_2"),
    },
    "Projections": {
        **kernels("stem"),
        **preact_block("block_0"),
        **projected_block("block_1"),
    },
    "ViT": HEADS_ONLY,
    "GPT": HEADS_ONLY,
    "Sandwich": {
        **HEADS_ONLY,
        "embed/embedding": ScaleGroup(1),
        **whole(SANDWICHED),
        **whole(STREAM, tie="embed_norm/scale"),
    },
}


def grouped(report):
    return {p: f.group for p, f in report.findings.items() if f.group}


@pytest.mark.parametrize("name", CASES)
def test_the_finder_finds_what_is_expected(name):
    report = found(name)
    assert grouped(report) == EXPECTED[name]
    kinds = {f.kind for f in report.findings.values()}
    assert kinds == {"proved up to epsilon", "ordinary"}


@pytest.mark.parametrize("name", CASES)
def test_the_finder_says_the_same_of_nnx(name):
    params = variables_of(name)["params"]
    report = find_groups(nnx_loss(name), params, method="analysis")
    assert grouped(report) == EXPECTED[name]


def powers_of_two(groups, params):
    """Return factors for each grouped leaf, one for each group."""
    plan = make_plan(groups, params)
    random = np.random.RandomState(2)

    def draw(shape):
        return np.ldexp(np.float32(1), random.randint(-6, 7, shape))

    return plan.broadcast(
        {
            name: jnp.asarray(draw(shape), jnp.float32)
            for name, shape in plan.group_shapes.items()
        }
    )


def rescale(params, factors):
    return map_with_path(
        lambda path, x: x * factors.get(path, np.float32(1)), params
    )


@pytest.mark.parametrize("name", CASES)
def test_the_loss_sees_the_scale_of_all_parameters_but_those(name):
    params = variables_of(name)["params"]
    loss = jax.jit(linen_loss(name, epsilon=0.0))
    before = loss(params)
    # Powers of two pass through all operations without rounding, so that the
    # loss stays the same to the last bit.
    assert loss(rescale(params, powers_of_two(found(name), params))) == before
    # A loss near 2 is rounded to 2.4e-7.
    for path in set(found(name).findings) - set(EXPECTED[name]):
        after = loss(rescale(params, {path: np.float32(4)}))
        assert abs(after - before) > 1e-4, path


@pytest.mark.parametrize(
    ("name", "make"), [("MLP", linen_loss), ("CNN", nnx_loss)]
)
def test_nothing_is_scale_invariant_in_evaluation_mode(name, make):
    params = variables_of(name)["params"]
    loss = jax.jit(make(name, train=False, epsilon=0.0))
    for path in EXPECTED[name]:
        scaled = rescale(params, {path: np.float32(2)})
        assert abs(loss(scaled) - loss(params)) > 1e-3
    report = find_groups(loss, params, method="analysis")
    assert set(report.groups_for(params).values()) == {None}


def test_the_finder_without_a_method_says_the_same():
    params = variables_of("MLP")["params"]
    report = find_groups(linen_loss("MLP"), params)
    assert report.groups == found("MLP").groups


def test_kernels_alone_can_be_selected():
    """The docstrings of the networks give these patterns."""
    report = found("ResNet").select(".*/conv/kernel")
    assert len(grouped(report)) == 7
    report = found("PreActResNet").select("stem/kernel|.*/conv_0/kernel")
    assert set(grouped(report)) == {
        "stem/kernel",
        *(f"block_{index}/conv_0/kernel" for index in range(3)),
    }
    with pytest.raises(ValueError, match="tie"):
        found("PreActResNet").select(".*/kernel")
