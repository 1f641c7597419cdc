"""Groups by layout and by path."""

import jax
import jax.numpy as jnp
import optax
import pytest

from psi_optax import ScaleGroup, groups_from_paths, output_channels
from psi_optax.groups import make_plan

PARAMS = {
    "conv": {"kernel": jnp.ones((3, 3, 4, 6)), "bias": jnp.ones(6)},
    "query": {"kernel": jnp.ones((6, 2, 3))},
    "head": {"kernel": jnp.ones((6, 2))},
}


@pytest.mark.parametrize(
    ("where", "axis", "path", "axes"),
    [
        ("conv/kernel", -1, "conv/kernel", (0, 1, 2)),
        ("conv/kernel", -2, "conv/kernel", (0, 1, 3)),
        ("conv/kernel", 0, "conv/kernel", (1, 2, 3)),
        ("query/.*", (-2, -1), "query/kernel", (0,)),
        (["head/k.*", "head/.*"], -1, "head/kernel", (0,)),
        (lambda path, w: w.ndim == 3, 0, "query/kernel", (1, 2)),
    ],
)
def test_output_channels_by_layout(where, axis, path, axes):
    groups = output_channels(PARAMS, where=where, axis=axis)
    assert jax.tree.structure(groups, is_leaf=lambda x: x is None) == (
        jax.tree.structure(PARAMS)
    )
    [leaf] = make_plan(groups, PARAMS).leaves
    assert (leaf.path, leaf.group) == (path, ScaleGroup(axes))


def test_a_pattern_matches_whole_paths():
    groups = output_channels(PARAMS, where=".*kernel")
    assert groups["conv"]["bias"] is None
    with pytest.raises(ValueError, match="where='kernel'.*whole path"):
        output_channels(PARAMS, where="kernel")


def test_output_channels_must_leave_something_to_group():
    with pytest.raises(ValueError, match=r"'conv/bias' of shape \(6,\).*tie="):
        output_channels(PARAMS, where="conv/bias")
    text = r"'head/kernel' of shape \(6, 2\).*axis=\(2,\)"
    with pytest.raises(ValueError, match=text):
        output_channels(PARAMS, where="head/kernel", axis=2)


def test_the_first_pattern_decides():
    rule = groups_from_paths(
        {"head/.*": None, ".*/kernel": ScaleGroup(0), "conv/.*": None}
    )
    assert rule.groups_for(PARAMS) == {
        "conv/bias": None,
        "conv/kernel": ScaleGroup(0),
        "head/kernel": None,
        "query/kernel": ScaleGroup(0),
    }


def test_a_tie_may_refer_to_its_pattern():
    rule = groups_from_paths(
        {
            r"(head|query)/kernel": ScaleGroup(0, tie=r"layer \1"),
            r".*": ScaleGroup(0, tie="rest"),
        }
    )
    groups = rule.groups_for(PARAMS)
    assert groups["head/kernel"].tie == "layer head"
    assert groups["query/kernel"].tie == "layer query"
    assert groups["conv/bias"].tie == "rest"


def test_rules_are_checked_and_hashable_and_not_callable():
    rule = groups_from_paths({"conv/kernel": ScaleGroup(0)})
    assert not callable(rule)  # inject_hyperparams would call it.
    assert hash(rule) == hash(groups_from_paths({"conv/kernel": ScaleGroup(0)}))
    with pytest.raises(TypeError, match="'a': 0.*ScaleGroup"):
        groups_from_paths({"a": 0})
    with pytest.raises(ValueError, match=r"'\(': .*"):
        groups_from_paths({"(": None})
    with pytest.raises(TypeError, match="mapping"):
        groups_from_paths([("a", None)])
    tied = groups_from_paths({".*/kernel": ScaleGroup(0, tie=r"\1")})
    with pytest.raises(ValueError, match="tie=.*'.*/kernel'"):
        tied.groups_for(PARAMS)


@pytest.mark.parametrize(
    ("where", "error"), [(None, TypeError), (3, TypeError), ("(", ValueError)]
)
def test_a_where_that_picks_in_no_way(where, error):
    with pytest.raises(error, match="where=|missing"):
        output_channels(PARAMS, where=where)


def test_a_mask_may_hide_what_a_rule_matches():
    rule = groups_from_paths({"conv/kernel": ScaleGroup(0)})
    masked = {"conv": optax.MaskedNode(), "head": PARAMS["head"]}
    assert make_plan(rule, masked).leaves == ()


def test_every_pattern_of_a_list_must_pick_something():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    assert output_channels(params, where=["a", "b"])["b"] is not None
    with pytest.raises(ValueError, match="where='c'.* 'a', 'b'.*whole path"):
        output_channels(params, where=["a", "c"])
    with pytest.raises(ValueError, match="no parameter: pass"):
        output_channels({}, where="a")
