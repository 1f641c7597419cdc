"""The training program: it learns, and resumes to the bit."""

import contextlib
import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from benchmarks.train import (
    __main__,
    batches,
    command,
    events as event_files,
    folder,
    networks,
    presets,
    processes,
    records,
    seals,
    settings,
)
from benchmarks.train.optimizers import OPTIMIZERS
from benchmarks.train.schedules import SCHEDULES
from benchmarks.training import kernel_groups
from psi_optax import ScaleGroup
from tests.full_disk import FULL, fill, needs_full, no_file_above, unfinished
from tests.generated import write_cifar, write_images

# optax's cosine divides an integer by a float.
pytestmark = pytest.mark.usefixtures("optax_promotion")

SHORT = ["--model", "mlp", "--batch", "160", "--epochs", "3"]
SHORT += ["--mesh", "data=1"]
CONSTANT = ["--schedule", "constant"]


def run(out, *more):
    command.main([*SHORT, "--out", str(out), *more])
    return records.read(out)


def weights(out):
    with ocp.CheckpointManager(out / "checkpoints") as checkpoints:
        return checkpoints.restore(
            checkpoints.latest_step(), args=ocp.args.StandardRestore()
        )


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
    original = batches.train_batches, records.Records.add

    def stop_batches(settings, dataset, layout, epoch):
        if epoch == 3:
            raise StoppedError
        return original[0](settings, dataset, layout, epoch)

    def stop_adding(self, line):
        original[1](self, line)
        if line["epoch"] == 3:
            raise StoppedError

    with monkeypatch.context() as patched:
        if where == "within an epoch":
            patched.setattr(batches, "train_batches", stop_batches)
        else:
            patched.setattr(records.Records, "add", stop_adding)
        with pytest.raises(StoppedError):
            run(tmp_path)
    # What a crash may leave: half a line, and half a checkpoint.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train_lo')
    (tmp_path / "metrics.jsonl.unfinished").write_text("{")
    half = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    (half / "default").mkdir(parents=True)
    assert run(tmp_path, "--resume") == lines
    assert not half.exists()
    assert not unfinished(tmp_path)
    same = jax.tree.map(np.array_equal, weights(tmp_path), weights(out))
    # 8 parameters, their momenta, 4 statistics, and radii.
    assert len(jax.tree.leaves(same)) > 20
    assert all(jax.tree.leaves(same))


def test_a_run_that_is_over_stays_as_it_is(whole, capsys):
    out, lines = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(out, "--resume") == lines
    assert capsys.readouterr().err == "all 3 epochs are done\n"
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert after == before


def test_the_events_say_what_the_lines_say(whole):
    out, lines = whole
    found = {}
    for path in sorted((out / "tensorboard").iterdir()):
        for event in events(path):
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    expected = {
        (name, line["epoch"]): value
        for line in lines
        for name, value in line.items()
        if name != "epoch"
    }
    assert found == {key: np.float32(x) for key, x in expected.items()}


