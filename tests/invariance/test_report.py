"""Reports in other forms: a summary, patterns to paste, HTML, the main reason.

Networks are analysed as shapes. Nothing is compiled or computed.
"""

import functools
import math
import re
import subprocess
import sys
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn, nnx

import psi_optax
from psi_optax import ScaleGroup, check_groups, find_groups
from psi_optax.groups import make_plan
from psi_optax.invariance.finding import Finding
from psi_optax.invariance.formats import patterns
from psi_optax.invariance.formats.pattern_rules import PatternRule
from psi_optax.invariance.report import make_report
from psi_optax.models import linen, nnx as nnx_models
from psi_optax.models.architectures import (
    TransformerArchitecture,
    cifar_resnet,
)
from tests.invariance.losses import arrays

TOKENS = jax.ShapeDtypeStruct((2, 8), jnp.int32)
IMAGES = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)


def analysed(loss, params, *args):
    return find_groups(loss, params, *args, method="analysis")


def entropy(logits, labels):
    loss = optax.softmax_cross_entropy_with_integer_labels
    return jnp.mean(loss(logits, labels))


def report_on_linen(model, x, labels):
    """Analyse a Linen network, without its new statistics."""

    def init(x):
        return model.init(jax.random.key(0), x, train=False)

    def loss(params, rest, x, labels):
        logits, _ = model.apply(
            {"params": params, **rest}, x, train=True, mutable=["batch_stats"]
        )
        return entropy(logits, labels)

    rest = jax.eval_shape(init, x)
    params = rest.pop("params")
    return analysed(loss, params, rest, x, labels), params


@functools.cache
def gpt(depth, width=16, **options):
    architecture = TransformerArchitecture(8, width, depth, heads=2, **options)
    model = linen.Transformer(architecture, vocabulary=32)
    return report_on_linen(model, TOKENS, TOKENS)


def gpt_with_head(depth, width=16):
    return gpt(depth, width, post_norms=True, tied_head=False)


def nnx_gpt(depth, width=16):
    def make():
        architecture = TransformerArchitecture(
            8, width, depth, heads=2, post_norms=True
        )
        return nnx_models.Transformer(architecture, 32, rngs=nnx.Rngs(0))

    graph, params = nnx.split(nnx.eval_shape(make))

    def loss(params, tokens):
        return entropy(nnx.merge(graph, params)(tokens), tokens)

    return analysed(loss, params, TOKENS), params


@functools.cache
def resnet(depth, width=4):
    architecture = cifar_resnet(depth, width, projection=True)
    labels = jax.ShapeDtypeStruct((4,), jnp.int32)
    return report_on_linen(linen.ResNet(architecture), IMAGES, labels)


class Blocks(nn.Module):
    """Blocks of layers in front of GroupNorm and of LayerNorm."""

    depth: int
    width: int

    @nn.compact
    def __call__(self, x, train):
        for _ in range(self.depth):
            x = nn.GroupNorm(2)(nn.Conv(self.width, (3, 3))(x))
            x = jnp.tanh(nn.LayerNorm()(nn.Dense(self.width)(x)))
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


def blocks(depth, width=4):
    labels = jax.ShapeDtypeStruct((4,), jnp.int32)
    return report_on_linen(Blocks(depth, width), IMAGES, labels)


def statements(groups, params):
    """Return axes, blocks and tied paths of each parameter with groups."""
    plan = make_plan(groups, params)
    tied = {}
    for leaf in plan.leaves:
        tied.setdefault(leaf.name, set()).add(leaf.path)
    return {
        leaf.path: (
            *(leaf.group.axes, leaf.group.blocks, leaf.group.axis_name),
            tied[leaf.name],
        )
        for leaf in plan.leaves
    }


def pasted(text):
    return eval(text, {"psi_optax": psi_optax})


# -- patterns ----------------------------------------------------------------

