"""Known networks: their sizes, what is proved of them, and the script."""

import functools
import json
import math

import jax
import pytest

pytest.importorskip("flax")

from benchmarks import find_groups, networks, pages, shapes
from psi_optax import ScaleGroup
from psi_optax.groups.paths import leaves_with_paths

TINY = {"layers": 1, "width": 8, "heads": 2, "vocabulary": 11, "length": 4}


def shapes_of(tree):
    return {e.path: tuple(e.leaf.shape) for e in leaves_with_paths(tree)}


@functools.cache
def made(name):
    return getattr(networks, name)()


def count(problem):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(problem.params))


@pytest.fixture(scope="module")
def resnet50():
    return find_groups.analyse(made("resnet50_linen"))


def test_networks_have_the_parameters_that_they_are_known_for():
    linen, nnx = made("resnet50_linen"), made("resnet50_nnx")
    assert shapes_of(linen.params) == shapes_of(nnx.params)
    assert count(linen) == count(nnx) == 25_557_032
    ours = sorted(shapes_of(linen.params).values())
    assert ours == sorted(shapes.resnet50().values())
    assert count(made("resnet8_linen")) == 78_042
    width, layer_norms = 768, 2 * 768 + 2 * 64
    assert count(made("transformer_linen")) == (
        (50257 + 1024) * width + 12 * (12 * width**2 + layer_norms) + width
    )


@pytest.mark.parametrize(
    "name",
    ["resnet50_linen", "resnet50_nnx", "resnet8_linen", "transformer_linen"],
)
def test_networks_are_shapes_and_their_losses_are_numbers(name):
    problem = made(name)
    leaves = jax.tree.leaves((problem.params, problem.args))
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)
    found = jax.eval_shape(problem.loss, problem.params, *problem.args)
    assert (found.shape, found.dtype) == ((), "float32")


@pytest.mark.parametrize("depth", [8, 20])
def test_a_small_resnet_has_the_depth_it_is_named_after(depth):
    paths = shapes_of(networks.small_resnet_linen(depth).params)
    kernels = [p for p in paths if p.endswith("kernel") and "shortcut" not in p]
    assert len(kernels) == depth


def test_version_one_and_a_half_strides_in_the_3x3_convolution():
    for block in networks.RESNET50.blocks:
        assert [c.size for c in block] == [1, 3, 1]
        assert [c.stride for c in block] == [1, block[1].stride, 1]
    strides = [block[1].stride for block in networks.RESNET50.blocks]
    assert [i for i, s in enumerate(strides) if s == 2] == [3, 7, 13]


def test_every_filter_of_resnet50_has_no_scale_and_the_head_has(resnet50):
    kernels = [p for p in resnet50.findings if p.endswith("conv/kernel")]
    assert len(kernels) == 53
    for path in kernels:
        assert resnet50[path].group == ScaleGroup((0, 1, 2))
        assert resnet50[path].kind == "proved up to epsilon"
        assert resnet50[path].epsilon == pytest.approx(1e-5)
    for path in ("head/kernel", "head/bias"):
        assert resnet50[path].group is None
        assert resnet50[path].kind == "ordinary"


def test_only_what_reaches_the_head_of_resnet50_unnormalized_is_ordinary(
    resnet50,
):
    kinds = {p: f.kind for p, f in resnet50.findings.items()}
    last = [f"block_{index}/layer_2" for index in (13, 14, 15)]
    ordinary = {"head/kernel", "head/bias"} | {
        f"{layer}/norm/{name}"
        for layer in [*last, "block_13/shortcut"]
        for name in ("scale", "bias")
    }
    assert {p for p, k in kinds.items() if k == "ordinary"} == ordinary
    assert set(kinds.values()) == {"ordinary", "proved up to epsilon"}


def test_linen_and_nnx_get_the_same_verdicts(resnet50):
    found = find_groups.analyse(made("resnet50_nnx")).findings
    assert found.keys() == resnet50.findings.keys()
    for path, ours in resnet50.findings.items():
        theirs = found[path]
        assert (ours.group, ours.kind, ours.epsilon, ours.shape) == (
            (theirs.group, theirs.kind, theirs.epsilon, theirs.shape)
        )