def events(path):
    """The events of a file: length, its checksum, event, its checksum."""
    from tensorboardX.proto import event_pb2

    raw = path.read_bytes()
    while raw:
        size = int.from_bytes(raw[:8], "little")
        yield event_pb2.Event.FromString(raw[12 : 12 + size])
        raw = raw[16 + size :]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "go on with it by --resume"),
        (["--resume", "--rate", "0.2"], "rate: 0.1, now 0.2"),
        (["--resume", "--epochs", "4"], "epochs: 3, now 4"),
        (["--mesh", "data=7"], "multiple of the 7 devices"),
        (["--mesh", "data=4,model=3"], "has 12 devices, and there are 8"),
        (["--mesh", "dta=4"], "the axes are data, fsdp, model"),
        (["--mesh", "model=2", "--axes", "explicit"], "with --axes auto"),
        (["--batch", "2000"], "no more than the 1198"),
        (["--batch", "0"], "1 or more"),
        (["--rate", "-1"], "more than 0"),
        (["--rate", "nan"], "more than 0"),
        (["--momentum", "2"], "less than 1"),
        (["--processes", "0"], "1 or more"),
        (["--processes", "2", "--process", "1"], "--coordinator"),
        (["--coordinator", "localhost:1"], "--process"),
        (["--resume", *CONSTANT, "--epochs", "2"], "schedule: 'cosine'"),
        (["--crop", "9"], "are of 8 pixels"),
        (["--data", "cifar-10"], "binary version"),
        (["--data", "imagenet"], "benchmarks.data.images"),
        (["--preset", "cifar", "--optimizer", "muonh"], "say --rate"),
    ],
)
def test_what_cannot_be_done(whole, capsys, monkeypatch, more, message):
    monkeypatch.delenv("PSI_OPTAX_DATA", raising=False)
    with pytest.raises(SystemExit) as caught:
        run(whole[0], *more)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "resnet200"], "is it 'resnet20'?"),
        (["--optimizer", "psi-adam"], "is it 'psi_adam'?"),
        (["--schedule", "cosin"], "is it 'cosine'?"),
        (["--preset", "cifra"], "is it 'cifar'?"),
        (["--axes", "explict"], "is it 'explicit'?"),
        (["--data", "fashon-mnist"], "is it 'fashion-mnist'?"),
        (["--mesh", "data"], "data=4"),
        (["--mesh", "data=2,data=2"], "twice"),
    ],
)
def test_what_cannot_be_read(tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, *more)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def refused(capsys, out, *more):
    with pytest.raises(SystemExit) as caught:
        run(out, *more)
    assert caught.value.code == 2
    return capsys.readouterr().err


def lose_checkpoints(out):
    shutil.rmtree(out / "checkpoints")


def lose_last_checkpoint(out):
    shutil.rmtree(out / "checkpoints" / "3")


def break_settings(out):
    (out / "settings.json").write_text('{"data"')


