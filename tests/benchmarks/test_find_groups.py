"""Known networks: their sizes, their groups, and the cost of finding these."""

import jax.numpy as jnp
import pytest

pytest.importorskip("flax")

import psi_optax
from benchmarks import problems
from benchmarks.harness.processes import alone
from benchmarks.speed import find_groups, find_groups_compile
from benchmarks.speed.sets import SETS
from psi_optax import ScaleGroup
from psi_optax.groups.paths import leaves_with_paths


def shapes_of(problem):
    return {
        e.path: tuple(e.leaf.shape) for e in leaves_with_paths(problem.params)
    }


def test_the_table_of_resnet50_is_that_of_the_networks():
    linen, nnx = problems.resnet50_linen(), problems.resnet50_nnx()
    assert shapes_of(linen) == shapes_of(nnx)
    table = SETS["resnet50"].shapes.values()
    assert sorted(shapes_of(linen).values()) == sorted(table)


@pytest.mark.parametrize(
    ("name", "count", "numbers"),
    [
        ("resnet50", 161, 25_557_032),
        ("vit_b16", 200, 86_567_656),
        ("gpt_124m", 148, 124_439_808),
        ("gpt_1_3b", 292, 1_313_626_112),
        ("tiny", 1000, 256_000),
    ],
)
def test_tables_have_the_published_sizes(name, count, numbers):
    assert len(SETS[name].shapes) == count
    assert SETS[name].weights == numbers


@pytest.mark.parametrize("framework", ["linen", "nnx"])
def test_only_what_reaches_the_head_of_resnet50_unnormalized_is_ordinary(
    framework,
):
    problem = getattr(problems, f"resnet50_{framework}")()
    found = find_groups.analyse(problem).findings
    kernels = [path for path in found if path.endswith("conv/kernel")]
    assert len(kernels) == 53
    for path in kernels:
        assert found[path].group == ScaleGroup((0, 1, 2))
        assert found[path].epsilon == pytest.approx(1e-5)
    last = [f"block_{index}/layer_2" for index in (13, 14, 15)]
    ordinary = {"head/kernel", "head/bias"} | {
        f"{layer}/norm/{name}"
        for layer in [*last, "block_13/shortcut"]
        for name in ("scale", "bias")
    }
    proved = dict.fromkeys(found, "proved up to epsilon")
    expected = proved | dict.fromkeys(ordinary, "ordinary")
    assert {path: finding.kind for path, finding in found.items()} == expected


def test_a_network_is_measured_in_a_process_of_its_own():
    row = alone(find_groups.analysis, "resnet50_linen", 1)
    assert row["kinds"] == {"proved up to epsilon": 151, "ordinary": 10}
    assert min(row["first_s"], row["median_s"]) > 0
    # Half of what the weights alone would take, had they been made.
    assert 0 <= row["increase_mb"] < row["numbers"] * 4 / 2**20 / 2


def test_verdicts_are_counted_and_seconds_divided_by_the_layers():
    row = {"numbers": 1234, "arrays": 13, "equations": 99, "first_s": 0.25}
    row |= {"median_s": 0.125, "peak_mb": 190.0, "increase_mb": 1.0}
    row["kinds"] = {"proved": 1, "proved up to epsilon": 2, "ordinary": 10}
    text = find_groups.report(
        {
            "settings": {"runs": 1},
            "versions": {"cores": 2, "jax": "0", "flax": "0"},
            "parts": {"transformer": row, "transformer_8": row},
        }
    )
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
    ]
    assert ["- proved", "3"] in cells
    assert ["- inert", "0"] in cells
    # 0.125 s / 8 layers = 16 ms.
    line = ["Transformer, Linen", "8", "0.25 s", "0.12 s", "16 ms", "190 MiB"]
    assert line in cells


# -- beside compiling a training step -----------------------------------------

ROW = {
    "step": {"cpu_s": 2.0, "wall_s": 1.0},
    "find": {"cpu_s": 1.0, "wall_s": 0.75},
}


def test_the_networks_have_groups_and_finite_losses():
    for network in find_groups_compile.NETWORKS.values():
        found = find_groups.analyse(network.make()).findings
        assert any(f.group is not None for f in found.values())
    loss, *shapes = find_groups_compile.readme()
    params, args = find_groups_compile.draw(shapes)
    assert jnp.isfinite(loss(params, *args))
    groups = psi_optax.find_groups(loss, params, *args).groups
    assert groups["hidden"]["kernel"] == ScaleGroup(0)


def test_the_median_is_of_runs_in_turns(monkeypatch):
    calls = []

    def alone(function, name, work, environment):
        assert environment["JAX_ENABLE_COMPILATION_CACHE"] == "false"
        calls.append(work)
        turn = 1 + calls.count(work)
        return {clock: turn * x for clock, x in ROW[work].items()}

    monkeypatch.setattr(find_groups_compile, "alone", alone)
    # The median of 2, 3 and 4 times the row.
    found = find_groups_compile.medians("readme", 3)
    assert found["find"] == {"cpu_s": 3.0, "wall_s": 2.25}
    assert calls == ["step", "find"] * 3


def test_ratios_are_those_of_find_to_step():
    text = find_groups_compile.report(
        {
            "settings": {"runs": 3},
            "versions": {"cores": 2, "jax": "0"},
            "parts": {"readme": ROW},
        }
    )
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")[2:-1]]
    assert cells == ["2.00 s", "1.00 s", "0.50", "1.00 s", "0.75 s", "0.75"]
