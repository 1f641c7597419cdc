"""The training program: it learns, and resumes to the bit."""

import functools
import itertools
import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from benchmarks.data import load
from benchmarks.optimizers import OPTIMIZERS
from benchmarks.train import (
    __main__ as program,
    batches,
    checkpoints,
    records,
    run as run_file,
)
from benchmarks.train.settings import (
    NETWORKS,
    SCHEDULES,
    Settings,
    parse,
)
from benchmarks.training import kernel_groups
from psi_optax import ScaleGroup
from tests.full_disk import FULL, fill, needs_full, no_file_above, unfinished
from tests.generated import write_cifar, write_images

# optax's cosine divides an integer by a float.
pytestmark = pytest.mark.usefixtures("optax_promotion")

SHORT = "--model mlp --batch 160 --epochs 3 --mesh.data 1 --schedule constant"


def run(out, more=""):
    program.main([*f"{SHORT} --out {out} {more}".split()])
    return results(out)


def results(out):
    """Read the lines of a run without the times in them."""
    names = "epoch", "train_loss", "test_loss", "test_accuracy"
    return [{name: line[name] for name in names} for line in records.read(out)]


def ended(status, out, more, capsys):
    """Return the lines that a run says, which ends with this exit status."""
    with pytest.raises(SystemExit) as caught:
        run(out, more)
    assert caught.value.code == status
    return capsys.readouterr().err.splitlines()


def weights(out):
    with ocp.CheckpointManager(out / "checkpoints") as kept:
        args = ocp.args.StandardRestore()
        return kept.restore(kept.latest_step(), args=args)


def assert_same_bits(out, other):
    same = jax.tree.map(np.array_equal, weights(out), weights(other))
    # 8 parameters, their momenta, 4 statistics, and radii.
    assert len(jax.tree.leaves(same)) > 20
    assert all(jax.tree.leaves(same))


def events(path):
    """Yield the events of a file: length, its checksum, event, its checksum."""
    raw = path.read_bytes()
    while raw:
        size = int.from_bytes(raw[:8], "little")
        yield event_pb2.Event.FromString(raw[12 : 12 + size])
        raw = raw[16 + size :]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three epochs."""
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory, whole):
    """A run of one epoch, which may go on to three."""
    out = tmp_path_factory.mktemp("one")
    assert run(out, "--epochs 1") == results(whole)[:1]
    return out


def test_it_learns_and_says_how_fast(whole):
    lines = records.read(whole)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    losses = [line["train_loss"] for line in lines]
    assert losses == sorted(losses, reverse=True)
    # One class in ten would be right by chance.
    assert lines[-1]["test_accuracy"] > 0.5
    for line in lines:
        batch = line["examples_per_second"] * line["step_seconds"]
        # Both are rounded to four digits.
        assert batch == pytest.approx(160, rel=1.1e-3)
        assert line["compile_seconds"] > 0


class StoppedError(Exception):
    """What stops a run."""


def stop(*_):
    raise StoppedError


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped, and then went on."""
    out = tmp_path_factory.mktemp("stopped")
    batch = batches.train_batches
    within = lambda *x: (stop if x[-1] == 2 else batch)(*x)  # noqa: E731
    for where, name, stops in [
        # Within an epoch, and between a line and its checkpoint.
        (batches, "train_batches", within),
        (checkpoints.Checkpoints, "save", stop),
    ]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(where, name, stops)
            with pytest.raises(StoppedError):
                run(out, "--resume")
    assert len(records.read(out)) == 2
    # A crash may leave half a line and half a checkpoint.
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train_lo')
    (out / "metrics.jsonl.unfinished").write_text("{")
    half = out / "checkpoints" / "2.orbax-checkpoint-tmp"
    (half / "default").mkdir(parents=True)
    run(out, "--resume")
    assert not half.exists()
    assert not unfinished(out)
    return out


def test_a_run_that_was_stopped_comes_to_the_same_bits(stopped, whole):
    assert results(stopped) == results(whole)
    assert_same_bits(stopped, whole)