# A network, and another one for which its patterns hold.
CASES = {
    "gpt": (gpt, (12,), (14, 24)),
    "gpt_with_head": (gpt_with_head, (3,), (11, 24)),
    "nnx_gpt": (nnx_gpt, (3,), (5, 24)),
    # Blocks of one stage are tied, so that patterns are for one depth.
    "resnet": (resnet, (20,), (20, 6)),
}


@pytest.mark.parametrize("name", CASES)
def test_patterns_hold_at_another_width_and_depth(name):
    network, small, large = CASES[name]
    report, params = network(*small)
    rule = pasted(report.patterns())
    assert statements(rule, params) == statements(report, params)
    other, params = network(*large)
    expected = statements(other, params)
    assert len(expected) > 10
    assert statements(rule, params) == expected
    # The control: rules for the layers that the small network has.
    listed = report.patterns().replace(r"\d+", "[0-1]", 1)
    assert statements(pasted(listed), params) != expected


def test_patterns_of_normalized_groups_with_ties():
    report, params = blocks(3)
    assert report["Conv_1/kernel"].group.blocks
    text = report.patterns()
    assert statements(pasted(text), params) == statements(report, params)
    # The head is a Dense too: its layers are those of a depth.
    assert "depth" in text
    assert r"(Dense_[0-2])/(?:bias|kernel)" not in text
    other, params = blocks(3, 12)
    assert statements(pasted(text), params) == statements(other, params)


def with_heads(kernel, x):
    """Normalize heads of 8 features, whatever the width."""
    heads = (x @ kernel).reshape(4, -1, 8)
    return jnp.sum(heads / jnp.linalg.norm(heads, axis=-1, keepdims=True))


def test_blocks_are_those_of_a_width():
    """Their number follows the width, so that a script has to check them."""

    def found(width):
        shape = jax.ShapeDtypeStruct((3, width), jnp.float32)
        return analysed(with_heads, shape, *arrays(x=(4, 3)).values()), shape

    wide, _ = found(16)
    assert dict(wide[""].group.blocks) == {1: 2}
    assert "check_groups" in wide.patterns()
    narrow, params = found(8)
    rule = pasted(wide.patterns())
    assert statements(rule, params) != statements(narrow, params)
    kernel, x = arrays(kernel=(3, 8), x=(4, 3)).values()
    with pytest.raises(ValueError, match=r"\(3, 8\)"):
        check_groups(with_heads, kernel, rule, x)
    check_groups(with_heads, kernel, narrow, x)
    # The control: groups without blocks.
    assert "check_groups" not in gpt(3)[0].patterns()


def test_blocks_of_one_channel_leave_no_trace():
    """The documentation says so: `check_groups` at another width tells."""
    plain = nn.GroupNorm(2, use_bias=False, use_scale=False)

    def loss(kernel, x):
        return jnp.sum(jnp.tanh(plain.apply({}, x @ kernel)))

    sizes = {"narrow": (3, 2), "wide": (3, 8)}
    x = arrays(x=(4, 5, 3))["x"]
    kernels = arrays(**sizes)
    text = analysed(loss, kernels["narrow"], x).patterns()
    assert "blocks" not in text
    check_groups(loss, kernels["narrow"], pasted(text), x)
    with pytest.raises(ValueError, match=r"\(3, 8\)"):
        check_groups(loss, kernels["wide"], pasted(text), x)


def test_numbers_are_general_only_where_all_layers_are_alike():
    report, _ = gpt(3)
    assert r"layer_\d+/" in report.patterns()
    assert "depth" not in report.patterns()
    report, _ = resnet(8)
    assert "block_0/layer_1" in report.patterns()
    assert "depth" in report.patterns()


def made(groups, shape=(4, 4)):
    """Make a report on parameters of one shape."""
    findings = {
        path: Finding(
            path,
            shape,
            group,
            "ordinary" if group is None else "proved",
            reason="its scale matters" if group is None else "",
        )
        for path, group in groups.items()
    }
    tree = {path: jax.ShapeDtypeStruct(shape, "float32") for path in groups}
    return make_report(tree, findings), tree


A, B = ScaleGroup(0), ScaleGroup(1)


def tie(name, axes=0):
    return ScaleGroup(axes, tie=name)


