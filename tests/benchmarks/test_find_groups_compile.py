"""Finding groups beside compiling a training step: the script."""

import json

import pytest

pytest.importorskip("flax")

import jax

from benchmarks import find_groups_compile as script
from psi_optax import ScaleGroup, find_groups

ROW = {
    "step": {"cpu_s": 2.0, "wall_s": 1.0},
    "find": {"cpu_s": 1.0, "wall_s": 0.75},
}


def test_the_networks_have_groups_and_finite_losses():
    for network in script.NETWORKS.values():
        loss, shapes, args = network.make()
        report = find_groups(loss, shapes, *args, method="analysis")
        assert any(f.group is not None for f in report.findings.values())
    loss, shapes, args = script.readme()
    params = script.draw(shapes)
    assert jax.numpy.isfinite(loss(params, *script.draw(args)))
    report = find_groups(loss, params, *script.draw(args))
    assert report.groups["hidden"]["kernel"] == ScaleGroup(0)


@pytest.mark.parametrize("work", script.WORK)
def test_work_is_measured(work):
    # Adam's count is an integer that is promoted.
    with jax.numpy_dtype_promotion("standard"):
        found = script.measure(script.readme(), work)
    assert min(found["cpu_s"], found["wall_s"]) > 0


def test_ratios_are_those_of_find_to_step():
    line = script.table({"one": ROW}).splitlines()[2]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1:] == ["2.00 s", "1.00 s", "0.50", "1.00 s", "0.75 s", "0.75"]


def test_the_script_takes_the_median_and_writes_it(
    monkeypatch, tmp_path, capsys
):
    calls = []

    def alone(name, work):
        calls.append((name, work))
        turn = 1 + calls.count((name, work))
        return {key: turn * x for key, x in ROW[work].items()}

    monkeypatch.setattr(script, "measure_alone", alone)
    script.main(["--runs", "3", "--out", str(tmp_path)])
    assert len(calls) == 3 * 2 * len(script.NETWORKS)
    path = tmp_path / "find_groups_compile.json"
    written = json.loads(path.read_text())
    for row in written["networks"].values():
        # The median of 2, 3 and 4 times the row.
        assert row["find"]["cpu_s"] == 3.0
    assert script.table(written["networks"]) in capsys.readouterr().out
