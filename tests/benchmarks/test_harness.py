"""The command of every measurement: options, files, resumption and pages."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from typing import Annotated

import pytest

pytest.importorskip("sklearn")

from matplotlib.figure import Figure

from benchmarks import __main__ as command
from benchmarks.harness import measurement as harness, pages
from benchmarks.harness.machine import give_threads
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Folder, Positives, one_of, some
from benchmarks.harness.results import Results, read
from tests.full_disk import fill, needs_full, unfinished

NAMES = ("sgd", "psi_sgd")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings.

    Attributes:
        seeds: Number of seeds.
        rates: Learning rates.
        names: Names.
        where: A folder.
    """

    seeds: Count = 3
    rates: Positives = (0.1,)
    names: Annotated[tuple[str, ...], some(one_of(NAMES))] = NAMES
    where: Annotated[str, one_of(("here", "there"))] = "here"


measured = []


def measure(settings, results):
    results.expect(len(settings.names))
    for name in settings.names:
        results.part(
            name, lambda name=name: measured.append(name) or {"n": len(name)}
        )


def report(content):
    return ", ".join(f"{k}: {v['n']}" for k, v in content["parts"].items())


TINY = Measurement(
    settings=Settings(),
    smoke=Settings(names=("sgd",)),
    measure=measure,
    report=report,
    page="page.md",
    figures=lambda _: {"tiny": Figure()},
)
TIMED = dataclasses.replace(TINY, timed=True, selects=("names",))


@pytest.fixture(autouse=True)
def nothing_measured():
    measured.clear()


def run(out, *arguments, of=TINY):
    harness.run("tiny", of, "About.", ["--out", str(out), *arguments])
    return read(out / "tiny.json")