def break_checkpoint(out):
    # What is not done yet is left, so that it is read.
    shutil.move(out / "checkpoints" / "3", out / "checkpoints" / "2")
    for path in (out / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def redo_last_epoch(out):
    """The last checkpoint becomes that of epoch 2, so that it is read."""
    shutil.move(out / "checkpoints" / "3", out / "checkpoints" / "2")


def flip_a_bit(out):
    """Of the numbers themselves, which Orbax has no checksum of."""
    files = [p for p in (out / "checkpoints").rglob("*") if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    raw = bytearray(largest.read_bytes())
    raw[len(raw) // 2] ^= 1
    largest.write_bytes(raw)


def lose_a_line(out):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    (out / "metrics.jsonl").write_text(f"{lines[0]}\n{lines[2]}\n")


def break_a_line(out):
    text = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(text.replace('"epoch": 2', '"epoch": '))


def lose_lines(out):
    (out / "metrics.jsonl").unlink()


def settings_are(content):
    def damage(out):
        (out / "settings.json").write_bytes(content)

    return damage


def a_file_for_checkpoints(out):
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").touch()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_checkpoints, "tells of 3 epochs"),
        (lose_last_checkpoint, "tells of 3 epochs"),
        (break_settings, "settings.json does not hold"),
        (break_checkpoint, "checkpoints/2 cannot be read"),
        (redo_last_epoch, "checkpoints/2 cannot be read: it is damaged, or of"),
        (lose_a_line, "tells of 1 epochs, and what follows is missing or"),
        (break_a_line, "tells of 1 epochs, and what follows is missing or"),
        (lose_lines, "tells of 0 epochs, and what follows is missing or"),
        (settings_are(b""), "settings.json does not hold"),
        (settings_are(b"[]"), "settings.json does not hold"),
        (settings_are(b"\xff\xfe"), "settings.json does not hold"),
        (settings_are(b"{}"), "data: None, now 'digits'"),
        (a_file_for_checkpoints, "tells of 3 epochs"),
    ],
)
def test_a_damaged_run_does_not_go_on(whole, tmp_path, capsys, damage, message):
    out = shutil.copytree(whole[0], tmp_path / "out")
    damage(out)
    said = refused(capsys, out, "--resume")
    assert message in said
    assert len(said.splitlines()) == 1


ONE, TWO = ([*CONSTANT, "--epochs", n, "--resume"] for n in "12")


@pytest.fixture(scope="module")
def going_on(tmp_path_factory):
    """A run of one epoch, and the same run after the second one."""
    out = tmp_path_factory.mktemp("going_on") / "two"
    assert len(run(out, *ONE)) == 1
    one = shutil.copytree(out, out.with_name("one"))
    assert len(run(out, *TWO)) == 2
    return one, out


def other_settings(out):
    text = (out / "settings.json").read_text()
    (out / "settings.json").write_text(text.replace('"seed": 0', '"seed": 1'))


def other_network(out):
    shutil.rmtree(out / "checkpoints" / "1")
    content = {"variables": {"params": {"w": np.zeros(3)}}, "state": [1]}
    with ocp.CheckpointManager(out / "checkpoints") as checkpoints:
        checkpoints.save(1, args=ocp.args.StandardSave(content))
        checkpoints.wait_until_finished()


@pytest.mark.parametrize(
    ("damage", "more"),
    [(flip_a_bit, []), (other_settings, ["--seed", "1"]), (other_network, [])],
)
def test_a_checkpoint_is_the_one_that_was_saved(
    going_on, tmp_path, capsys, damage, more
):
    out = shutil.copytree(going_on[0], tmp_path / "out")
    damage(out)
    said = refused(capsys, out, *TWO, *more)
    assert f"{out}/checkpoints/1 cannot be read: it is damaged, or of" in said
    assert len(said.splitlines()) == 1


def failed(capsys, out, *more):
    """What is said by a run that began and could not go on."""
    with pytest.raises(SystemExit) as caught:
        run(out, *more)
    assert caught.value.code == 1
    return capsys.readouterr().err.splitlines()


def test_a_run_goes_on_after_a_full_disk(going_on, tmp_path, capsys, caplog):
    """It says what could not be written, and comes to the same bits."""
    out = shutil.copytree(going_on[0], tmp_path / "out")
    how = "The last checkpoint is of epoch 1: the same command with --resume"
    for name in ("settings.json", "metrics.jsonl") if FULL.exists() else ():
        before = (out / name).read_bytes()
        fill(out / name)
        said = failed(capsys, out, *TWO)
        assert said[0] == f"[Errno 28] No space left on device: '{out / name}'"
        assert said[1].startswith(how)
        assert (out / name).read_bytes() == before
        assert not unfinished(out)
        assert folder.last_checkpoint(out) == 1
    # A line of metrics has 120 bytes, and the numbers of a checkpoint 70,000.
    with no_file_above(8000):
        said = failed(capsys, out, *TWO)
    assert said[0].startswith(f"the checkpoint {out}/checkpoints/2 cannot be ")
    assert "File too large" in said[0]
    assert said[1].startswith(how)
    assert len(said) == 2
    assert not caplog.records
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["1"]
    assert run(out, *TWO) == records.read(going_on[1])
    same = jax.tree.map(np.array_equal, weights(out), weights(going_on[1]))
    assert all(jax.tree.leaves(same))


@needs_full
def test_events_that_find_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(event_files.time, "time_ns", lambda: 1)
    monkeypatch.setattr(event_files.socket, "gethostname", lambda: "here")
    file = tmp_path / "events.out.tfevents.1.here"
    file.symlink_to("/dev/full")
    written = event_files.Events(tmp_path, first=1)
    with pytest.raises(OSError, match="No space left on device: '.*tfevents"):
        written.add(1, {"loss": 2.0})
    # Silent: the error has been told.
    written.close()
    assert written.file._writer.closed


def test_seals_are_broken_by_anything():
    chosen = settings.Settings()
    tree = {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 3), np.int32)}
    kept = seals.seal(tree, chosen, 1)
    assert seals.seal(jax.tree.map(np.copy, tree), chosen, 1) == kept
    more = settings.Settings(epochs=11)
    assert seals.seal(tree, more, 1) == kept
    assert seals.seal(tree, settings.Settings(rate=0.2), 1) != kept
    assert seals.seal(tree, chosen, 2) != kept
    assert seals.seal({"a": tree["b"], "b": tree["a"]}, chosen, 1) != kept
    for name, leaf in tree.items():
        words = leaf.view(np.uint32).reshape(-1)
        for place in range(len(words)):
            for bit in range(32):
                words[place] ^= np.uint32(1 << bit)
                assert seals.seal(tree, chosen, 1) != kept, name
                words[place] ^= np.uint32(1 << bit)
    assert seals.seal(tree, chosen, 1) == kept


