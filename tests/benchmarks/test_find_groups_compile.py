"""Finding groups beside compiling a training step."""

import jax
import pytest

pytest.importorskip("flax")

from benchmarks.speed import find_groups_compile as script
from psi_optax import ScaleGroup, find_groups

ROW = {
    "step": {"cpu_s": 2.0, "wall_s": 1.0},
    "find": {"cpu_s": 1.0, "wall_s": 0.75},
}


def test_the_networks_have_groups_and_finite_losses():
    for network in script.NETWORKS.values():
        loss, params, args = network.make()
        report = find_groups(loss, params, *args, method="analysis")
        assert any(f.group is not None for f in report.findings.values())
    loss, *shapes = script.readme()
    params, args = script.draw(shapes)
    assert jax.numpy.isfinite(loss(params, *args))
    groups = find_groups(loss, params, *args).groups
    assert groups["hidden"]["kernel"] == ScaleGroup(0)


def test_the_median_is_of_runs_in_turns(monkeypatch):
    calls = []

    def alone(function, name, work, environment):
        assert environment["JAX_ENABLE_COMPILATION_CACHE"] == "false"
        calls.append(work)
        turn = 1 + calls.count(work)
        return {clock: turn * x for clock, x in ROW[work].items()}

    monkeypatch.setattr(script, "alone", alone)
    # The median of 2, 3 and 4 times the row.
    found = script.medians("readme", 3)
    assert found["find"] == {"cpu_s": 3.0, "wall_s": 2.25}
    assert calls == ["step", "find"] * 3


def test_ratios_are_those_of_find_to_step():
    text = script.report(
        {
            "settings": {"runs": 3},
            "versions": {"cores": 2, "jax": "0"},
            "parts": {"readme": ROW},
        }
    )
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")[2:-1]]
    assert cells == ["2.00 s", "1.00 s", "0.50", "1.00 s", "0.75 s", "0.75"]