def test_the_events_say_what_the_lines_say(stopped):
    first, *_, last = files = sorted((stopped / "tensorboard").iterdir())
    found = {
        (value.tag, event.step): value.simple_value
        for path in files
        for event in events(path)
        for value in event.summary.value
    }
    assert found == {
        (name, line["epoch"]): np.float32(value)
        for line in records.read(stopped)
        for name, value in line.items()
        if name != "epoch"
    }
    # The last file hides what an earlier one tells from epoch 2 on.
    for path, epoch in [(first, 1), (last, 2)]:
        (step,) = [e.step for e in events(path) if e.HasField("session_log")]
        assert step == epoch


def test_a_run_that_is_over_stays_as_it_is(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    run(whole, "--resume")
    assert capsys.readouterr().err == "all 3 epochs are done\n"
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert after == before


REFUSED = {
    "": "go on with it by --resume",
    "--resume --rate 0.2": "rate: 0.1, now 0.2",
    "--resume --schedule cosine": "schedule: 'constant', now 'cosine'",
    "--resume --epochs 2": "has done 3",
    "--mesh.data 7": "7 devices have to divide it",
    "--mesh.data 4 --mesh.model 3": "has 12 devices, and there are 8",
    "--mesh.model 2 --mesh.axes explicit": "with --mesh.axes auto",
    "--batch 2000": "there are 1198 images",
    "--momentum 2": "--momentum 2.0: it has to be in",
    "--decay nan": "--decay nan: it has to be in",
    "--decay 0.1 --optimizer lamb": "lamb has no decay",
    "--seed 4294967296": "less than 2**32",
    "--model vit --crop 6": "patch",
    "--processes 2 --process 0 --coordinator host": "host:port",
    "--processes 2 --process 1": "--coordinator",
    "--coordinator localhost:1": "--process",
    "--processes 2 --coordinator localhost:1": "--process",
    "--process 2 --processes 2 --coordinator localhost:1": "1 at most",
    f"--out {__file__}": f"--out {__file__}: ",
    f"--out {__file__}/below": f"--out {__file__}/below: ",
    f"--processes 2 --out {__file__}": f"--out {__file__}: ",
    "--crop 9": "are of 8 pixels",
    "--data cifar-10": "binary version",
    "--data imagenet": "PSI_OPTAX_DATA",
    "--preset cifar --optimizer muonh": "say --rate",
}
UNREADABLE = {
    "--model resnet200": "is it 'resnet20'?",
    "--optimizer psi-adam": "is it 'psi_adam'?",
    "--schedule cosin": "is it 'cosine'?",
    "--preset cifra": "is it 'cifar'?",
    "--mesh.axes explict": "is it 'explicit'?",
    "--data fashon-mnist": "is it 'fashion-mnist'?",
    "--mesh.dta 4": "--mesh.data",
    **dict.fromkeys(["--mesh.fsdp 0", "--batch 0", "--crop 0"], "1 or more"),
    "--seed -1": "0 or more",
    **dict.fromkeys(["--epochs 0", "--processes 0"], "1 or more"),
    **dict.fromkeys(["--rate -1", "--rate nan"], "more than 0"),
}


@pytest.mark.parametrize("more", REFUSED)
def test_what_cannot_be_done(whole, capsys, monkeypatch, more):
    monkeypatch.delenv("PSI_OPTAX_DATA", raising=False)
    (said,) = ended(2, whole, more, capsys)
    assert REFUSED[more] in said


@pytest.mark.parametrize("more", UNREADABLE)
def test_what_cannot_be_read(tmp_path, capsys, more):
    said = ended(2, tmp_path, more, capsys)
    # In a box of lines.
    assert UNREADABLE[more] in " ".join(line.strip("│ ") for line in said)


def lose(out, name):
    path = out / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def file_in_place(out, name):
    lose(out, name)
    (out / name).touch()


def lose_a_line(out, name):
    first, _, last = (out / name).read_bytes().splitlines(keepends=True)
    (out / name).write_bytes(first + last)


def write(content):
    return lambda out, name: (out / name).write_bytes(content)


def replace(old, new):
    def damage(out, name):
        raw = (out / name).read_bytes()
        (out / name).write_bytes(raw.replace(old, new))

    return damage


def numbers(out, name):
    """Return the largest file, which holds the numbers themselves."""
    files = [path for path in (out / name).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_a_bit(out, name):
    """Flip a bit of a number, which Orbax has no checksum of."""
    raw = bytearray(numbers(out, name).read_bytes())
    raw[len(raw) // 2] ^= 1
    numbers(out, name).write_bytes(raw)


def empty(out, name):
    for path in (out / name).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def of_another_network(out, name):
    lose(out, name)
    content = {"variables": {"params": {"w": np.zeros(3)}}, "state": [1]}
    with ocp.CheckpointManager(out / "checkpoints") as kept:
        kept.save(3, args=ocp.args.StandardSave(content))
        kept.wait_until_finished()


LAST, LINES, SETTINGS = "checkpoints/3", "metrics.jsonl", "settings.json"
NOT_READ = "cannot be read: it is damaged, or of another run"
NO_LINES = "epochs, and what follows is missing or damaged, but 3"
DAMAGES = [
    (lose, "checkpoints", "tells of 3 epochs"),
    (lose, LAST, "tells of 3 epochs"),
    (empty, LAST, f"{LAST} {NOT_READ}"),
    (file_in_place, "checkpoints", "tells of 3 epochs"),
    (flip_a_bit, LAST, f"{LAST} {NOT_READ}"),
    (of_another_network, LAST, f"{LAST} {NOT_READ}"),
    (
        lambda out, name: shutil.move(out / name, out / "checkpoints/2"),
        LAST,
        f"checkpoints/2 {NOT_READ}",
    ),
    (lose, LINES, f"tells of 0 {NO_LINES}"),
    (lose_a_line, LINES, f"tells of 1 {NO_LINES}"),
    (replace(b": 2,", b": ,"), LINES, f"tells of 1 {NO_LINES}"),
    *(
        (write(content), SETTINGS, "settings.json does not hold")
        for content in (b"", b'{"data"', b"[]", b"\xff\xfe")
    ),
    (write(b"{}"), SETTINGS, "data: None, now 'digits'"),
    (replace(b"0.9", b"0.8"), SETTINGS, "momentum: 0.8, now 0.9"),
]


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGES)
def test_a_damaged_run_does_not_go_on(
    whole, tmp_path, capsys, damage, name, message
):
    out = shutil.copytree(whole, tmp_path / "out")
    damage(out, name)
    (said,) = ended(2, out, "--resume --epochs 4", capsys)
    assert message in said


def test_a_checkpoint_belongs_to_its_settings(whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "out")
    replace(b'"seed": 0', b'"seed": 1')(out, SETTINGS)
    (said,) = ended(2, out, "--resume --epochs 4 --seed 1", capsys)
    assert f"{LAST} {NOT_READ}" in said
    # All schedules but the constant one depend on the end.
    replace(b"constant", b"cosine")(out, SETTINGS)
    more = "--resume --epochs 4 --seed 1 --schedule cosine"
    (said,) = ended(2, out, more, capsys)
    assert "epochs: 3, now 4" in said


def test_a_run_goes_on_after_a_full_disk(one, whole, tmp_path, capsys, caplog):
    """It says what could not be written, and comes to the same bits."""
    out = shutil.copytree(one, tmp_path / "out")
    how = "The last checkpoint is of epoch 1: the same command with --resume"
    for name in ("settings.json", "metrics.jsonl") if FULL.exists() else ():
        before = (out / name).read_bytes()
        fill(out / name)
        what, then = ended(1, out, "--resume", capsys)
        assert what == f"[Errno 28] No space left on device: '{out / name}'"
        assert then.startswith(how)
        assert (out / name).read_bytes() == before
        assert not unfinished(out)
        assert records.last_checkpoint(out) == 1
    # A file of events has 600 bytes, and the numbers of a checkpoint 70,000.
    with no_file_above(8000):
        what, then = ended(1, out, "--resume", capsys)
    assert what.startswith(f"the checkpoint {out}/checkpoints/2 cannot be ")
    assert "File too large" in what
    assert then.startswith(how)
    assert not caplog.records
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["1"]
    assert run(out, "--resume") == results(whole)
    assert_same_bits(out, whole)


@needs_full
def test_events_that_find_no_room(tmp_path, monkeypatch):
    written = records.Records(tmp_path, Settings(), done=0)
    written.events._py_recordio_writer.close()
    full = RecordWriter("/dev/full")
    monkeypatch.setattr(written.events, "_py_recordio_writer", full)
    with pytest.raises(OSError, match="No space left on device: '.*board'"):
        written.add({"epoch": 1, "train_loss": 2.0})
    # Silent: the error has been told.
    written.close()
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_seals_are_broken_by_anything():
    chosen, seal = Settings(), checkpoints.seal
    tree = {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 3), np.int32)}
    kept = seal(tree, chosen, 1)
    assert seal(jax.tree.map(np.copy, tree), Settings(epochs=11), 1) == kept
    assert seal(tree, Settings(rate=0.2), 1) != kept
    assert seal(tree, chosen, 2) != kept
    assert seal({"a": tree["b"], "b": tree["a"]}, chosen, 1) != kept
    for leaf in tree.values():
        words = leaf.view(np.uint32).reshape(-1)
        for place, bit in itertools.product(range(len(words)), range(32)):
            words[place] ^= np.uint32(1 << bit)
            assert seal(tree, chosen, 1) != kept
            words[place] ^= np.uint32(1 << bit)


