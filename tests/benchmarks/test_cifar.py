"""CIFAR's binary files, sound and damaged, and the standard augmentation."""

import re

import numpy as np
import pytest

from benchmarks import data
from benchmarks.data import augmentation, cifar
from benchmarks.harness.files import InputError
from tests.generated import EACH, draw_cifar, write_cifar


@pytest.fixture(params=list(EACH))
def name(request):
    return request.param


@pytest.fixture
def source(name):
    return cifar._SOURCES[name]


@pytest.fixture
def folder(tmp_path, monkeypatch, name):
    """A folder of small files, whose parent is given for it."""
    return write_cifar(name, tmp_path, monkeypatch)


@pytest.mark.parametrize("place", [".", ".."])
def test_images_and_labels_come_back(folder, name, source, place, monkeypatch):
    monkeypatch.setenv("PSI_OPTAX_DATA", str(folder / place))
    for part, files in source.files.items():
        images, labels = cifar.load_part(name, part)
        drawn = [draw_cifar(name, seed) for seed in range(len(files))]
        expected = [np.concatenate(x) for x in zip(*drawn, strict=True)]
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


def test_the_data_set_is_standardized_by_channel(folder, name, source):
    dataset = data.load(name)
    assert dataset.num_classes == source.classes
    assert dataset.test_labels.dtype == np.int32
    images = dataset.train_images
    assert images.dtype == np.float32
    assert images.shape[1:] == (32, 32, 3)
    # 100,000 numbers or more, each rounded to 6e-8 of at most 2.
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=1e-5)


def relabel(raw, before, label):
    label += raw[before - 1] == label
    return raw[: before - 1] + bytes([label]) + raw[before:]


# Each of a file's content and its number of label bytes.
CUT = {
    **{f"at {end}": lambda raw, _, end=end: raw[:end] for end in (0, 3072, -1)},
    "pickle": lambda *_: b"\x80\x03}q\x00.",
    "between records": lambda raw, before: raw[: -before - 3072],
}
MIXED_UP = {
    "label 0": lambda *x: relabel(*x, 0),
    "label 255": lambda *x: relabel(*x, 254),
    "half twice": lambda raw, _: raw[: len(raw) // 2] * 2,
}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("damage", [*CUT, *MIXED_UP])
def test_damaged_files(folder, name, source, part, damage):
    path = folder / source.files[part][0]
    change = (CUT | MIXED_UP)[damage]
    path.write_bytes(change(path.read_bytes(), source.labels))
    with pytest.raises(InputError, match="cifar.html") as caught:
        data.load(name)
    # Labels are counted in all files of a part.
    said = f"the {part} files.* mixed up" if damage in MIXED_UP else str(path)
    assert re.search(said, str(caught.value))


def test_a_missing_file(folder, name, source):
    (folder / source.files["test"][0]).unlink()
    with pytest.raises(FileNotFoundError, match="binary version"):
        data.load(name)


def test_pixels_that_are_all_the_same(folder, name, source):
    for file in source.files["train"]:
        raw = np.frombuffer((folder / file).read_bytes(), np.uint8)
        records = raw.reshape(-1, source.labels + 3072).copy()
        records[:, source.labels :] = 7
        (folder / file).write_bytes(records.tobytes())
    with pytest.raises(InputError, match="of a channel are the same"):
        data.load(name)


IMAGES = np.arange(64 * 6 * 5 * 2, dtype=np.float32).reshape(64, 6, 5, 2) + 1


def augmented(seed, padding):
    random = np.random.default_rng(seed)
    cuts = augmentation.draw_cuts(len(IMAGES), (2 * padding,) * 2, random)
    return augmentation.cut(augmentation.pad(IMAGES, padding), cuts, (6, 5))


def test_crops_are_shifts_and_reflections():
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, around in zip(augmented(0, padding=2), padded, strict=True):
        [found] = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (1, -1)
            if np.array_equal(
                image, around[top : top + 6, left : left + 5][:, ::flip]
            )
        ]
        seen.add(found)
    # Of 50 kinds 64 draws miss so few that 30 is many standard deviations off.
    assert len(seen) > 30


def test_without_padding_only_reflections_are_left():
    got = augmented(0, padding=0)
    same = (got == IMAGES).all((1, 2, 3))
    assert (same ^ (got == IMAGES[:, :, ::-1]).all((1, 2, 3))).all()
    # Half of 64, by five standard deviations of 4.
    assert 12 < same.sum() < 52


def test_a_piece_of_the_middle():
    cuts = augmentation.central_cuts(len(IMAGES), (2, 1))
    got = augmentation.cut(IMAGES, cuts, (4, 4))
    np.testing.assert_array_equal(got, IMAGES[:, 1:5, 0:4])


def test_a_part_of_a_batch_is_cut_as_in_the_whole():
    cuts = augmentation.draw_cuts(64, (2, 1), np.random.default_rng(0))
    whole = augmentation.cut(IMAGES, cuts, (4, 4))
    part = slice(16, 32)
    got = augmentation.cut(IMAGES[part], cuts[part], (4, 4))
    np.testing.assert_array_equal(got, whole[part])
    assert not np.array_equal(got, whole[:16])


def test_the_seed_decides():
    np.testing.assert_array_equal(augmented(1, 4), augmented(1, 4))
    assert not np.array_equal(augmented(1, 4), augmented(2, 4))
