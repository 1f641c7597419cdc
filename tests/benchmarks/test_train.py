"""The training program: it learns, resumes to the bit, and divides batches."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from benchmarks import train

# optax's cosine divides an integer by a float.
pytestmark = pytest.mark.usefixtures("optax_promotion")

SHORT = ["--model", "mlp", "--batch", "160", "--epochs", "3", "--devices", "1"]


def run(out, *more):
    train.main([*SHORT, "--out", str(out), *more])
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(out):
    with ocp.CheckpointManager(out / "checkpoints") as checkpoints:
        return checkpoints.restore(checkpoints.latest_step())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run, and its lines."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(out)


def test_it_learns(whole):
    _, lines = whole
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    losses = [line["train_loss"] for line in lines]
    assert losses == sorted(losses, reverse=True)
    # One class in ten would be right by chance.
    assert lines[-1]["test_accuracy"] > 0.5


class StoppedError(Exception):
    """What stops a run."""


@pytest.mark.parametrize("where", ["within an epoch", "before a checkpoint"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    whole, tmp_path, monkeypatch, where
):
    out, lines = whole
    name = "_batches" if where == "within an epoch" else "_write"
    original = getattr(train, name)

    def stop_batches(dataset, settings, epoch):
        if epoch == 3:
            raise StoppedError
        return original(dataset, settings, epoch)

    def stop_write(out, lines):
        original(out, lines)
        if len(lines) == 3:
            raise StoppedError

    stops = stop_batches if name == "_batches" else stop_write
    with monkeypatch.context() as patched:
        patched.setattr(train, name, stops)
        with pytest.raises(StoppedError):
            run(tmp_path)
    assert run(tmp_path, "--resume") == lines
    same = jax.tree.map(np.array_equal, weights(tmp_path), weights(out))
    assert all(jax.tree.leaves(same))


def test_a_run_that_is_over_stays_as_it_is(whole):
    out, lines = whole
    assert run(out, "--resume") == lines


def test_batches_divided_among_devices(whole, tmp_path):
    divided = run(tmp_path, "--devices", "8")
    for line, expected in zip(divided, whole[1], strict=True):
        # Sums over 160 images in another order, of which 21 steps make more.
        loss = pytest.approx(expected["train_loss"], rel=1e-4)
        assert line["train_loss"] == loss
    other = run(tmp_path / "other", "--seed", "1")
    assert abs(other[0]["train_loss"] / divided[0]["train_loss"] - 1) > 1e-3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "go on with it by --resume"),
        (["--resume", "--rate", "0.2"], "rate: 0.1, now 0.2"),
        (["--resume", "--epochs", "4"], "epochs: 3, now 4"),
        (["--devices", "7"], "multiple of the 7 devices"),
        (["--batch", "2000"], "no more than the 1198"),
        (["--data", "cifar-10"], "binary version"),
    ],
)
def test_what_cannot_be_done(whole, capsys, monkeypatch, more, message):
    monkeypatch.delenv("PSI_OPTAX_DATA", raising=False)
    with pytest.raises(SystemExit) as caught:
        run(whole[0], *more)
    assert caught.value.code == 1
    assert message in capsys.readouterr().err


def test_an_unknown_name_shows_those_there_are(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--model", "resnet21")
    assert "resnet20" in capsys.readouterr().err


@pytest.mark.parametrize("schedule", list(train.SCHEDULES))
def test_schedules_start_at_the_rate(schedule):
    rate = train.SCHEDULES[schedule](0.3, 100)
    assert float(rate(0)) == pytest.approx(0.3)
    last = float(rate(99))
    assert last == pytest.approx(0.3) if schedule == "constant" else last < 0.01


def test_an_augmented_epoch_is_another(whole, tmp_path):
    lines = run(tmp_path, "--augment")
    assert lines[0]["train_loss"] != whole[1][0]["train_loss"]
