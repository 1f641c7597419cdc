"""The training program in several processes, one of which is ended."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.train import __main__ as program, records
from tests.compilation import quick_options
from tests.generated import write_images

EPOCHS = 6
# Seconds, for what no longer ends. It takes 20 on two idle cores.
LIMIT = 1800
SETTINGS = ["--data", "imagenet", "--model", "mlp", "--batch", "80"]
SETTINGS += ["--optimizer", "psi_sgd", "--rate", "0.02"]
ROOT = pathlib.Path(__file__).parents[2]


def results(out):
    """Read the lines of a run without the times in them."""
    names = "epoch", "train_loss", "test_loss", "test_accuracy"
    return [{name: line[name] for name in names} for line in records.read(out)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Small images, one device a process, and programs that compile once."""
    data = tmp_path_factory.mktemp("data")
    write_images(data)
    flags = [f"--{k}={v}".lower() for k, v in quick_options().items()]
    flags += [os.environ.get("XLA_FLAGS", "")]
    return {
        **os.environ,
        "PSI_OPTAX_DATA": str(data),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "XLA_FLAGS": " ".join(flags),
        "JAX_COMPILATION_CACHE_DIR": str(data / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.fixture(scope="module")
def start(environment):
    """Starts the program; whatever is left of it is ended in the end."""
    started = []

    def start(out, count, epochs, *more):
        command = [sys.executable, "-m", "benchmarks.train", *SETTINGS]
        command += ["--processes", str(count), "--epochs", str(epochs)]
        command += ["--out", str(out), *more]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        # Ended by SIGINT, it ends its processes.
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def finish(start):
    """Runs the program to its end; what it wrote."""

    def finish(out, *arguments):
        process = start(out, *arguments)
        _, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, errors
        return results(out)

    return finish


@pytest.fixture(scope="module")
def whole(finish, tmp_path_factory):
    """The lines of a run in two processes."""
    return finish(tmp_path_factory.mktemp("whole"), 2, EPOCHS)


@pytest.fixture(scope="module")
def ended(start, tmp_path_factory):
    """A run of which one process was ended, and what was said of it."""
    out = tmp_path_factory.mktemp("ended")
    process = start(out, 2, EPOCHS)
    first = process.stderr.readline()
    assert first.startswith("2 processes: ")
    _, second = map(int, re.findall(r"\d+", first)[1:])
    # Not the first alone: it is gone once the second is there.
    until(lambda: records.last_checkpoint(out) > 0, process)
    os.kill(second, signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    return out, errors


def until(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_the_end_of_a_process_is_told(ended):
    out, errors = ended
    assert re.search(
        r"process 1 was ended by SIGKILL(?s:.*); the others were ended",
        errors,
    )
    assert "The last checkpoint is of epoch" in errors
    assert "--resume goes on there" in errors
    assert 1 <= len(records.read(out)) < EPOCHS


def test_the_run_goes_on_to_the_same_bits(ended, whole, finish, tmp_path):
    out = shutil.copytree(ended[0], tmp_path / "out")
    # Decimal numbers that say all bits.
    assert finish(out, 2, EPOCHS, "--resume") == whole


def test_the_run_goes_on_in_four_processes(ended, whole, finish, tmp_path):
    out = shutil.copytree(ended[0], tmp_path / "out")
    mesh = ["--mesh.data", "2", "--mesh.fsdp", "2"]
    found = finish(out, 4, EPOCHS, "--resume", *mesh)
    assert found != whole
    for line, expected in zip(found, whole, strict=True):
        # 12 steps, each of 8 roundings of 1.2e-7, grown tenfold at most.
        loss = pytest.approx(expected["train_loss"], rel=1.2e-4)
        assert line["train_loss"] == loss
    losses = [line["train_loss"] for line in whole]
    assert losses[-1] < 0.9 * losses[0]


def test_learners_in_three_processes_go_on(start, finish, tmp_path):
    more = "--averaging", "ring", "--batch", "78"
    whole = finish(tmp_path / "whole", 3, 3, *more)
    out = tmp_path / "ended"
    process = start(out, 3, 3, *more)
    *_, third = map(int, re.findall(r"\d+", process.stderr.readline()))
    until(lambda: records.last_checkpoint(out) > 0, process)
    os.kill(third, signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "process 2 was ended by SIGKILL" in errors
    # Decimal numbers that say all bits.
    assert finish(out, 3, 3, "--resume", *more) == whole
    losses = [line["train_loss"] for line in whole]
    assert losses[-1] < losses[0]


def test_what_cannot_be_done_is_said_once(ended, start):
    process = start(ended[0], 2, EPOCHS)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert errors.count("go on with it by --resume") == 1
    assert "epoch" not in errors


def test_which_process_is_told_of(tmp_path):
    said = program._report({0: 1, 2: -signal.SIGTERM}, tmp_path)
    assert said.startswith("process 2 was ended by SIGTERM (see ")
    assert f"{tmp_path}/process-2.log" in said
    assert "--resume" not in said
    (tmp_path / "settings.json").touch()
    said = program._report({0: 1}, tmp_path)
    assert "process 0 failed with exit status 1" in said
    assert "--resume starts anew" in said
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (tmp_path / "checkpoints" / "3.unfinished").mkdir()
    said = program._report({0: 1}, tmp_path)
    assert "The last checkpoint is of epoch 2" in said
