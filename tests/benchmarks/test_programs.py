"""What the programs say of bad input: one message, and no traceback.

Of those that measure, the measuring is replaced by numbers that are kept.
"""

import itertools
import json
import sys

import pytest

pytest.importorskip("sklearn")

from matplotlib.figure import Figure

from benchmarks import (
    data,
    equivariance,
    equivariance_peers,
    find_groups,
    find_groups_compile,
    input_throughput,
    matching,
    pages,
    peers,
    rescaling,
    scaling,
    step_time,
    step_time_peers,
    step_time_variants,
    training_share,
)
from benchmarks.data import idx as idx_files, images as image_arrays
from benchmarks.experiments import command, convergence
from benchmarks.experiments.command import Experiment
from benchmarks.experiments.results import Results
from tests.full_disk import fill, needs_full, unfinished
from tests.oracles import make


def refused(capsys, program, *arguments):
    """What a program says that ends with an error."""
    with pytest.raises(SystemExit) as caught:
        program.main([str(x) for x in arguments])
    assert caught.value.code in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (rescaling, ["--dataset", "mnst"], "(is it 'mnist'?)"),
        (rescaling, ["--optimizers", "psi_sdg"], "(is it 'psi_sgd'?)"),
        (rescaling, ["--optimizers", "zzz"], "none of sgd, "),
        (rescaling, ["--seeds", "0"], "1 or more"),
        (rescaling, ["--scales", "1", "nan"], "more than 0"),
        (rescaling, ["--scales", "0"], "more than 0"),
        (matching, ["--seeds", "1"], "2 or more"),
        (matching, ["--epochs", "0"], "1 or more"),
        (find_groups, ["--runs", "0"], "1 or more"),
        (find_groups, ["--alone", "resnet5_nnx"], "(is it 'resnet50_nnx"),
        (find_groups_compile, ["--alone", "gpt2"], "(is it 'gpt12'"),
        (equivariance, ["--sources", "nowhere"], "no folder nowhere"),
        (step_time, ["--sets", "resnet5"], "(is it 'resnet50'?)"),
        (step_time, ["--turns", "0"], "1 or more"),
        (scaling, ["--sets", "gpt_125m"], "(is it 'gpt_124m'?)"),
        (training_share, ["--networks", "resnet2"], "(is it 'resnet20'?)"),
        (training_share, ["--batch", "-1"], "1 or more"),
        (input_throughput, ["--cases", "cnn"], "none of fashion-mnist, cnn"),
        (input_throughput, ["--turns", "0"], "1 or more"),
        (step_time_variants, ["--turns", "0"], "1 or more"),
        (image_arrays, ["a", "b", "--side", "0"], "1 or more"),
        (image_arrays, ["nowhere", "b"], "no such folder"),
    ],
)
def test_names_and_numbers_that_cannot_be(capsys, program, arguments, message):
    assert message in refused(capsys, program, *arguments)


def test_names_of_the_oracles(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make", "torch_optm"])
    with pytest.raises(SystemExit):
        make.main()
    assert "(is it 'torch_optim'?)" in capsys.readouterr().err


@pytest.mark.parametrize("program", [equivariance_peers, step_time_peers])
def test_where_torch_is(capsys, monkeypatch, program):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["peers"])
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 1
    assert "make oracles" in capsys.readouterr().err


