"""Files are whole or not there, whatever happens while they are written."""

import contextlib
import os

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.harness import files
from benchmarks.harness.files import InputError, one_message
from tests.full_disk import fill, needs_full, no_file_above, unfinished

# Each writes more than the 4096 bytes that a test allows.
WRITERS = {
    "text": lambda path: files.write(path, "x" * 100_000),
    "bytes": lambda path: files.write(path, b"x" * 100_000),
    "array": lambda path: files.write_array(path, np.zeros((100, 100))),
    "figure": lambda path: files.write_figure(path, figure()),
}
LIMITS = {
    "full": lambda path: contextlib.nullcontext(fill(path)),
    "too large": lambda _: no_file_above(4096),
}


def figure():
    drawn = Figure()
    drawn.subplots().plot([1, 2])
    return drawn


@pytest.fixture
def path(tmp_path):
    """A file that was written before, and alone in its folder at the end."""
    found = tmp_path / "file.png"
    found.write_text("before")
    yield found
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    "limit", [pytest.param("full", marks=needs_full), "too large"]
)
def test_a_full_disk_leaves_what_was_there(path, writer, limit):
    limited = LIMITS[limit](path)
    with limited, pytest.raises(OSError, match="'.*file.png'"):
        WRITERS[writer](path)
    assert path.read_text() == "before"
    assert not unfinished(path.parent)
    WRITERS[writer](path)
    assert path.stat().st_size > 4096


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_program_that_ends_leaves_what_was_there(path, error):
    def half():
        with files.whole(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        half()
    assert path.read_text() == "before"


def test_what_a_crash_has_left_is_replaced(path):
    path.with_name("file.png.unfinished").write_text("half of something long")
    files.write(path, "after")
    assert path.read_text() == "after"


def test_a_link_stays_a_link(path, tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(path)
    files.write(link, "after")
    assert link.is_symlink()
    assert path.read_text() == "after"


def test_arrays_are_those_that_numpy_writes(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1)
    ours, theirs = (tmp_path / f"{x}.npy" for x in ("ours", "theirs"))
    files.write_array(ours, array)
    np.testing.assert_array_equal(np.load(ours), array)
    np.save(theirs, np.ascontiguousarray(array))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_folder_is_whole_or_not_there(tmp_path):
    made = tmp_path / "made"

    def half():
        with files.whole_folder(made) as folder:
            (folder / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert not list(tmp_path.iterdir())
    # A crash of another time.
    (tmp_path / "made.unfinished").mkdir()
    (tmp_path / "made.unfinished" / "half").touch()
    with files.whole_folder(made) as folder:
        assert not made.exists()
        (folder / "all").touch()
    assert [p.name for p in made.iterdir()] == ["all"]
    taken = pytest.raises(FileExistsError, match="delete")
    with taken, files.whole_folder(made):
        pytest.fail("it is not asked for what is thrown away")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b'{"a": {}', b"[]", b"null", b'{"a": 1}', b'{"b": {}}'),
        *(b"\xff\xfe", b"[" * 100_000),
    ],
)
def test_objects_of_json(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match="file.png.*numbers"):
        files.read_json(path, "numbers", ["a"])
    path.write_text('{"a": {"b": 1}}')
    assert files.read_json(path, "numbers", ["a"]) == {"a": {"b": 1}}


def test_errors_of_what_was_given_are_one_message(capsys):
    for error in (InputError("this"), FileNotFoundError("this")):
        with pytest.raises(SystemExit) as caught, one_message():
            raise error
        assert caught.value.code == 1
        assert capsys.readouterr().err == "this\n"
    # A fault of the program keeps its traceback.
    with pytest.raises(ValueError, match="that"), one_message():
        raise ValueError("that")


def test_what_is_no_output_folder(path, tmp_path, monkeypatch):
    for out in (path, path / "below"):
        with pytest.raises(OSError, match="--out "):
            files.make_folder(out)
    assert path.read_text() == "before"
    files.make_folder(tmp_path / "new" / "folder")
    # The superuser may do anything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match="--out .*"):
        files.make_folder(tmp_path)