def test_what_is_not_there_is_started(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program.run, "train", stop)
    with pytest.raises(StoppedError):
        run(tmp_path, "--resume")
    assert "nothing to resume" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_null(tmp_path, capsys):
    written = records.Records(tmp_path, Settings(), done=0)
    for epoch, loss in enumerate([2.0, np.nan, np.inf], 1):
        written.add({"epoch": epoch, "train_loss": loss})
        # It is said once.
        assert ("not finite" in capsys.readouterr().err) == (epoch == 2)
    written.close()
    losses = [line["train_loss"] for line in records.read(tmp_path)]
    assert losses == [2.0, None, None]
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = [v.simple_value for e in events(path) for v in e.summary.value]
    assert found == [2.0]


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_says_how_to_go_on(whole, capsys, monkeypatch, count):
    monkeypatch.setattr(program, "start", interrupt)
    monkeypatch.setattr(program, "train", interrupt)
    (said,) = ended(130, whole, f"--processes {count}", capsys)
    assert "stopped. The last checkpoint is of epoch 3: " in said


@pytest.fixture
def _interruptible():
    """Ctrl-C as in a terminal: what a shell starts behind it ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_waits_for_a_checkpoint(tmp_path, monkeypatch):
    save = ocp.CheckpointManager.save

    def interrupted(self, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "save", interrupted)
    with pytest.raises(SystemExit, match="130"):
        run(tmp_path)
    assert records.last_checkpoint(tmp_path) == len(results(tmp_path)) == 1


def test_an_augmented_epoch_is_another(whole, tmp_path):
    lines = run(tmp_path, "--augment --epochs 1")
    assert lines[0]["train_loss"] != results(whole)[0]["train_loss"]


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_the_papers_settings_on_generated_files(tmp_path, monkeypatch, name):
    write_cifar(name, tmp_path, monkeypatch)
    out = tmp_path / "out"
    model = "resnet8" if name == "cifar-10" else "mlp"
    preset = f"--preset cifar --schedule cifar --data {name} --model {model}"
    (line,) = run(out, f"{preset} --batch 20 --epochs 1")
    written = json.loads((out / "settings.json").read_text())
    assert (written["rate"], written["momentum"]) == (1.0, 0.0)
    assert written["augment"]
    assert written["schedule"] == "cifar"
    assert np.isfinite(line["test_loss"])


def test_large_images_are_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    write_images(tmp_path, side=10)
    out = tmp_path / "out"
    preset = "--preset imagenet --optimizer psi_sgdm --crop 8 --batch 32"
    losses = [line["train_loss"] for line in run(out, preset)]
    assert losses == sorted(losses, reverse=True)
    kernel = weights(out)["variables"]["params"]["hidden_0"]["kernel"]
    assert kernel.shape == (8 * 8 * 3, 64)


def test_presets_keep_what_is_given():
    def found(more):
        return parse(["--preset", *more.split()]).settings

    given = found("imagenet --optimizer sgd_g --epochs 3 --no-augment")
    assert (given.rate, given.epochs, given.crop) == (0.2, 3, 224)
    assert not given.augment
    assert found("cifar --rate 0.5").rate == 0.5
    # Only PSI-SGD's has no momentum.
    assert found("cifar").momentum == 0
    assert found("cifar --optimizer sgd_g").momentum == 0.9


def test_networks_by_name():
    images = jnp.zeros((1, 32, 32, 3))
    for name, count in {
        # ImageNet's are known for 1000 classes; a class is a column and a bias.
        "resnet50": 25_557_032 - 990 * 2049,
        "resnet20": 269_722,
        "preact_resnet110": 1_727_962,
        "vgg16": 14_724_042,
        "vit": 2_668_618,
    }.items():
        init = functools.partial(NETWORKS[name](10).init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), images)["params"]
        assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def test_groups_are_a_tree_as_muon_needs_them():
    model, tx = run_file.build(Settings(model="mlp", optimizer="muon"), load())
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    state = jax.eval_shape(tx.init, shapes["params"])
    jax.eval_shape(tx.update, shapes["params"], state, shapes["params"])


def test_kernels_that_are_tied_to_norms_are_left_ordinary():
    def selected(name):
        image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        report = kernel_groups(NETWORKS[name](10), image)
        return {path for path, f in report.findings.items() if f.group}

    firsts = {f"block_{index}/conv_0/kernel" for index in range(3)}
    assert selected("preact_resnet8") == {"stem/kernel", *firsts}
    assert selected("vit") == {
        f"layer_{index}/attention/{name}/kernel"
        for index in range(6)
        for name in ("query", "key")
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_is_of_kernels_that_are_not_kept(name):
    groups = {"kernel": ScaleGroup(0), "scale": None, "head": None}
    params = {"scale": jnp.ones(2), "head": jnp.ones((2, 3))}
    params["kernel"] = jnp.ones((3, 2))
    zero = optax.tree.zeros_like(params)

    def updates(decay):
        tx = OPTIMIZERS[name].make(0.1, groups, decay=decay, momentum=0.5)
        return tx.update(zero, tx.init(params), params)[0]

    changes = jax.tree.map(lambda a, b: a - b, updates(0.1), updates(0.0))
    assert not jnp.any(changes["scale"])
    assert jnp.any(changes["head"]) == OPTIMIZERS[name].decays
    if jnp.any(changes["kernel"]):
        assert OPTIMIZERS[name].invariance in (None, "none")


@pytest.mark.parametrize(
    ("name", "epochs", "drops", "factor"),
    [
        ("constant", 10, (), 1.0),
        ("steps", 100, (50, 75), 0.1),
        ("cifar", 200, (60, 120, 160), 0.2),
        ("imagenet", 100, (30, 60, 90), 0.2),
    ],
)
def test_schedules(name, epochs, drops, factor):
    per_epoch = 390
    rate, expected = SCHEDULES[name](0.3, per_epoch * epochs), 0.3
    assert rate(0) == pytest.approx(0.3)
    for epoch in drops:
        # The last step of an epoch, and the first one of the next.
        assert rate(per_epoch * epoch - 1) == pytest.approx(expected)
        expected *= factor
        assert rate(per_epoch * epoch) == pytest.approx(expected)
    assert rate(per_epoch * epochs - 1) == pytest.approx(expected)
    cosine = SCHEDULES["cosine"](0.3, 100)
    assert cosine(0) == pytest.approx(0.3)
    assert cosine(99) < 0.01