def refused(capsys, call, *arguments, status=(1, 2), **options):
    """Return the message of a call that ends with an error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        call(*arguments, **options)
    said = capsys.readouterr().err
    if isinstance(caught.value.code, str):
        return caught.value.code
    assert caught.value.code in status
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--seeds 0", ["--seeds", "1 or more"]),
        ("--seeds many", ["--seeds", "many"]),
        ("--rates 1 nan", ["--rates", "more than 0"]),
        ("--rates", ["--rates", "at least one"]),
        ("--names psi_sdg", ["--names", "'psi_sgd'?"]),
        ("--names zzz", ["--names", "none of sgd, psi_sgd"]),
        ("--names sgd sgd", ["--names", "once"]),
        ("--smoke --docs", ["--docs", "--smoke"]),
        ("--where ther", ["--where", "'there'?"]),
        ("--seds 1", ["--seds", "--seeds"]),
    ],
)
def test_wrong_options_are_named(capsys, tmp_path, arguments, words):
    said = refused(capsys, run, tmp_path, *arguments.split())
    assert all(word in said for word in words)
    assert not measured


def test_a_folder_has_to_be_there(tmp_path):
    spec = Folder.__metadata__[0]
    assert spec.instance_from_str([str(tmp_path)]) == tmp_path
    with pytest.raises(ValueError, match="nowhere"):
        spec.instance_from_str([str(tmp_path / "nowhere")])


def test_measurements_are_listed_and_an_unknown_one_is_named(capsys):
    command.main([])
    listed = capsys.readouterr().out
    assert all(name in listed for name in command.MEASUREMENTS)
    assert "'rescaling'?" in refused(capsys, command.main, ["resclaing"])


def test_settings_are_options_and_numbers_are_written(capsys, tmp_path):
    content = run(tmp_path, "--seeds", "5", "--rates", "0.5", "1")
    assert content["settings"]["rates"] == [0.5, 1.0]
    assert content["settings"]["seeds"] == 5
    assert content["parts"] == {"sgd": {"n": 3}, "psi_sgd": {"n": 7}}
    assert set(content["seconds"]) == set(NAMES)
    assert content["versions"]["jax"]
    printed = capsys.readouterr()
    assert printed.out.startswith("sgd: 3, psi_sgd: 7\n")
    # The progress bar ends its line before the report begins.
    assert printed.err.endswith("\n")
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_smoke_runs_have_files_of_their_own(tmp_path):
    harness.run("tiny", TINY, "", ["--out", str(tmp_path), "--smoke"])
    assert measured == ["sgd"]
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["tiny-smoke.json", "tiny-smoke.png"]


def test_a_stopped_run_goes_on(capsys, tmp_path, monkeypatch):
    def stops(settings, results):
        results.part("sgd", lambda: {"n": 3})
        raise KeyboardInterrupt

    stopping = dataclasses.replace(TINY, measure=stops)
    said = refused(capsys, run, tmp_path, of=stopping, status=(130,))
    assert "goes on" in said
    run(tmp_path)
    assert measured == ["psi_sgd"]
    stops_at_once = dataclasses.replace(TINY, measure=interrupt)
    before = read(tmp_path / "tiny.json")
    refused(capsys, run, tmp_path, "--anew", of=stops_at_once, status=(130,))
    assert read(tmp_path / "tiny.json") == before
    run(tmp_path, "--anew")
    assert measured == ["psi_sgd", *NAMES]


def interrupt(*_):
    raise KeyboardInterrupt


def test_two_runs_do_not_write_one_file(capsys, tmp_path):
    def other_run_between(settings, results):
        results.part("sgd", lambda: run(tmp_path)["parts"]["sgd"])

    between = dataclasses.replace(TINY, measure=other_run_between)
    assert "another run" in refused(capsys, run, tmp_path, of=between)
    assert set(read(tmp_path / "tiny.json")["parts"]) == set(NAMES)


def test_times_are_measured_again_and_other_parts_stay(tmp_path, monkeypatch):
    run(tmp_path, of=TIMED)
    content = run(tmp_path, "--names", "sgd", of=TIMED)
    assert measured == [*NAMES, "sgd"]
    assert set(content["parts"]) == set(NAMES)
    assert "names" not in content["settings"]
    # Those of another machine do not.
    monkeypatch.setattr(harness, "machine", lambda: {"device": "other"})
    content = run(tmp_path, "--names", "sgd", of=TIMED)
    assert set(content["parts"]) == {"sgd"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda text: text.replace('"parts"', '"part"'),
        lambda text: text.replace('"seconds": {', '"seconds": [], "x": {'),
        lambda _: "\0" * 100,
    ],
)
def test_damaged_results_are_refused(capsys, tmp_path, damage):
    run(tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    said = refused(capsys, run, tmp_path)
    assert "tiny.json" in said
    assert len(said.splitlines()) == 1
    assert path.read_bytes() == before


def test_results_of_other_settings_are_refused(capsys, tmp_path):
    run(tmp_path)
    said = refused(capsys, run, tmp_path, "--seeds", "4")
    assert "seeds: 3, now 4" in said
    assert "--anew" in said
    run(tmp_path, "--seeds", "4", "--anew")
    path = tmp_path / "tiny.json"
    content = read(path)
    content["versions"]["jax"] = "0.1"
    path.write_text(json.dumps(content))
    said = refused(capsys, run, tmp_path, "--seeds", "4")
    assert "jax: '0.1', now" in said


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_is_no_output_folder(capsys, tmp_path, below):
    (tmp_path / "file").touch()
    said = refused(capsys, run, tmp_path / "file" / below)
    assert said.startswith("--out ")
    assert len(said.splitlines()) == 1
    assert not measured


@needs_full
def test_a_run_goes_on_after_a_full_disk(capsys, tmp_path, monkeypatch):
    path, part = tmp_path / "tiny.json", Results.part

    def fills(self, name, *arguments, **options):
        if name == "psi_sgd":
            fill(path)
        return part(self, name, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Results, "part", fills)
        said = refused(capsys, run, tmp_path)
    assert f"No space left on device: '{path}'\n" in said
    assert list(read(path)["parts"]) == ["sgd"]
    assert not unfinished(tmp_path)
    assert set(run(tmp_path)["parts"]) == set(NAMES)


@needs_full
def test_a_figure_on_a_full_disk(capsys, tmp_path):
    fill(tmp_path / "tiny.png")
    said = refused(capsys, run, tmp_path)
    assert "No space left on device" in said
    assert "tiny.png" in said
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.json"]


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """A folder of pages, one of which the tiny measurement fills."""
    folder = tmp_path / "docs"
    (folder / "numbers").mkdir(parents=True)
    markers = ("tiny", "command")
    (folder / "page.md").write_text(
        "\n".join(f"<!-- {m}: begin -->\n<!-- {m}: end -->" for m in markers)
    )
    monkeypatch.setattr(pages, "DOCS", folder)
    return folder


REFILL = ["--refill"]


def test_pages_numbers_and_figures_are_kept_and_refilled(
    capsys, tmp_path, docs
):
    run(tmp_path, "--docs")
    page = docs / "page.md"
    text = page.read_text()
    assert "sgd: 3, psi_sgd: 7" in text
    assert "python -m benchmarks tiny" in text
    assert "(numbers/tiny.json)" in text
    assert (docs / "tiny.png").read_bytes().startswith(b"\x89PNG")
    kept = docs / "numbers" / "tiny.json"
    assert kept.read_bytes() == (tmp_path / "tiny.json").read_bytes()

    measured.clear()
    kept.write_text(kept.read_text().replace('"n": 3', '"n": 4'))
    harness.run("tiny", TINY, "", REFILL)
    assert page.read_text() == text.replace("sgd: 3", "sgd: 4")
    assert not measured
    kept.write_text(json.dumps({**read(kept), "parts": {}}))
    assert "no parts" in refused(capsys, harness.run, "tiny", TINY, "", REFILL)


@pytest.mark.parametrize("option", ["--docs", *REFILL])
def test_a_measurement_without_a_page_fills_none(capsys, tmp_path, option):
    alone = dataclasses.replace(TINY, page="")
    run(tmp_path, of=alone)
    measured.clear()
    assert option in refused(capsys, run, tmp_path, option, of=alone)
    assert not measured


def test_a_page_without_markers_loses_no_numbers(capsys, tmp_path, docs):
    (docs / "page.md").write_text("no markers")
    assert "tiny: begin" in refused(capsys, run, tmp_path, "--docs")
    assert set(read(tmp_path / "tiny.json")["parts"]) == set(NAMES)


def test_claims_that_do_not_hold_are_the_exit_status(capsys, tmp_path):
    wrong = dataclasses.replace(TINY, faults=lambda _: ["sgd is wrong."])
    assert refused(capsys, run, tmp_path, of=wrong) == "sgd is wrong."
    assert (tmp_path / "tiny.json").exists()


# -- the measurements themselves ----------------------------------------------


def description(name):
    return importlib.import_module(command.MEASUREMENTS[name]).MEASUREMENT


def kept(name):
    path = pages.DOCS / "numbers" / f"{name}.json"
    return read(path) if path.exists() else None


def fits(found, kept):
    """Tell whether a value of JSON has the schema of another.

    Dictionaries of other keys have it if they are maps: their values are
    lists or dictionaries of one schema.
    """
    if isinstance(found, dict) and isinstance(kept, dict):
        if found.keys() == kept.keys():
            return all(fits(found[key], kept[key]) for key in kept)
        values = [*found.values(), *kept.values()]
        return all(isinstance(x, (dict, list)) for x in values) and all(
            fits(x, kept_x) for x in found.values() for kept_x in kept.values()
        )
    if isinstance(found, list) and isinstance(kept, list):
        return not (found and kept) or all(fits(x, kept[0]) for x in found)
    kinds = (bool, int, float, type(None))
    return isinstance(found, kinds) == isinstance(kept, kinds) and (
        isinstance(found, str) == isinstance(kept, str)
    )


def test_schemas_are_told_apart():
    run = {"label": "a", "trials": [{"rate": 1.0}], "loss": None}
    assert fits({**run, "loss": 2.0, "trials": []}, run)
    assert fits({"a": run}, {"b": run, "c": run})
    for wrong in (
        {"label": "a", "trials": []},
        {**run, "label": 1.0},
        {**run, "trials": [{"rat": 1.0}]},
    ):
        assert not fits(wrong, run)
        assert not fits({"a": wrong}, {"b": run})


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("name", command.MEASUREMENTS)
def test_a_smoke_run_has_the_schema_of_the_numbers_that_are_kept(
    name, tmp_path
):
    arguments = [name, "--smoke", "--out", str(tmp_path)]
    if description(name).devices:
        whole = [sys.executable, "-m", "benchmarks", *arguments]
        subprocess.run(whole, check=True, capture_output=True)
    else:
        command.main(arguments)
    content, before = read(tmp_path / f"{name}-smoke.json"), kept(name)
    assert content["parts"]
    if before is None:
        return
    assert content["settings"].keys() == before["settings"].keys()
    for part in content["parts"].values():
        assert any(fits(part, other) for other in before["parts"].values())


@pytest.mark.parametrize("name", command.MEASUREMENTS)
def test_a_page_shows_the_numbers_that_are_kept(name):
    content, shown = kept(name), description(name)
    if content is None:
        pytest.skip("its numbers are of the machine that one reads this on")
    texts = {
        (shown.page, name): shown.report(content),
        **shown.sections(content),
    }
    for (page, _), text in texts.items():
        whole = (pages.DOCS / page).read_text(encoding="utf-8")
        assert text in whole
        assert text not in re.sub(r"\d", "0", whole)


def test_virtual_devices_get_threads_unless_some_are_given(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.delenv("NPROC")
    give_threads(8)
    assert os.environ["NPROC"] == "32"
    monkeypatch.setenv("NPROC", "3")
    give_threads(8)
    assert os.environ["NPROC"] == "3"
