"""Large images from arrays: made of pictures, opened, checked."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks.data import images as image_arrays
from benchmarks.harness.files import InputError
from tests.full_disk import no_file_above
from tests.generated import draw_images, write_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of small arrays, which is given by its parent."""
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    write_images(tmp_path)
    return tmp_path / "imagenet"


def refuses(message):
    return pytest.raises(InputError, match=message)


def test_images_come_back_from_several_files(folder):
    dataset = image_arrays.load()
    drawn = [draw_images(96, 8, seed=0), draw_images(64, 8, seed=1)]
    images, labels = (np.concatenate(x) for x in zip(*drawn, strict=True))
    rows = np.array([159, 0, 95, 96, 3, 3])
    np.testing.assert_array_equal(dataset.train_images[rows], images[rows])
    np.testing.assert_array_equal(dataset.train_labels, labels)
    assert dataset.train_images.shape == images.shape
    assert len(dataset.test_images) == len(dataset.test_labels) == 40
    assert dataset.num_classes == 4
    # They stay on disk.
    arrays = dataset.train_images.arrays
    assert all(isinstance(array, np.memmap) for array in arrays)


def test_bytes_are_standardized_and_nothing_else_is():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    got = image_arrays.standardize(jnp.asarray(images))
    mean, std = np.array(image_arrays.MEAN), np.array(image_arrays.STD)
    # Three roundings of 6e-8 of numbers of at most 256/50.
    np.testing.assert_allclose(got, (images / 255 - mean) / std, atol=2e-6)
    assert image_arrays.standardize(got) is got


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((64, 4, 4, 3), np.uint8)},
        {"images": np.zeros((64, 8, 8, 3), np.float32)},
        {"images": np.zeros((64, 8, 8), np.uint8)},
        {"images": np.zeros((0, 8, 8, 3), np.uint8)},
        {"images": np.array(0)},
        {"labels": np.zeros(63, np.int32)},
        {"labels": np.full(64, -1)},
        {"labels": np.zeros(64)},
        {"labels": np.zeros((64, 1), np.int32)},
        {"labels": np.array(0)},
        # As int32 it would be 1.
        {"labels": np.full(64, 2**32 + 1)},
        {
            "images": np.zeros((0, 8, 8, 3), np.uint8),
            "labels": np.zeros(0, np.int32),
        },
    ],
)
def test_what_does_not_belong_together(folder, arrays):
    for name, array in arrays.items():
        np.save(folder / "train" / f"{name}-1.npy", array)
    with refuses("images-1.npy.*n at least 1"):
        image_arrays.load()


def test_other_classes_or_sides(folder):
    labels = np.load(folder / "train/labels-0.npy")
    np.save(folder / "test/labels-0.npy", np.full(40, 7))
    with refuses("up to 3 in train, and up to 7 in test"):
        image_arrays.load()
    np.save(folder / "train/labels-0.npy", np.where(labels == 3, 10**6, labels))
    with refuses("1000000 in train"):
        image_arrays.load()
    np.save(folder / "test/images-0.npy", np.zeros((40, 9, 9, 3), np.uint8))
    with refuses("one --side"):
        image_arrays.load()


@pytest.mark.parametrize("name", ["images-1.npy", "labels-1.npy"])
def test_missing_files(folder, monkeypatch, tmp_path, name):
    (folder / "train" / name).unlink()
    with refuses("labels-1.npy"):
        image_arrays.load()
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="benchmarks.data.images"):
        image_arrays.load()


def saved(save, *arguments, **options):
    file = io.BytesIO()
    save(file, *arguments, **options)
    return file.getvalue()