def test_a_process_that_fails_is_one_message(capsys, monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setattr(peers, "PYTHONS", [program])
    monkeypatch.setattr(equivariance, "OURS", {})
    monkeypatch.setattr(equivariance, "OPTAX", {})
    said = refused(capsys, equivariance, "--out", tmp_path)
    assert "exit status 3" in said
    assert not list(tmp_path.glob("*.json"))


def kept(name):
    return json.loads((pages.DOCS / "numbers" / f"{name}.json").read_text())


def one_set(*_):
    return kept("step_time")["sets"]["tiny"]


def one_network(*_):
    return kept("training_share")["networks"]["cnn"]


# Each with what measures, what it finds, and the first file that is written.
WRITERS = {
    equivariance: ("run", lambda _: kept("equivariance"), "equivariance.json"),
    find_groups: ("run", lambda *_: kept("find_groups"), "find_groups.json"),
    find_groups_compile: (
        "run",
        lambda _: kept("find_groups_compile"),
        "find_groups_compile.json",
    ),
    matching: ("run", lambda _: kept("matching"), "matching.json"),
    rescaling: (
        "run",
        lambda _: kept("rescaling-digits"),
        "rescaling-digits.json",
    ),
    step_time: ("measure", one_set, "step_time.json"),
    training_share: ("measure", one_network, "training_share.json"),
    scaling: (
        "measure",
        lambda _: json.loads((pages.DOCS / "scaling.json").read_text())["rows"],
        "scaling.json",
    ),
}


@pytest.fixture(params=WRITERS, ids=lambda p: p.__name__.rpartition(".")[2])
def writer(request, monkeypatch):
    """A program that finds at once what is kept, and its file."""
    program = request.param
    name, measure, file = WRITERS[program]
    monkeypatch.setattr(program, name, measure)
    if program is scaling:
        # The number of devices cannot change any more.
        monkeypatch.setattr(scaling.jax.config, "update", lambda *_: None)
    return program, file


def test_a_file_in_the_place_of_the_output_folder(
    capsys, monkeypatch, tmp_path, writer
):
    program, _ = writer

    def measure(*_):
        pytest.fail("it is not measured what cannot be written")

    monkeypatch.setattr(program, WRITERS[program][0], measure)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        said = refused(capsys, program, "--out", out)
        assert said.startswith(f"--out {out}: it cannot be")
        assert len(said.splitlines()) == 1


@needs_full
def test_a_full_disk_and_then_room(capsys, tmp_path, writer):
    program, file = writer
    path = tmp_path / file
    fill(path)
    said = refused(capsys, program, "--out", tmp_path)
    assert said == f"[Errno 28] No space left on device: '{path}'\n"
    assert not list(tmp_path.iterdir())
    program.main(["--out", str(tmp_path)])
    assert json.loads(path.read_text())
    assert not unfinished(tmp_path)


@needs_full
def test_a_full_disk_leaves_the_earlier_numbers(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(step_time, "measure", one_set)
    step_time.main(["--sets", "tiny", "--out", str(tmp_path)])
    before = (tmp_path / "step_time.json").read_bytes()
    fill(tmp_path / "step_time.json")
    refused(capsys, step_time, "--out", tmp_path)
    assert (tmp_path / "step_time.json").read_bytes() == before


def test_numbers_of_earlier_runs_that_are_damaged(capsys, tmp_path):
    path = tmp_path / "step_time.json"
    for content in ('{"machine": {}', '{"machine": {}}'):
        path.write_text(content)
        said = refused(capsys, step_time, "--out", tmp_path)
        assert "step_time.json does not hold times of steps" in said
        assert path.read_text() == content


def test_markers_are_looked_for_before_the_work(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(step_time, "measure", pytest.fail)
    said = refused(capsys, step_time, "--note", "no", "--out", tmp_path)
    assert "step-time.md: the page needs one <!-- no: begin -->" in said
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    (tmp_path / "step-time.md").write_text("no markers")
    for program in (step_time, training_share):
        monkeypatch.setattr(program, "measure", pytest.fail)
        said = refused(capsys, program, "--docs", "--out", tmp_path)
        assert "the page needs one" in said


def test_an_optimizer_that_is_not_timed(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(step_time, "draw", lambda _: (None, None))
    monkeypatch.setattr(step_time, "makers", lambda *_: {"psi_adam": None})
    arguments = ["--sets", "tiny", "--only", "psi_adm", "--out", tmp_path]
    said = refused(capsys, step_time, *arguments)
    assert said.startswith("optimizers: 'psi_adm' is none of psi_adam (is it")


def test_data_that_are_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(idx_files, "SYSTEM_FOLDER", tmp_path)
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path / "nowhere"))
    for program, arguments in (
        (rescaling, ["--dataset", "fashion-mnist", "--out", tmp_path]),
        (input_throughput, ["--cases", "fashion-mnist, cnn"]),
    ):
        said = refused(capsys, program, *arguments)
        assert "apt-get install dataset-fashion-mnist" in said
        assert said.endswith("nowhere, which is no folder.\n")
        assert len(said.splitlines()) == 1


def test_a_package_that_is_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    said = refused(capsys, rescaling, "--out", tmp_path)
    assert "pip install scikit-learn" in said


def test_unknown_data_sets_of_the_library():
    with pytest.raises(ValueError, match=r"\(is it 'cifar-10'\?\)"):
        data.load("cifar10")


PARTS = ("first", "second")


def measure(settings, results):
    for name in PARTS:
        results.part(name, lambda name=name: f"{name} of {settings}")


def tiny(name="tiny"):
    """An experiment of two parts."""
    settings = convergence.SMOKE
    return Experiment(
        name, "About.", settings, settings, measure, str, lambda _: Figure()
    )


def run(out):
    command.main(tiny(), ["--out", str(out)])
    return json.loads((out / "tiny.json").read_text())


def experiment_refused(capsys, out):
    with pytest.raises(SystemExit) as caught:
        run(out)
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


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
def test_damaged_results_of_an_experiment(capsys, tmp_path, damage):
    run(tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    said = experiment_refused(capsys, tmp_path)
    assert "tiny.json does not hold results of an experiment: " in said
    assert path.read_bytes() == before


def test_results_of_other_settings(capsys, tmp_path):
    run(tmp_path)
    path = tmp_path / "tiny.json"
    content = json.loads(path.read_text())
    name = next(iter(content["settings"]))
    content["settings"][name] = "other"
    path.write_text(json.dumps(content))
    said = experiment_refused(capsys, tmp_path)
    assert f"of other settings ({name}: 'other', now " in said


@needs_full
def test_an_experiment_goes_on_after_a_full_disk(capsys, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    out, path = tmp_path / "out", tmp_path / "out" / "tiny.json"
    part, count = Results.part, itertools.count()

    def fills(self, name, measured):
        if next(count) == 1:
            fill(path)
        return part(self, name, measured)

    monkeypatch.setattr(Results, "part", fills)
    said = experiment_refused(capsys, out)
    assert said == f"[Errno 28] No space left on device: '{path}'\n"
    assert list(json.loads(path.read_text())["parts"]) == ["first"]
    assert not unfinished(out)
    assert run(out)["parts"] == whole["parts"]


@needs_full
def test_a_figure_on_a_full_disk(capsys, tmp_path):
    fill(tmp_path / "tiny.png")
    said = experiment_refused(capsys, tmp_path)
    assert "No space left on device" in said
    assert "tiny.png" in said
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.json"]


def test_a_file_in_the_place_of_an_experiments_folder(capsys, tmp_path):
    (tmp_path / "file").touch()
    said = experiment_refused(capsys, tmp_path / "file")
    assert "it cannot be the output folder" in said
