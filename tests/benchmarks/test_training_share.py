"""The optimizer's share of a training step."""

import json

import jax
import jax.numpy as jnp
import pytest

import psi_optax
from benchmarks import pages, training_share
from benchmarks.step_time_cases import ADAM, SGD
from benchmarks.step_time_steps import compile_case
from benchmarks.training_share import NETWORKS, PASSES, alone_name
from psi_optax.models import linen

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = NETWORKS["cnn"]._replace(model=linen.CNN(widths=(2,)), image=(4, 4, 1))


def test_shares_of_times_that_are_known():
    seconds = {
        PASSES: [3.0, 6.0],
        SGD: [4.0, 8.0],
        alone_name(SGD): [0.5, 1.0],
        "psi_sgd(momentum)": [6.0, 12.0],
        alone_name("psi_sgd(momentum)"): [3.0, 3.0],
    }
    plain, ours = training_share.report(seconds)
    # 1 - 3/4 in both turns, though the second was slower.
    assert plain["share"] == 0.25
    assert plain["share_quartiles"] == [0.25, 0.25]
    assert plain["alone"] == 0.125
    assert plain["ratio"] == 1
    assert (ours["share"], ours["ratio"]) == (0.5, 1.5)
    # 3/6 and 3/12.
    assert ours["alone"] == 0.375


def test_a_share_within_the_noise_is_not_hidden():
    seconds = {PASSES: [4.0], SGD: [2.0], alone_name(SGD): [1.0]}
    [row] = training_share.report(seconds)
    assert row["share"] == -1


@pytest.mark.parametrize("name", NETWORKS)
def test_the_filters_behind_a_norm_are_grouped(name):
    network = NETWORKS[name]
    images = jax.ShapeDtypeStruct((1, *network.image), jnp.float32)
    variables = jax.eval_shape(
        lambda x: network.model.init(jax.random.key(0), x, train=False), images
    )
    groups = psi_optax.output_channels(
        variables["params"], where=network.grouped
    )
    grouped, whole = 0, 0
    for path, leaf in jax.tree.leaves_with_path(variables["params"]):
        found = groups
        for key in path:
            found = found[key.key]
        assert (found is not None) == (leaf.ndim == 4)
        grouped += leaf.ndim == 4
        whole += leaf.size
    # Three layers of 9 * (8 + 8 * 16 + 16 * 32) weights, 2 * 56 of their norms
    # and 330 of the head; one more than three stages of three blocks of two.
    known = {"cnn": (3, 6_274), "resnet20": (19, 269_722)}
    assert (grouped, whole) == known[name]


def test_steps_train_and_passes_do_not():
    variables, data = training_share.draw(SMALL, 4)
    tx = training_share.optimizers(
        variables["params"], SMALL.grouped, family=False
    )[ADAM]
    before = jnp.copy(variables["params"]["hidden_0"]["kernel"])
    for chosen, moves in ((tx, True), (None, False)):
        case = training_share.build(SMALL, variables, chosen)
        case, _ = compile_case(case, data)
        params, (statistics, _) = case.step(case.params, case.state, data)
        same = params["hidden_0"]["kernel"] == before
        assert bool(same.all()) != moves
        # Running statistics change with and without an optimizer.
        assert (statistics["norm_0"]["mean"] != 0).all()
    # What was compiled took copies.
    assert (variables["params"]["hidden_0"]["kernel"] == before).all()


def test_the_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "cnn", SMALL)
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    page = tmp_path / "step-time.md"
    marker = f"<!-- {jax.default_backend()} training share"
    page.write_text(f"{marker}: begin -->\n{marker}: end -->")
    training_share.main(
        [
            *("--networks", "cnn", "--batch", "4", "--turns", "1"),
            *("--steps", "1", "--docs", "--out", str(tmp_path)),
        ]
    )
    found = json.loads((tmp_path / "training_share.json").read_text())
    rows = found["networks"]["cnn"]
    assert [row["optimizer"] for row in rows] == list(training_share.OPTIMIZERS)
    for row in rows:
        assert row["share"] < 1
        assert row["alone"] > 0
        assert row["milliseconds"] > 0
    own = [row["ratio"] for row in rows if row["optimizer"] == row["baseline"]]
    assert own == [1, 1]
    text = page.read_text()
    assert text.count("`cnn`") == len(rows)
    assert text.count("`cnn`") == capsys.readouterr().out.count("`cnn`")
    with pytest.raises(SystemExit):
        training_share.main(["--networks", "cn"])
    assert "resnet20" in capsys.readouterr().err