@pytest.mark.parametrize("under", ["", "below"])
def test_a_file_is_no_folder(tmp_path, capsys, under):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / under
    assert f"--out {out}: " in refused(capsys, out)


def test_a_constant_rate_may_go_on_and_not_back(
    going_on, tmp_path, capsys, monkeypatch
):
    def stop(*_):
        raise StoppedError

    monkeypatch.setattr(command.run, "train", stop)
    with pytest.raises(StoppedError):
        run(tmp_path, *ONE)
    assert "nothing to resume" in capsys.readouterr().err
    one, two = going_on
    assert records.read(two)[:1] == records.read(one)
    assert "has done 2" in refused(capsys, two, *ONE)


def test_a_loss_that_is_not_finite_is_null(tmp_path, capsys):
    with records.Records(tmp_path, done=0) as kept:
        kept.add({"epoch": 1, "train_loss": 2.0})
        assert "not finite" not in capsys.readouterr().err
        kept.add({"epoch": 2, "train_loss": float("nan")})
        assert "not finite" in capsys.readouterr().err
        kept.add({"epoch": 3, "train_loss": float("inf")})
        assert "not finite" not in capsys.readouterr().err
    losses = [line["train_loss"] for line in records.read(tmp_path)]
    assert losses == [2.0, None, None]
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = [v.simple_value for e in events(path) for v in e.summary.value]
    assert found == [2.0]


@pytest.mark.parametrize("count", ["1", "2"])
def test_ctrl_c_says_how_to_go_on(whole, tmp_path, capsys, monkeypatch, count):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_first_failures", stop)
    monkeypatch.setattr(processes, "_started", fake_processes)
    monkeypatch.setattr(command, "main", stop)
    arguments = ["--out", str(whole[0]), "--processes", count]
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 130
    said = capsys.readouterr().err
    assert "stopped. The last checkpoint is of epoch 3: " in said