SHARDED = ScaleGroup(0, axis_name=("x", "y"))

TRAPS = {
    "numbers that begin alike": {"layer1/w": A, "layer10/w": B, "layer2/w": A},
    "numbers that are no index": {"conv1x1/w": A, "conv3x3/w": B},
    "a layer without": {**{f"f{k}": A for k in range(12)}, "f12": None},
    "special characters": {"a.b/w": A, "a+b/w": None, "axb/w": None, "(w|": B},
    "quotes": {
        'say "w"': A,
        "it's": tie("back\\slash"),
        "v": tie("back\\slash"),
    },
    "haiku": {"mlp/~/linear_0/w": A, "mlp/~/linear_1/w": A},
    "a prefix": {"l": tie("l/0"), "l/0": tie("l/0"), "l/1": None},
    "the root": {"": ScaleGroup((0, 1), {1: 2})},
    "leading zeros": {"w01": A, "w1": B},
    "an axis of a mesh": {"w": SHARDED, "v": ScaleGroup(0, axis_name="x")},
    "no axes": {"w0": ScaleGroup(()), "w1": None, "w2": ScaleGroup((0, 1))},
    "ties of all": {f"{k}/{x}": tie("all") for k in range(3) for x in "ab"},
    "ties across layers": {
        f"{x}{k}/w": tie(f"t{k}") if k < 3 else None
        for k in range(4)
        for x in ("in", "out")
    }
    | {"out3/w": tie("t0")},
    "ties of two in a layer": {
        f"layers/{k}/{x}/{w}": tie(f"{k}{x}")
        for k in range(3)
        for x in "qk"
        for w in ("kernel", "scale")
    },
    "ties that share their start": {
        f"l{k}/{x}": tie(f"{k}{x in 'ab'}") for k in range(3) for x in "abcd"
    },
    "ties of neighbors": {
        f"l{k + (x == 'b')}/{x}": tie(f"t{k}") for k in range(3) for x in "ab"
    },
    "ties by numbers alone": {
        f"{x}{k}": tie(f"{k}") for k in range(12) for x in "wb"
    },
    "a tie named as a template": {
        "l0/a": tie("x"),
        "l0/b": tie("x"),
        "l1/a": tie("l0"),
        "l1/b": tie("l0"),
        "m": tie("l1"),
        "n": tie("l1"),
    },
    "a tie of one": {"a": tie("a"), "b": None},
}


@pytest.mark.parametrize("name", TRAPS)
def test_patterns_of_paths_with_traps(name):
    report, params = made(TRAPS[name])
    expected = statements(report, params)
    assert expected
    rule = pasted(report.patterns())
    assert statements(rule, params) == expected


def stages(depth):
    """Groups of all layers of two stages but the first."""
    return {
        f"s{i}/b{j}/w": A if j else None for i in range(2) for j in range(depth)
    }


