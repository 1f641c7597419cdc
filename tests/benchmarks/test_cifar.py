"""CIFAR's binary files, sound and damaged, and the standard augmentation."""

import numpy as np
import pytest

from benchmarks import augmentation, cifar_files, data
from tests.generated import EACH, draw_cifar, write_cifar


@pytest.fixture(params=list(EACH))
def name(request):
    return request.param


@pytest.fixture
def folder(tmp_path, monkeypatch, name):
    """A folder of small files, whose parent is given for it."""
    return write_cifar(name, tmp_path, monkeypatch)


def test_images_and_labels_come_back(folder, name):
    for part, files in cifar_files._SOURCES[name].files.items():
        images, labels = cifar_files.load_part(name, part)
        drawn = [draw_cifar(name, seed) for seed in range(len(files))]
        expected = [np.concatenate(x) for x in zip(*drawn, strict=True)]
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


def test_the_folder_itself_may_be_named(folder, name, monkeypatch):
    monkeypatch.setenv("PSI_OPTAX_DATA", str(folder))
    assert len(cifar_files.load_part(name, "test")[1])


def test_the_data_set_is_standardized_by_channel(folder, name):
    dataset = data.load(name)
    classes = cifar_files._SOURCES[name].classes
    assert dataset.num_classes == classes
    assert dataset.test_labels.dtype == np.int32
    images = dataset.train_images
    assert images.dtype == np.float32
    assert images.shape[1:] == (32, 32, 3)
    # 100,000 numbers or more, each rounded to 6e-8 of at most 2.
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=1e-5)


def first(folder, name, part="train"):
    return folder / cifar_files._SOURCES[name].files[part][0]


@pytest.mark.parametrize("keep", [0, 1, 3072, -1])
def test_a_file_that_is_cut_within_a_record(folder, name, keep):
    path = first(folder, name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="no whole number") as caught:
        data.load(name)
    assert str(path) in str(caught.value)
    assert "cifar.html" in str(caught.value)


def test_a_file_that_is_cut_between_records(folder, name):
    path = first(folder, name, "test")
    length = cifar_files._SOURCES[name].labels + 3072
    path.write_bytes(path.read_bytes()[:-length])
    with pytest.raises(ValueError, match="cut short"):
        data.load(name)


@pytest.mark.parametrize("label", [0, 255])
def test_a_damaged_label(folder, name, label):
    path = first(folder, name)
    raw = bytearray(path.read_bytes())
    where = cifar_files._SOURCES[name].labels - 1
    if raw[where] == label:
        label += 1
    raw[where] = label
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="damaged"):
        data.load(name)


def test_half_of_a_file_in_the_place_of_the_other_half(folder, name):
    path = first(folder, name)
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] * 2)
    with pytest.raises(ValueError, match="damaged"):
        data.load(name)


def test_a_missing_file(folder, name):
    first(folder, name, "test").unlink()
    with pytest.raises(FileNotFoundError, match="binary version"):
        data.load(name)


def test_pickles_are_no_binary_files(folder, name):
    first(folder, name).write_bytes(b"\x80\x03}q\x00.")
    with pytest.raises(ValueError, match="no whole number"):
        data.load(name)


def test_pixels_that_are_all_the_same(folder, name):
    source = cifar_files._SOURCES[name]
    for file in source.files["train"]:
        raw = np.frombuffer((folder / file).read_bytes(), np.uint8)
        records = raw.reshape(-1, source.labels + 3072).copy()
        records[:, source.labels :] = 7
        (folder / file).write_bytes(records.tobytes())
    with pytest.raises(ValueError, match="of a channel are the same"):
        data.load(name)


IMAGES = np.arange(64 * 6 * 5 * 2, dtype=np.float32).reshape(64, 6, 5, 2) + 1


def test_crops_are_shifts_and_reflections():
    got = augmentation.crop_and_flip(IMAGES, np.random.default_rng(0), 2)
    assert got.shape == IMAGES.shape
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, around in zip(got, padded, strict=True):
        found = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (1, -1)
            if np.array_equal(
                image, around[top : top + 6, left : left + 5][:, ::flip]
            )
        ]
        assert len(found) == 1
        seen.add(found[0])
    # Of 50 kinds 64 draws miss so few that 30 is many standard deviations off.
    assert len(seen) > 30


def test_without_padding_only_reflections_are_left():
    got = augmentation.crop_and_flip(IMAGES, np.random.default_rng(0), 0)
    same = (got == IMAGES).all((1, 2, 3))
    mirrored = (got == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
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
    once, again = (
        augmentation.crop_and_flip(IMAGES, np.random.default_rng(1))
        for _ in range(2)
    )
    np.testing.assert_array_equal(once, again)
    other = augmentation.crop_and_flip(IMAGES, np.random.default_rng(2))
    assert not np.array_equal(once, other)