PICKLE = saved(np.save, np.array([{}]), allow_pickle=True)
ARCHIVE = saved(np.savez, np.zeros((96, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("name", ["images-0.npy", "labels-0.npy"])
def test_damaged_files(folder, name):
    file = folder / "train" / name
    raw = file.read_bytes()
    for content, message in (
        *((raw[:end], "missing or damaged") for end in (0, 7, 100, 150, -1)),
        *((raw + bytes(count), "more than its header") for count in (1, 100)),
        (b"\x80\x03}q\x00.", "missing or damaged"),
        (PICKLE, "dtype"),
        (ARCHIVE, "missing or damaged"),
    ):
        file.write_bytes(content)
        with refuses(f"{name}.*{message}"):
            image_arrays.load()
    file.write_bytes(raw)
    image_arrays.load()


def test_headers_that_are_damaged_in_any_way(folder):
    """Numpy raises errors of many kinds for these; we raise one."""
    file = folder / "train/images-0.npy"
    raw = file.read_bytes()
    random = np.random.default_rng(0)
    written = b"0123456789-(),'{}:<>|fiuOVSUbT \0\xff"
    messages = []
    for _ in range(300):
        damaged = bytearray(raw)
        for place in random.integers(0, 128, 2):
            damaged[place] = random.choice(list(written))
        file.write_bytes(damaged)
        try:
            found = image_arrays.load().train_images
        except InputError as error:
            messages.append(str(error))
        else:
            # A blank, or what was there before.
            assert found.shape == (160, 8, 8, 3)
    # Of 128 bytes half are blanks, and one in ten is replaced by itself.
    assert len(messages) > 150
    assert all("images-0.npy" in message for message in messages)


def draw_pictures(folder, parts=("train", "val"), classes=("ant", "bee")):
    """Draw pictures of one colour a class, higher than wide."""
    for part in parts:
        for label, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for index in range(3):
                picture = Image.new("RGB", (12, 20), (90 * label, 10, index))
                picture.save(folder / part / name / f"{index}.png")


@pytest.fixture
def pictures(tmp_path):
    draw_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture
def refused(capsys, tmp_path):
    """Return the error of the command, which leaves nothing behind."""

    def run(*options):
        paths = [str(tmp_path / x) for x in ("pictures", "out")]
        before = list(tmp_path.iterdir())
        with pytest.raises(SystemExit) as caught:
            image_arrays.main([*paths, *options])
        assert caught.value.code == 1
        assert list(tmp_path.iterdir()) == before
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        return said

    return run


def test_arrays_are_made_of_pictures(tmp_path, monkeypatch, pictures):
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    # Two files for training.
    monkeypatch.setattr(image_arrays, "PER_FILE", 4)
    image_arrays.main(
        [str(pictures), str(tmp_path / "imagenet"), "--side", "6"]
    )
    dataset = image_arrays.load()
    assert dataset.train_images.shape == (6, 6, 6, 3)
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    # One colour stays one, however it is shrunk.
    got = dataset.train_images[np.array([5])]
    np.testing.assert_array_equal(got, np.full_like(got, 1) * [90, 10, 2])


def test_folders_that_cannot_be_used(tmp_path, refused):
    assert "no such folder" in refused()
    draw_pictures(tmp_path / "pictures", ("train",))
    draw_pictures(tmp_path / "pictures", ("val",), ("ant",))
    assert "they have to be the same" in refused()
    (tmp_path / "pictures/val/bee").mkdir()
    for picture in (tmp_path / "pictures/val/ant").iterdir():
        picture.unlink()
    assert "val: there are no pictures" in refused()


def test_pictures_that_cannot_be_read(pictures, refused):
    picture = pictures / "val/ant/1.png"
    raw = picture.read_bytes()
    for content in (b"", b"a text", raw[:50], raw[:-30]):
        picture.write_bytes(content)
        said = refused()
        assert said.startswith(f"{picture} cannot be read as a picture")


def test_a_disk_that_is_full_of_arrays(tmp_path, pictures, refused):
    """Nothing is left of what would be taken for fewer images."""
    # 6 images of 256 x 256 pixels.
    with no_file_above(10**6):
        said = refused()
    assert "File too large: " in said
    assert "images-00000.npy" in said
    image_arrays.main([str(pictures), str(tmp_path / "out")])
    assert "there is something in" in refused()