def test_queries_and_keys_behind_their_norm_have_no_scale_head_by_head():
    report = find_groups.analyse(made("transformer_linen"))
    grouped = {p: f.group for p, f in report.findings.items() if f.group}
    assert grouped == {
        f"layer_{layer}/attention/{name}/kernel": ScaleGroup((0, 2))
        for layer in range(12)
        for name in ("query", "key")
    }
    assert {f.kind for f in report.findings.values()} == {
        "proved up to epsilon",
        "ordinary",
    }


def test_measured_figures_of_a_tiny_network_make_a_table():
    row = find_groups.measure(
        lambda: networks.transformer_linen(**TINY, batch=2), runs=2
    )
    assert row["arrays"] == 13
    assert row["numbers"] == 15 * 8 + 12 * 64 + 2 * 8 + 2 * 4 + 8
    assert sum(row["kinds"].values()) == row["arrays"]
    assert row["equations"] > 50
    assert min(row["first_s"], row["median_s"]) > 0
    assert row["peak_mb"] > row["increase_mb"] >= 0
    row = json.loads(json.dumps(row))
    lines = find_groups.table({"one": row, "two": row}).splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["", "one", "two"]
    assert len({len(line) for line in lines}) == 1
    assert {name: cell for name, cell, _ in cells[2:] if "-" in name} == {
        "- proved": "2",
        "- inert": "0",
        "- ordinary": "11",
        "- partly": "0",
    }


def test_a_section_has_the_table_and_the_reports(monkeypatch):
    tiny = {"Tiny": lambda: networks.transformer_linen(**TINY)}
    monkeypatch.setattr(find_groups, "SHOWN", tiny)
    results = {"machine": find_groups.machine(), "runs": 1}
    results |= {"networks": ROWS, "depths": DEPTHS}
    text = find_groups.section(results)
    assert text.startswith(find_groups.table(ROWS))
    assert find_groups.depth_table(DEPTHS) in text
    assert f"JAX {jax.__version__}" in text
    assert text.endswith("2 of 13 parameters have scale groups\n```")


ROWS = {
    "Tiny": {
        "numbers": 1234,
        "arrays": 13,
        "equations": 99,
        "first_s": 0.25,
        "median_s": 0.125,
        "peak_mb": 190.0,
        "increase_mb": 1.0,
        "kinds": {"proved up to epsilon": 2, "ordinary": 11},
    }
}


DEPTHS = [{"title": "Tiny", "layers": 5, **ROWS["Tiny"]}]


def test_seconds_are_divided_by_the_layers():
    line = find_groups.depth_table(DEPTHS).splitlines()[2]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    # 0.125 s / 5 layers = 25 ms.
    assert cells == ["Tiny", "5", "0.25 s", "0.12 s", "25 ms", "190 MiB"]


def test_a_network_is_measured_in_a_process_of_its_own():
    row = find_groups.measure_alone("resnet50_linen", runs=1)
    assert row["numbers"] == 25_557_032
    assert row["kinds"] == {"proved up to epsilon": 151, "ordinary": 10}
    # Half of what the weights alone would take, had they been made.
    assert row["increase_mb"] < 25_557_032 * 4 / 2**20 / 2


def test_the_page_has_its_markers():
    page = find_groups._PAGE.read_text(encoding="utf-8")
    assert pages.fill(page, "find_groups", "text") != page


def test_the_script_prints_and_writes_all_networks(
    monkeypatch, tmp_path, capsys
):
    calls = []

    def alone(name, runs):
        calls.append((name, runs))
        return ROWS["Tiny"]

    monkeypatch.setattr(find_groups, "measure_alone", alone)
    find_groups.main(["--runs", "2", "--out", str(tmp_path)])
    names = [*find_groups.NETWORKS, *find_groups.DEEP]
    assert calls == [(name, 2) for name in names]
    written = json.loads((tmp_path / "find_groups.json").read_text())
    titles = [title for title, _ in find_groups.NETWORKS.values()]
    assert list(written["networks"]) == titles
    layers = [deep.layers for deep in find_groups.DEEP.values()]
    assert [row["layers"] for row in written["depths"]] == layers
    printed = capsys.readouterr().out
    assert find_groups.table(written["networks"]) in printed
    assert find_groups.depth_table(written["depths"]) in printed