@pytest.fixture
def _interruptible():
    """Ctrl-C as in a terminal: what a shell starts behind it ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_waits_for_a_checkpoint(tmp_path, monkeypatch):
    wait = ocp.CheckpointManager.wait_until_finished
    waited = []

    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        waited.append(self.latest_step())
        return wait(self)

    manager = ocp.CheckpointManager
    monkeypatch.setattr(manager, "wait_until_finished", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert waited
    assert folder.last_checkpoint(tmp_path) == len(records.read(tmp_path)) == 1


@contextlib.contextmanager
def fake_processes(*_):
    yield []


@pytest.mark.parametrize(
    "more",
    [
        ["--coordinator", "localhost:1"],
        ["--process", "0"],
        ["--process", "2", "--coordinator", "localhost:1"],
        ["--process", "-1", "--coordinator", "localhost:1"],
        ["--out", __file__],
    ],
)
def test_processes_that_cannot_be_started(tmp_path, capsys, more):
    arguments = ["--processes", "2", "--out", str(tmp_path), *more]
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2
    assert more[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_augmented_epoch_is_another(whole, tmp_path):
    lines = run(tmp_path, "--augment", "--epochs", "1")
    assert lines[0]["train_loss"] != whole[1][0]["train_loss"]


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_the_papers_settings_on_generated_files(tmp_path, monkeypatch, name):
    write_cifar(name, tmp_path, monkeypatch)
    out = tmp_path / "out"
    small = ["--batch", "20", "--epochs", "1", "--mesh", "data=1"]
    model = "resnet8" if name == "cifar-10" else "mlp"
    arguments = ["--preset", "cifar", "--data", name, "--model", model]
    command.main([*arguments, *small, "--out", str(out)])
    written = json.loads((out / "settings.json").read_text())
    assert (written["rate"], written["momentum"]) == (1.0, 0.0)
    assert written["augment"]
    assert written["schedule"] == "cifar"
    assert np.isfinite(records.read(out)[0]["test_loss"])


def test_large_images_are_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    write_images(tmp_path, side=10)
    out = tmp_path / "out"
    small = ["--model", "mlp", "--crop", "8", "--batch", "32", "--epochs", "3"]
    arguments = ["--preset", "imagenet", "--optimizer", "psi_sgdm", *small]
    command.main([*arguments, "--mesh", "data=1", "--out", str(out)])
    losses = [line["train_loss"] for line in records.read(out)]
    assert losses == sorted(losses, reverse=True)
    kernel = weights(out)["variables"]["params"]["hidden_0"]["kernel"]
    assert kernel.shape == (8 * 8 * 3, 64)


def test_presets_keep_what_is_given():
    given = {"optimizer": "sgd_g", "epochs": 3}
    found = presets.preset("imagenet", given)
    assert (found["rate"], found["epochs"], found["crop"]) == (0.2, 3, 224)
    assert presets.preset("cifar", {"rate": 0.5})["rate"] == 0.5
    # Only PSI-SGD's has no momentum.
    assert presets.preset("cifar", {})["momentum"] == 0
    assert presets.preset("cifar", given)["momentum"] == 0.9


PARAMETERS = {
    "resnet20": 269_722,
    "preact_resnet110": 1_727_962,
    "resnet18": 11_689_512 - 990 * 513,
    "resnet50": 25_557_032 - 990 * 2049,
    "vgg16": 14_724_042,
    "vit": 2_668_618,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_by_name(name):
    model = networks.NETWORKS[name](10)
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), images
    )
    sizes = [x.size for x in jax.tree.leaves(shapes["params"])]
    # ImageNet's are known for 1000 classes; a class is a column and a bias.
    assert sum(sizes) == PARAMETERS[name]


def selected(name, side=8):
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    report = kernel_groups(networks.NETWORKS[name](10), image)
    return {path for path, f in report.findings.items() if f.group}


def test_kernels_that_are_tied_to_norms_are_left_ordinary():
    blocks = [f"block_{index}" for index in range(3)]
    firsts = {f"{block}/conv_0/kernel" for block in blocks}
    assert selected("preact_resnet8") == {"stem/kernel", *firsts}
    layers = {f"{b}/layer_{i}/conv/kernel" for b in blocks for i in range(2)}
    assert selected("resnet8") == {"stem/conv/kernel", *layers}
    heads = {
        f"layer_{index}/attention/{name}/kernel"
        for index in range(6)
        for name in ("query", "key")
    }
    assert selected("vit") == heads


# Their decay is of all that has no groups, and less of what has.
DECAY_ALL = {"sgdp", "adamp"}

KEEP_NORMS = set(OPTIMIZERS) - DECAY_ALL
KEEP_NORMS -= {"sgd", "adam", "adamw", "weight_rescaling"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_decay_what_has_no_groups(name):
    groups = {"kernel": ScaleGroup(0), "scale": None, "head": None}
    params = {
        "kernel": jnp.ones((3, 2)),
        "scale": jnp.ones(2),
        "head": jnp.ones((2, 3)),
    }
    zero = optax.tree.zeros_like(params)

    def updates(decay):
        tx = OPTIMIZERS[name](
            rate=0.1, decay=decay, momentum=0.5, groups=groups
        )
        return tx.update(zero, tx.init(params), params)[0]

    assert not jnp.any(updates(0.0)["head"])
    decayed = updates(0.1)
    assert jnp.all(decayed["head"] < 0)
    assert jnp.any(decayed["scale"]) == (name in DECAY_ALL)
    assert jnp.any(decayed["kernel"]) == (name not in KEEP_NORMS)


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_schedules_start_at_the_rate(schedule):
    rate = SCHEDULES[schedule](0.3, 100)
    assert float(rate(0)) == pytest.approx(0.3)
    last = float(rate(99))
    assert last == pytest.approx(0.3) if schedule == "constant" else last < 0.01


@pytest.mark.parametrize(
    ("name", "epochs", "falls"),
    [("cifar", 200, (60, 120, 160)), ("imagenet", 100, (30, 60, 90))],
)
def test_the_papers_schedules(name, epochs, falls):
    per_epoch = 390
    rate = SCHEDULES[name](1.0, per_epoch * epochs)
    expected = 1.0
    for fall in falls:
        # The last step of an epoch, and the first one of the next.
        assert rate(per_epoch * fall - 1) == pytest.approx(expected)
        expected *= 0.2
        assert rate(per_epoch * fall) == pytest.approx(expected)
