"""The shares by architecture: counted by hand, and measured at small sizes."""

import copy
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax")

import psi_optax
from benchmarks.experiments.architectures import (
    MEASUREMENT,
    branches,
    models,
    transformers,
)
from benchmarks.experiments.architectures.analysis import (
    JOINT,
    OWN,
    analyse,
)
from benchmarks.experiments.architectures.networks import ARCHITECTURES
from benchmarks.experiments.architectures.report import ONE_GROUP, Row, rows
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import read
from benchmarks.speed.sets import SETS
from psi_optax import ScaleGroup, reparametrize

pytestmark = pytest.mark.usefixtures("optax_promotion")

LANGUAGE = transformers.Sizes(
    length=6, width=8, depth=1, heads=2, vocabulary=11
)
IMAGES = transformers.ViTSizes(
    patch=2, width=8, depth=1, heads=2, pixels=4, classes=3
)
SMALL = {
    "pre_norm": lambda: transformers.pre_norm(LANGUAGE),
    "experts": lambda: transformers.mixture_of_experts(LANGUAGE),
    "state_space": lambda: transformers.state_space(LANGUAGE),
    "gpt2": lambda: transformers.gpt2(LANGUAGE),
    "vit": lambda: transformers.vit(IMAGES),
    "discriminator": lambda: models.discriminator(
        ((3, 1, 4), (4, 2, 5)), pixels=4
    ),
    "graph_network": lambda: models.graph_network((4, 6, 5, 3), 12, 30),
}


@pytest.fixture(autouse=True)
def _rank_promotion():
    """Biases and scales are broadcast, as in most scripts."""
    with jax.numpy_rank_promotion("allow"):
        yield


def row(name):
    architecture = ARCHITECTURES[name]
    return Row(name, analyse(architecture.make(), architecture.select))


# -- sizes and counts ---------------------------------------------------------


def test_networks_have_the_published_sizes():
    content = read(DOCS / "numbers" / "architectures.json")
    found = {x.name: x.weights() for x in rows(content)}
    assert set(found) == set(ARCHITECTURES)
    assert found["resnet"] == SETS["resnet50"].weights
    assert found["vit"] == SETS["vit_b16"].weights
    assert found["gpt2"] == SETS["gpt_124m"].weights
    # Of the leaderboard of ogbn-arxiv.
    assert found["graph_network"] == 110_120


def test_shares_of_vgg_are_those_counted_by_hand():
    found = row("vgg")
    widths = [3, *[64] * 2, *[128] * 2, *[256] * 3, *[512] * 6]
    filters = sum(
        9 * width_in * width for width_in, width in itertools.pairwise(widths)
    )
    # A pair for each channel, but for those that the head reads.
    pairs = 2 * sum(widths[1:-1])
    assert (found.weights(OWN), found.weights(JOINT)) == (filters, pairs)
    assert found.weights() == filters + pairs + 2 * 512 + 512 * 10 + 10
    assert found.part["joint_groups"] == 12
    assert found.part["selected"] == filters


def test_shares_of_a_transformer_are_those_counted_by_hand():
    found, normed = row("pre_norm"), row("qk_norm")
    width, depth = 768, 12
    stream = (50_257 + 1024) * width + depth * 5 * width**2
    assert found.weights(OWN) == 0
    assert found.weights(JOINT) == normed.weights(JOINT) == stream
    assert found.part["joint_groups"] == 1
    assert normed.weights(OWN) == normed.part["selected"]
    assert normed.part["selected"] == depth * 2 * width**2


# -- groups -------------------------------------------------------------------


def draw(problem):
    """Return random weights, and arguments of small integers or numbers."""
    random = np.random.default_rng(0)

    def one(x):
        if jnp.issubdtype(x.dtype, np.integer):
            return jnp.asarray(random.integers(0, 3, x.shape), x.dtype)
        return jnp.asarray(random.normal(size=x.shape), x.dtype)

    return jax.tree.map(one, (problem.params, problem.args))


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_of_each_kind_have_what_is_proved(name):
    """Losses at random weights confirm the analysis, or it is an error."""
    problem = SMALL[name]()
    params, args = draw(problem)
    assert jnp.isfinite(problem.loss(params, *args))
    found = psi_optax.find_groups(problem.loss, params, *args)
    proved = psi_optax.find_groups(
        problem.loss, problem.params, *problem.args, method="analysis"
    )
    assert found.groups == proved.groups


def test_a_wrong_statement_about_a_small_network_is_an_error():
    problem = SMALL["pre_norm"]()
    params, args = draw(problem)
    groups = psi_optax.groups_from_paths({".*/up/kernel": ScaleGroup(0)})
    with pytest.raises(ValueError, match="up/kernel"):
        psi_optax.check_groups(problem.loss, params, groups, *args)


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"gpt2"}))
def test_nothing_is_found_without_normalizations(name, monkeypatch):
    assert analyse(SMALL[name](), ".*")["selected"] > 0
    monkeypatch.setattr(branches, "_unit_rms", lambda x: x)
    monkeypatch.setattr(models, "_batch_norm", lambda p, x: x * p["scale"])
    monkeypatch.setattr(reparametrize, "spectral", lambda p, *_, **__: p)
    found = Row(name, analyse(SMALL[name](), ""))
    assert found.weights(OWN, JOINT) == 0


def test_groups_of_group_norm_are_blocks_of_filters():
    lines = row("group_norm_resnet").lines(OWN)
    assert {line["axes"] for line in lines} == {"0 1 2 3:32"}


# -- the table ----------------------------------------------------------------


def made_up():
    lines = [
        {"pattern": pattern, "weights": n, "kind": kind, "axes": axes}
        for pattern, n, kind, axes in (
            ("layer_*/up/kernel", 60, OWN, "0"),
            ("other/up/kernel", 20, OWN, "0"),
            ("layer_*/norm/scale", 4, OWN, "0"),
            ("layer_*/out/kernel", 6, JOINT, "0 1"),
            ("head", 10, "ordinary", ""),
        )
    ]
    part = {"lines": lines, "joint_groups": 1, "selected": 80}
    return {"parts": {"vgg": part, "gpt2": part}}


def test_cells_are_shares_and_names():
    table = MEASUREMENT.report(made_up()).splitlines()
    cells = [[x.strip() for x in line.split("|")[2:-1]] for line in table]
    assert cells[2:] == [
        [
            "100",
            "90.00 %",
            # norm/scale has less than a twentieth of 84 weights.
            "84.00 %: `up/kernel` 0",
            "6.00 % in 1 group: `out/kernel` 0 1",
            "`head`",
            select,
        ]
        for select in ("`.*/kernel`: 80.00 %", "none")
    ]


def test_no_pattern_ends_a_cell():
    assert not [x for x in ARCHITECTURES.values() if "|" in x.select]


def test_the_numbers_that_are_kept_bear_out_the_claims():
    content = read(DOCS / "numbers" / "architectures.json")
    assert MEASUREMENT.faults(content) == []
    for name, group in (*((x, "qk_norm") for x in ONE_GROUP), ("gpt2", "vit")):
        changed = copy.deepcopy(content)
        changed["parts"][name] = changed["parts"][group]
        [fault] = MEASUREMENT.faults(changed)
        assert fault.startswith(name)
