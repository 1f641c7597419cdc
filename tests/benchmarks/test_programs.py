"""Errors of programs that find no data, no package or no torch: one line."""

import subprocess
import sys

import pytest

pytest.importorskip("sklearn")

from benchmarks import __main__ as command, data
from benchmarks.data import idx, images
from benchmarks.harness import processes
from benchmarks.harness.files import one_message
from tests.oracles import make


def refused(capsys, program, *arguments):
    """Return the line that a program prints and ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        program([str(x) for x in arguments])
    assert caught.value.code in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_names_of_the_oracles(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make", "torch_optm"])
    said = refused(capsys, lambda _: make.main())
    assert "(is it 'torch_optim'?)" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["a", "b", "--side", "0"], "1 or more"), (["nowhere", "b"], "nowhere")],
)
def test_arguments_of_the_program_that_makes_arrays(capsys, arguments, words):
    assert words in refused(capsys, images.main, *arguments)


def test_where_torch_is(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    said = refused(capsys, lambda _: one_message()(processes.torch)())
    assert "make oracles" in said
    # Another module that fails to import it says so too.
    code = """if True:
        import runpy, sys
        sys.modules["torch"], sys.argv = None, ["", "tiny"]
        runpy.run_module("benchmarks.speed.torch_steps", run_name="__main__")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "make oracles" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_process_that_fails_is_one_message(capsys, monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setattr(processes, "TORCH", [program])
    run = one_message()(list)
    said = refused(capsys, lambda _: run(processes.in_torch("module")))
    assert "exit status 3" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["rescaling", "--dataset", "fashion-mnist"],
        ["input_throughput", "--cases", "fashion-mnist, cnn"],
    ],
)
def test_data_that_are_not_there(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(idx, "SYSTEM_FOLDER", tmp_path)
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path / "nowhere"))
    said = refused(capsys, command.main, *arguments, "--out", tmp_path)
    assert "apt-get install dataset-fashion-mnist" in said
    assert said.endswith("nowhere, which is no folder.\n")
    assert not list(tmp_path.glob("*.json"))


def test_a_package_that_is_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    said = refused(capsys, command.main, "rescaling", "--out", tmp_path)
    assert "pip install scikit-learn" in said


def test_unknown_data_sets_of_the_library():
    with pytest.raises(ValueError, match=r"\(is it 'cifar-10'\?\)"):
        data.load("cifar10")
