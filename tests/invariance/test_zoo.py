"""The finder on networks with known answers: nothing unsound, little missed."""

import functools

import pytest

from psi_optax import ScaleGroup, find_groups
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.invariance.analysis.scale_groups import is_elementwise
from tests.invariance.holds import analyse, site
from tests.invariance.zoo import INERT, NETS, PARTLY

# What the analysis does not see, and why. Of each the verdict is sound: a
# coarser group, or none.
MISSED = {
    # A softmax takes no notice of what is added to all of its logits.
    ("haiku_attention", "attention/key/b"),
    ("haiku_postnorm_transformer", "attention/key/b"),
    ("haiku_prenorm_transformer", "attention/key/b"),
    ("linen_attention", "attention/key/bias"),
    # A loop's last turn is not told from the others.
    ("haiku_stack_of_gains", "stack/rms_norm/scale"),
    ("linen_scan", "ScanLayer_0/RMSNorm_0/scale"),
    # A mean over a mask is not known as one: kernel and bias are tied.
    ("linen_masked_norm", "Dense_0/bias"),
    ("linen_masked_norm", "Dense_0/kernel"),
    # A guard of a norm that is not seen to be one: it may be zero often.
    ("linen_spectral_norm", "Dense_0/kernel"),
    ("plain_other_guards", "c"),
    ("plain_other_guards", "d"),
    ("plain_rarer_guards", "a"),
    ("plain_rarer_guards", "c"),
    # A small multiple of the identity is not known as an epsilon.
    ("plain_cholesky_whitening", "a"),
    ("plain_iterative_whitening", "a"),
    # A mean over a graph or in a loop, and a median, are not known as means:
    # kernel and bias are tied.
    ("plain_graph_norm", "a"),
    ("plain_graph_norm", "a_bias"),
    ("plain_mapped_ghosts", "a"),
    ("plain_mapped_ghosts", "a_bias"),
    ("plain_median_norm", "a"),
    ("plain_median_norm", "a_bias"),
    # sign(w) is written as w + (sign(w) - w).
    ("plain_signs", "a"),
}

# What both methods together miss.
MISSED_BY_BOTH = {
    ("plain_signs", "a"),
    ("haiku_stack_of_gains", "stack/rms_norm/scale"),
    ("linen_scan", "ScanLayer_0/RMSNorm_0/scale"),
}


def shapes(net):
    shown = [
        entry
        for entry in leaves_with_paths(net.params)
        if not entry.is_placeholder
    ]
    return {entry.path: entry.leaf.shape for entry in shown}


def answer(net, expected, path):
    """Return the finding that is right for a parameter: a group, or a word."""
    known = expected.get(path)
    if (net.name, path) == ("plain_hard_router", "router"):
        return "inert"  # It is only compared, and so has no gradient.
    if known is INERT:
        return "inert"
    if known is PARTLY:
        return "partly"
    if known is None:
        return "ordinary"
    group = known.resolve(shapes(net)[path])
    if group.tie is None and is_elementwise(group, shapes(net)[path]):
        return "inert"  # Only signs matter, which no gradient changes.
    tied = {
        p for p, g in expected.items() if group.tie and _tie(g) == group.tie
    }
    return group.axes, group.blocks, frozenset(tied)


def _tie(group):
    return group.tie if isinstance(group, ScaleGroup) else None


def verdict(net, found, path):
    one = found[path]
    if one.group is None:
        return one.kind
    group = one.group
    alone = group.tie is None and is_elementwise(group, shapes(net)[path])
    if alone and one.epsilon:
        return "inert"  # But for the epsilon, which gives it a gradient.
    tied = {
        p
        for p, other in found.items()
        if group.tie
        and other.group is not None
        and other.group.tie == group.tie
    }
    return group.axes, group.blocks, frozenset(tied)


def misses(net, found):
    """Return the parameters whose findings differ from what is known."""
    options = [
        {
            path
            for path in shapes(net)
            if verdict(net, found, path) != answer(net, expected, path)
        }
        for expected in (net.expected, *net.alternatives)
    ]
    return min(options, key=len)


@functools.cache
def analysed():
    found = {}
    for name, build in NETS.items():
        net = build()
        found[name] = analyse(net.loss, net.params, *net.args)
    return found


def test_the_zoo_is_large():
    assert len(NETS) >= 40
    frameworks = {name.partition("_")[0] for name in NETS}
    assert frameworks == {"linen", "nnx", "equinox", "haiku", "plain"}


def test_the_analysis_misses_what_is_listed_and_nothing_else():
    missed = {
        (name, path)
        for name, found in analysed().items()
        for path in misses(NETS[name](), found)
    }
    assert missed == MISSED


def share_found(missed):
    """Return the share of groups that are found, complete and the finest."""
    known = sum(len(build().expected) for build in NETS.values())
    return 1 - len(missed) / known


def test_nearly_all_that_can_be_found_is():
    assert share_found(MISSED) > 0.9
    assert share_found(MISSED_BY_BOTH) > 0.97


def test_no_verdict_of_the_analysis_is_unsound():
    for name, found in analysed().items():
        net = NETS[name]()
        for path, one in found.items():
            if one.group is None:
                continue
            known = net.expected.get(path)
            expected = [known, *(a.get(path) for a in net.alternatives)]
            assert any(e is not None for e in expected), (name, path, one)


# Reasons that name others in place of a line.
OTHERS = "rescaling symmetry", "scales only in part", "shares a scale with"


def test_every_reason_has_a_site():
    without = [
        (name, path, one.reason)
        for name, found in analysed().items()
        for path, one in found.items()
        if one.kind == "ordinary"
        and site(one.reason) is None
        and not one.reason.startswith(OTHERS)
    ]
    assert not without


# A measurement sees numbers, which do not tell what framework made them: one is
# enough, with what is written without any, and what is proved of none.
MEASURED = [
    name
    for name in NETS
    if name.startswith(("plain", "linen"))
    or name in {missed for missed, _ in MISSED}
]


@pytest.mark.parametrize("name", MEASURED)
def test_proof_and_measurement_together(name):
    net = NETS[name]()
    report = find_groups(net.loss, net.params, *net.args)
    missed = {(name, path) for path in misses(net, report.findings)}
    assert missed == {miss for miss in MISSED_BY_BOTH if miss[0] == name}
