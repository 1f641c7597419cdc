"""Groups in every form come to one plan, and wrong ones to an error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, groups_from_paths
from psi_optax.groups import make_plan

PARAMS = {
    "conv": {"kernel": jnp.ones((3, 3, 4, 6)), "bias": jnp.ones(6)},
    "head": {"kernel": jnp.ones((6, 2)), "bias": jnp.ones(2)},
}
FILTER = ScaleGroup((0, 1, 2))
TREE = {
    "conv": {"kernel": FILTER, "bias": None},
    "head": {"kernel": None, "bias": None},
}


class Rule:
    def groups_for(self, params):
        assert params is PARAMS
        return TREE


FORMS = {
    "tree": TREE,
    "prefix tree": {"conv": TREE["conv"], "head": None},
    "mapping": {
        "conv/kernel": FILTER,
        "conv/bias": None,
        "head/kernel": None,
        "head/bias": None,
    },
    "mapping of prefixes": {"": None, "conv/kernel": FILTER},
    "rule": groups_from_paths({"conv/kernel": FILTER}),
    "object with groups_for": Rule(),
    "function": lambda params: {**TREE, "head": None},
    "negative axes": {
        "conv": {"kernel": ScaleGroup((-2, 1, 0)), "bias": None},
        "head": None,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_to_one_plan(form):
    plan = make_plan(FORMS[form], PARAMS)
    assert plan == make_plan(TREE, PARAMS)
    assert hash(plan) == hash(make_plan(TREE, PARAMS))
    [leaf] = plan.leaves
    assert (leaf.path, leaf.group, leaf.name) == (
        "conv/kernel",
        FILTER,
        "conv/kernel",
    )


def test_another_statement_is_another_plan():
    other = {"": None, "conv/kernel": ScaleGroup((0, 1))}
    assert make_plan(other, PARAMS) != make_plan(TREE, PARAMS)


def test_none_means_that_all_is_ordinary():
    assert make_plan(None, PARAMS).leaves == ()


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: PARAMS)
    assert make_plan(TREE, shapes) == make_plan(TREE, PARAMS)


def test_a_prefix_speaks_for_all_below_it():
    plan = make_plan({"conv": None, "head": ScaleGroup(0)}, PARAMS)
    assert [leaf.path for leaf in plan.leaves] == ["head/bias", "head/kernel"]


WRONG = {
    "a parameter not covered": (
        {"conv": TREE["conv"]},
        r"'head/bias' of shape \(2,\), 'head/kernel'.*ScaleGroup,.* None",
    ),
    "axis out of range": (
        {"conv": {"kernel": ScaleGroup(4), "bias": None}, "head": None},
        r"'conv/kernel' of shape \(3, 3, 4, 6\) with ScaleGroup\(axes=\(4,\)\)"
        ": axis 4 is out of range",
    ),
    "axis twice": (
        {"": None, "head/kernel": ScaleGroup((0, -2))},
        r"'head/kernel' of shape \(6, 2\) with .*axis is repeated",
    ),
    "blocked axis not in axes": (
        {"": None, "head/kernel": ScaleGroup(0, {1: 2})},
        r"'head/kernel' of shape \(6, 2\).*blocks={1: 2}.*axis 1",
    ),
    "blocks that do not divide": (
        {"": None, "head/kernel": ScaleGroup(0, {0: 4})},
        r"'head/kernel' of shape \(6, 2\).*4 blocks.*axis 0.*length 6",
    ),
    "ties of different group shapes": (
        {
            "conv": {
                "kernel": ScaleGroup((0, 1, 2), tie="a"),
                "bias": ScaleGroup(0, tie="a"),
            },
            "head": None,
        },
        r"'conv/bias' of shape \(6,\).*'conv/kernel' of shape \(3, 3, 4, 6\)"
        r".*\(\) and \(6,\)",
    ),
    "groups of another tree": (
        {"encoder": FILTER, "": None},
        "'encoder' .*'conv/bias'.*another tree",
    ),
    "a rule that matches nothing": (
        groups_from_paths({"stem/kernel": FILTER}),
        "'stem/kernel': .*'conv/bias'.*whole path",
    ),
    "a rule behind one that takes all": (
        groups_from_paths({".*": None, "conv/kernel": FILTER}),
        "'conv/kernel': .*first match",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_statement_is_an_error_that_names_it(case):
    groups, text = WRONG[case]
    with pytest.raises(ValueError, match=text):
        make_plan(groups, PARAMS)


def test_something_else_than_a_scale_group():
    with pytest.raises(TypeError, match="'conv/kernel/0'.*ScaleGroup"):
        make_plan({"conv": {"kernel": (0, 1), "bias": None}}, PARAMS)


@pytest.mark.parametrize(
    "dtype", ["complex64", "int32", "bool", "float8_e4m3fn"]
)
def test_only_real_floating_parameters_have_groups(dtype):
    params = {"layer": {"w": jnp.ones((2, 3), dtype)}}
    with pytest.raises(TypeError, match=rf"'layer/w'.*dtype {dtype}"):
        make_plan(ScaleGroup(0), params)
    assert make_plan(None, params).leaves == ()


def test_updates_of_another_structure_or_shape():
    plan = make_plan(TREE, PARAMS)
    with pytest.raises(
        ValueError, match="'conv/kernel'.*nothing.*same structure"
    ):
        plan.select({"conv": {"bias": jnp.ones(6)}}, "updates")
    wrong = {"conv": {"kernel": jnp.ones((3, 3, 4, 5))}}
    with pytest.raises(ValueError, match=r"\(3, 3, 4, 5\).*same structure"):
        plan.select(wrong, "updates")


MASKED = optax.MaskedNode()


def test_a_mask_hides_all_below_it():
    below = {"conv": MASKED, "head": PARAMS["head"]}
    assert make_plan(TREE, below).leaves == ()
    kernel = {"conv": {"kernel": PARAMS["conv"]["kernel"], "bias": MASKED}}
    assert len(make_plan(TREE, {**kernel, "head": MASKED}).leaves) == 1
    rule = groups_from_paths({"conv/kernel": FILTER})
    assert make_plan(rule, below).leaves == ()


def test_a_mask_in_groups_makes_ordinary():
    groups = {"conv": TREE["conv"], "head": MASKED}
    assert make_plan(groups, PARAMS) == make_plan(TREE, PARAMS)


TIED = {
    "kernel": ScaleGroup((0, 1, 2), tie="conv"),
    "bias": ScaleGroup((), tie="conv"),
}


@pytest.mark.parametrize("hole", [MASKED, None])
def test_a_tie_cut_in_two_by_a_mask(hole):
    params = {"kernel": PARAMS["conv"]["kernel"], "bias": hole}
    text = r"'kernel' of shape .* tied to 'bias'.*mask all"
    with pytest.raises(ValueError, match=text):
        make_plan(TIED, params)
    both = {"kernel": MASKED, "bias": MASKED}
    assert make_plan(TIED, both).leaves == ()


def test_a_tie_cut_in_two_under_a_rule():
    rule = groups_from_paths(
        {
            r"(.*)/kernel": ScaleGroup(0, tie=r"\1"),
            r"(.*)/bias": ScaleGroup((), tie=r"\1"),
        }
    )
    layer = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    assert len(make_plan(rule, {"d": layer}).leaves) == 2
    with pytest.raises(ValueError, match="'d/kernel'.*'d/bias'.*mask all"):
        make_plan(rule, {"d": {**layer, "bias": MASKED}})


def test_a_layer_without_bias_under_a_tied_prefix():
    params = {"kernel": jnp.ones((3, 2)), "bias": None}
    whole = ScaleGroup((0, 1), tie="layer")
    assert len(make_plan(whole, params).leaves) == 1
    with pytest.raises(ValueError, match="'bias'.*mask all"):
        make_plan(whole, {**params, "bias": MASKED})


def test_optax_placeholder_for_params_is_tolerated():
    def keep(x):
        return x

    tx = optax.chain(optax.trace(0.9))
    seen = []

    def init_fn(params):
        seen.append(make_plan(TREE, params))
        return tx.init(params)

    optax.tree.map_params(init_fn, keep, tx.init(PARAMS))
    assert [plan.leaves for plan in seen] == [()]


def numpy_sum(x, axes):
    return np.sum(np.asarray(x, np.float64), axis=axes)


def test_dot_sums_over_ties_once_and_spread_brings_it_back(x64):
    draw = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(draw.normal(size=(3, 3, 4, 6))),
        "bias": jnp.asarray(draw.normal(size=6)),
    }
    plan = make_plan(TIED, params)
    assert plan.sizes == {"bias": 37}
    w = plan.select(params)
    total = plan.dot(w, w)
    expected = numpy_sum(params["kernel"] ** 2, (0, 1, 2))
    # Thirty-seven positive terms: 37 roundings of 1.1e-16 at the most.
    with_bias = expected + numpy_sum(params["bias"] ** 2, ())
    np.testing.assert_allclose(total["bias"], with_bias, rtol=5e-15)
    assert np.max(np.abs(total["bias"] - expected)) > 1e-3  # Without the tie.

    back = plan.broadcast(total)
    assert back["kernel"].shape == (1, 1, 1, 6)
    np.testing.assert_array_equal(back["bias"], total["bias"])


def test_a_network_tied_whole_has_one_norm():
    plan = make_plan(
        {
            "a": ScaleGroup((0, 1), tie="all"),
            "b": ScaleGroup(0, tie="all"),
        },
        params := {"a": jnp.full((2, 2), 2.0), "b": jnp.full(9, 1.0)},
    )
    w = plan.select(params)
    assert plan.dot(w, w) == {"a": 25.0}


def test_ties_of_mixed_precision_sum_in_the_widest(x64):
    params = {
        "a": jnp.full((2,), 1.0, jnp.float64),
        "b": jnp.full((2,), 2.0**-20, jnp.bfloat16),
    }
    plan = make_plan(ScaleGroup(0, tie="t"), params)
    w = plan.select(params)
    total = plan.dot(w, w)["a"]
    assert total.dtype == jnp.float64
    assert total == 2 + 2 * 2.0**-40  # Lost in float32.
    spread = plan.broadcast({"a": total})
    assert (spread["a"].dtype, spread["b"].dtype) == ("float64", "float32")


def test_parts_keep_what_is_tied_together():
    tree = {name: jnp.ones(2) for name in "abcd"}
    tied = ScaleGroup(axes=0, tie="x")
    alone = ScaleGroup(axes=0)
    groups = {"a": tied, "b": alone, "c": tied, "d": None}
    plan = make_plan(groups, tree)
    parts = {name: part.paths for name, part in plan.parts().items()}
    assert parts == {"a": ("a", "c"), "b": ("b",)}
    assert plan.parts()["a"].dot(tree, tree)["a"] == 4
    assert plan.parts()["b"] == make_plan({"b": alone}, {"b": tree["b"]})


def test_unflatten_shows_scalars_where_leaves_are():
    plan = make_plan(TREE, PARAMS)
    tree = plan.unflatten({"conv/kernel": jnp.arange(6.0)}, PARAMS)
    assert tree["conv"]["bias"] is None
    assert tree["head"] == {"kernel": None, "bias": None}
    assert tree["conv"]["kernel"].shape == (6,)


def test_names_of_ties_do_not_depend_on_the_order_of_a_tree():
    kernel, bias = jnp.ones((3, 3, 4, 6)), jnp.ones(6)
    one = make_plan(TIED, {"kernel": kernel, "bias": bias})
    names = {leaf.name for leaf in one.leaves}
    assert names == {"bias"}


def test_a_typo_is_named_beside_what_it_leaves_uncovered():
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match="not cover 'w'.*name 'v'"):
        make_plan({"v": ScaleGroup(0), "b": None}, params)


def test_none_for_what_is_not_there_does_no_harm():
    params = {"w": jnp.ones((2, 2))}
    plan = make_plan({"w": ScaleGroup(0), "statistics": None}, params)
    assert [leaf.path for leaf in plan.leaves] == ["w"]


@pytest.mark.parametrize("groups", [0.1, "w", [0.1]])
def test_what_is_no_statement_is_shown(groups):
    with pytest.raises(TypeError, match=r"0\.1|'w'"):
        make_plan(groups, {"w": jnp.ones((2, 2))})


def test_refs_among_params_are_an_error_that_names_them():
    params = {"a": {"w": jax.new_ref(jnp.ones((3, 2)))}, "b": jnp.ones(2)}
    groups = {"a/w": ScaleGroup(0), "b": None}

    def loss(params):
        return jnp.sum(params["a"]["w"][...]) + jnp.sum(params["b"])

    for refused in (
        lambda: make_plan(groups, params),
        lambda: psi_optax.psi_sgd(0.1, groups).init(params),
        lambda: psi_optax.group_norms(params, groups),
        lambda: psi_optax.find_groups(loss, params),
        lambda: psi_optax.check_groups(loss, params, groups),
    ):
        with pytest.raises(TypeError, match=r"jax.Ref at 'a/w'.*\(3, 2\)"):
            refused()
    # The control: what refs hold.
    params["a"]["w"] = params["a"]["w"][...]
    assert make_plan(groups, params).paths == ("a/w",)