DEPTHS = {
    "listed beside any number": (stages(3), True),
    "one beside any number": (stages(2), True),
    "ties of layers across towers": (
        {f"t{i}/l{j}/w": tie(f"{j}") for i in range(2) for j in range(3)},
        True,
    ),
    "one layer": ({"layers/0/w": A, "head/w": None}, True),
    "one layer of Linen": ({"Block_0/w": A, "head/w": None}, True),
    "one of two names": ({"a/w": A, "b_0/w": A}, True),
    "all alike": ({f"layers/{k}/w": A for k in range(3)}, False),
    "a part of each layer": ({f"b_{k}/Conv_0/w": A for k in range(3)}, False),
    "numbers in names": ({"conv3x3/w": A, "head/w": None}, False),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_numbers_of_one_depth_have_a_comment(name):
    groups, is_listed = DEPTHS[name]
    report, _ = made(groups)
    assert ("this depth" in report.patterns()) == is_listed


def test_listed_numbers_are_of_one_depth():
    """The reason for the comment, which a number of any value may not hide."""
    rule = pasted(made(stages(3))[0].patterns())
    report, params = made(stages(4))
    assert statements(rule, params).items() < (
        statements(report, params).items()
    )


def test_layers_with_ties_have_one_rule():
    for name in (
        *("ties by numbers alone", "ties of two in a layer"),
        "ties that share their start",
    ):
        report, _ = made(TRAPS[name])
        assert len(pasted(report.patterns()).rules) <= 2
        assert r"\1" in report.patterns()


def test_wrong_rules_are_noticed(monkeypatch):
    groups = TRAPS["numbers that begin alike"] | {"v": tie("t"), "u": tie("t")}
    report, params = made(groups)
    expected = statements(report, params)
    wrong = {r"layer\d+/w": A, "v|u": ScaleGroup(0)}
    found = patterns.differing_paths(wrong, report.findings)
    assert found == {"layer10/w", "u", "v"}
    rules = [PatternRule((regex,), group) for regex, group in wrong.items()]
    monkeypatch.setattr(patterns, "make_rules", lambda *_: rules)
    text = report.patterns()
    # What is right stays; what is not is stated one by one.
    assert r"layer\d+/w" in text
    assert "layer10/w" in text
    assert statements(pasted(text), params) == expected
    # A rule that applies to nothing cannot be resolved at all.
    rules.append(PatternRule(("none",), A))
    assert statements(pasted(report.patterns()), params) == expected


@pytest.mark.parametrize("make", [lambda: resnet(8), lambda: gpt_with_head(2)])
def test_patterns_are_formatted(make):
    pytest.importorskip("ruff")
    report, _ = make()
    text = report.patterns() + "\n"
    assert max(map(len, text.splitlines())) <= 80
    command = [sys.executable, "-m", "ruff", "format", "--line-length=80", "-"]
    done = subprocess.run(
        command, input=text, text=True, capture_output=True, check=True
    )
    assert done.stdout == text


def test_without_groups_there_are_no_patterns():
    report, _ = made({"w": None})
    with pytest.raises(ValueError, match="'w'.*its scale matters"):
        report.patterns()


# -- summary -----------------------------------------------------------------

COUNTED = re.compile(r"^(\S+) +(\d+) +([\d,]+)  ")


def counted(text):
    """Return the parameters and weights of each line of a summary."""
    found = filter(None, map(COUNTED.match, text.splitlines()))
    return {x[1]: (int(x[2]), int(x[3].replace(",", ""))) for x in found}


def matching(pattern, paths):
    """Return the paths that a pattern of a summary stands for."""
    regex = ""
    for part in re.split(r"(\*|\{[\d,-]+\})", pattern):
        if part == "*":
            regex += r"\d+"
        elif part.startswith("{"):
            ranges = (x.partition("-") for x in part[1:-1].split(","))
            numbers = (range(int(a), int(b or a) + 1) for a, _, b in ranges)
            regex += f"(?:{'|'.join(str(n) for x in numbers for n in x)})"
        else:
            regex += re.escape(part)
    return {path for path in paths if re.fullmatch(regex, path)}


def size(finding):
    return math.prod(finding.shape)


NETWORKS = [lambda: gpt(24), lambda: gpt_with_head(4), lambda: resnet(20)]


@pytest.mark.parametrize("make", NETWORKS)
def test_a_summary_is_a_screen_with_all_weights(make):
    report, _ = make()
    text = report.summary()
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    lines = counted(text)
    for pattern, numbers in lines.items():
        paths = matching(pattern, report.findings)
        weights = sum(size(report[path]) for path in paths)
        assert numbers == (len(paths), weights)
        kinds = {report[path].kind for path in paths}
        assert len(kinds) == 1
    assert sum(n for n, _ in lines.values()) == len(report.findings)
    # Groups are first, and each part is sorted by weights.
    grouped = [
        report[next(iter(matching(pattern, report.findings)))].group is not None
        for pattern in lines
    ]
    assert grouped == sorted(grouped, reverse=True)
    for part in (True, False):
        sizes = [
            weights
            for (_, weights), has in zip(lines.values(), grouped, strict=True)
            if has is part
        ]
        assert sizes == sorted(sizes, reverse=True)


def test_a_summary_says_why_and_how_many():
    text = gpt(2)[0].summary()
    [line] = [x for x in text.splitlines() if x.startswith("layer_*/mlp/up")]
    assert "ordinary" in line
    assert "mlp_norm/scale" in line
    [line] = [x for x in text.splitlines() if "query/kernel" in x]
    assert "proved up to epsilon 1e-06" in line
    # Kernels of queries and keys: 16 x 16 weights, 2 heads, 2 layers.
    assert text.splitlines()[-1].startswith("1,024 of ")
    assert " in 8 groups; 4 of 23 parameters" in text


def test_layers_that_differ_are_lines_with_their_numbers():
    groups = {f"blocks/{k}/w": A if k in (0, 3) else None for k in range(12)}
    report, _ = made(groups)
    lines = counted(report.summary())
    assert lines == {
        "blocks/{0,3}/w": (2, 32),
        "blocks/{1-2,4-11}/w": (10, 160),
    }


def test_ties_of_a_summary_have_numbers():
    report, _ = made(TRAPS["ties of two in a layer"])
    assert report.summary().count(" 1-3 ") == 2
    assert report.summary().count(" 4-6 ") == 2
    report, _ = made(TRAPS["ties of all"])
    assert "in 4 groups; 6 of 6" in report.summary()


def test_a_summary_of_many_patterns_keeps_the_largest():
    names = [chr(97 + k // 26) + chr(97 + k % 26) for k in range(100)]
    report, _ = made({name: A if name < "bz" else None for name in names})
    text = report.summary()
    assert len(text.splitlines()) <= 40
    assert f"{100 - len(counted(text))} smaller patterns" in text
    assert all(name in str(report) for name in names)


def test_a_path_takes_one_line():
    report, _ = made({"a\nb\t": A, "plain": None})
    assert len(report.summary().splitlines()) == 4
    assert len(str(report).splitlines()) == 4
    assert r"a\nb\t" in str(report)


def test_a_summary_has_notes_and_long_paths():
    path = "network/" * 20 + "w"
    report = make_report(
        {path: jnp.zeros((3, 2))}, {path: Finding(path, (3, 2), A, "proved")}
    )
    [_, line, _] = report.summary().splitlines()
    assert len(line) <= 100
    assert "norm zero" in line


# -- the main reason ---------------------------------------------------------

PARAMS = arrays(kernel=(3, 4), head=(4,))
X = arrays(x=(8, 3))["x"]


def norm(y, mean=None):
    mean = jnp.mean(y, axis=0, keepdims=True) if mean is None else mean[None]
    return (y - mean) / jnp.sqrt(jnp.var(y, axis=0, keepdims=True) + 1e-5)


def loss(params, x, mean=None):
    hidden = norm(x @ params["kernel"], mean)
    return jnp.mean(jnp.tanh(hidden) @ params["head"])


def penalized(params, x):
    return loss(params, x) + 1e-4 * optax.tree.norm(params, squared=True)


def with_statistics(params, x):
    return loss(params, x), jnp.mean(x @ params["kernel"], axis=0)


REASONS = {
    "L2 penalty": (penalized, (X,)),
    "2 arrays": (with_statistics, (X,)),
    "loss of training": (loss, (X, jnp.zeros(4))),
    "no rule for": (
        lambda p, x: (
            jnp.linalg.slogdet(p["kernel"] @ p["kernel"].T)[1]
            * jnp.sum(p["head"])
        ),
        (X,),
    ),
    "'kernel'.*`exp`": (
        lambda p, x: jnp.exp(x @ p["kernel"]).sum() * p["head"].sum(),
        (X,),
    ),
}


@pytest.mark.parametrize("words", REASONS)
def test_the_main_reason(words):
    function, args = REASONS[words]
    report = analysed(function, PARAMS, *args)
    assert report["kernel"].group is None
    assert re.search(words, report.main_reason)
    assert not re.search(words, analysed(loss, PARAMS, X).main_reason)


def test_nothing_is_known_of_stated_groups():
    report, _ = made({"w": A})
    assert report.main_reason == ""
    groups = {"kernel": A, "head": None}
    assert check_groups(loss, PARAMS, groups, X).main_reason == ""


# -- HTML --------------------------------------------------------------------


def parsed(report):
    return xml.etree.ElementTree.fromstring(f"<p>{report._repr_html_()}</p>")


def test_a_short_report_is_one_table_in_notebooks():
    report, _ = made({"<b>&": A, "v": None})
    page = parsed(report)
    assert next(x.text for x in page.iter("td")) == "<b>&"
    assert len(list(page.iter("tr"))) == 3
    assert page.find("details") is None


def test_a_long_report_is_folded_below_its_summary():
    report, _ = gpt(12)
    page = parsed(report)
    assert len(list(page.find("table").iter("tr"))) <= 41
    folded = page.find("details")
    assert len(list(folded.iter("tr"))) == len(report.findings) + 1


# -- the tree of the optimizer -------------------------------------------------


def test_groups_of_variables_and_of_their_params():
    report = analysed(loss, PARAMS, X)
    variables = {"params": PARAMS}
    expected = {f"params/{k}": v for k, v in report.groups_for(PARAMS).items()}
    assert report.groups_for(variables) == expected
    outer = analysed(lambda v, x: loss(v["params"], x), variables, X)
    assert outer.groups_for(PARAMS) == report.groups_for(PARAMS)
    assert outer.groups_for(variables) == expected
    assert make_plan(report, variables).paths == ("params/kernel",)


def test_trees_that_are_no_variables_are_not_taken_for_them():
    report = analysed(loss, PARAMS, X)
    with pytest.raises(ValueError, match="batch_stats.*params"):
        make_plan(report, {"params": PARAMS, "batch_stats": PARAMS})
    other = {"params": {**PARAMS, "kernel": jnp.ones((4, 3))}}
    with pytest.raises(ValueError, match=r"'params/kernel' has shape \(4, 3\)"):
        make_plan(report, other)
    for tree in ({"model": PARAMS}, {"params": {"a": X}}):
        with pytest.raises(ValueError, match="do not cover"):
            make_plan(report, tree)


def test_a_mask_may_hide_other_collections():
    report = analysed(loss, PARAMS, X)
    hidden = jax.tree.map(lambda _: optax.MaskedNode(), PARAMS)
    masked = {"params": PARAMS, "batch_stats": hidden}
    assert make_plan(report, masked).paths == ("params/kernel",)


def test_groups_of_a_part_of_the_params():
    report, params = made({"stem/w": A, "body/w": B, "head/w": None})
    del params["stem/w"]
    with pytest.raises(ValueError, match=r"'stem/w'.*select"):
        make_plan(report, params)
    assert make_plan(report.select("body/.*"), params).paths == ("body/w",)
    # A mask says that the other part belongs to another transform.
    hidden = params | {"stem/w": optax.MaskedNode()}
    assert make_plan(report, hidden).paths == ("body/w",)


def test_data_among_the_params_have_no_groups():
    report, params = made({"w": A, "v": None})
    data = {"count": jnp.arange(4), "key": jax.random.key(0)}
    groups = report.groups_for(params | data)
    assert groups == {"w": A, "v": None, "count": None, "key": None}
    assert make_plan(report, params | data).paths == ("w",)
    with pytest.raises(ValueError, match="'more' of shape"):
        report.groups_for(params | {"more": jnp.ones(4)})


@pytest.mark.parametrize("groups", [{"w": A}, {"w": None}])
def test_groups_of_another_tree(groups):
    report, params = made(groups)
    assert report.groups_for(params) == groups
    graph = nnx.graphdef(nnx.Linear(4, 4, rngs=nnx.Rngs(0)))
    for wrong, error, words in (
        (None, TypeError, "None"),
        (graph, TypeError, "NNX.*model"),
        ({"u": params["w"]}, ValueError, "'u'.*find the groups"),
    ):
        with pytest.raises(error, match=words):
            report.groups_for(wrong)
