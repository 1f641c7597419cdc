"""Large images from arrays: made of pictures, opened, checked."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import image_arrays
from benchmarks.errors import InputError
from tests.full_disk import no_file_above
from tests.generated import draw_images, write_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of small arrays, which is given by its parent."""
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    write_images(tmp_path)
    return tmp_path / "imagenet"


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


def test_images_stay_on_disk(folder):
    arrays = image_arrays.load().train_images.arrays
    assert all(isinstance(array, np.memmap) for array in arrays)


def test_bytes_are_standardized_and_nothing_else_is():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    got = image_arrays.standardize(jnp.asarray(images))
    mean, std = np.array(image_arrays.MEAN), np.array(image_arrays.STD)
    # Three roundings of 6e-8 of numbers of at most 256/50.
    np.testing.assert_allclose(got, (images / 255 - mean) / std, atol=2e-6)
    assert image_arrays.standardize(got) is got


def save(file, array):
    np.save(file, array)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("images-1.npy", np.zeros((64, 4, 4, 3), np.uint8)),
        ("images-1.npy", np.zeros((64, 8, 8, 3), np.float32)),
        ("images-1.npy", np.zeros((64, 8, 8), np.uint8)),
        ("labels-1.npy", np.zeros(63, np.int32)),
        ("labels-1.npy", np.full(64, -1)),
        ("labels-1.npy", np.zeros(64)),
        ("labels-1.npy", np.zeros((64, 1), np.int32)),
        ("labels-1.npy", np.array(0)),
        # As int32 it would be 1.
        ("labels-1.npy", np.full(64, 2**32 + 1)),
        ("images-1.npy", np.zeros((0, 8, 8, 3), np.uint8)),
        ("images-1.npy", np.array(0)),
    ],
)
def test_what_does_not_belong_together(folder, name, array):
    save(folder / "train" / name, array)
    with pytest.raises(ValueError, match="images-1.npy"):
        image_arrays.load()


def test_other_classes_or_sides_for_testing(folder):
    save(folder / "test/labels-0.npy", np.full(40, 7))
    with pytest.raises(ValueError, match="7 in test.* 3"):
        image_arrays.load()
    save(folder / "test/images-0.npy", np.zeros((40, 9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="one --side"):
        image_arrays.load()


def test_damaged_files(folder):
    file = folder / "train/images-0.npy"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="images-0.npy"):
        image_arrays.load()
    file.write_bytes(b"\x80\x03}q\x00.")
    with pytest.raises(ValueError, match="images-0.npy"):
        image_arrays.load()


def test_missing_files(folder, monkeypatch, tmp_path):
    (folder / "train/labels-0.npy").unlink()
    with pytest.raises(ValueError, match="labels-0.npy"):
        image_arrays.load()
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="benchmarks.image_arrays"):
        image_arrays.load()


def draw_pictures(folder, parts=("train", "val"), classes=("ant", "bee")):
    """Pictures of one colour a class, higher than wide."""
    for part in parts:
        for label, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for index in range(3):
                picture = Image.new("RGB", (12, 20), (90 * label, 10, index))
                picture.save(folder / part / name / f"{index}.png")


def test_arrays_are_made_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    # Two files for training.
    monkeypatch.setattr(image_arrays, "PER_FILE", 4)
    draw_pictures(tmp_path / "pictures")
    arguments = [str(tmp_path / x) for x in ("pictures", "imagenet")]
    image_arrays.main([*arguments, "--side", "6"])
    dataset = image_arrays.load()
    assert dataset.train_images.shape == (6, 6, 6, 3)
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    # One colour stays one, however it is shrunk.
    got = dataset.train_images[np.array([5])]
    np.testing.assert_array_equal(got, np.full_like(got, 1) * [90, 10, 2])


def test_classes_have_to_be_the_same(tmp_path, capsys):
    draw_pictures(tmp_path, ("train",))
    draw_pictures(tmp_path, ("val",), ("ant",))
    with pytest.raises(SystemExit):
        image_arrays.main([str(tmp_path), str(tmp_path / "out")])
    assert "they have to be the same" in capsys.readouterr().err


def test_no_images_at_all_in_a_file(folder):
    save(folder / "train/images-1.npy", np.zeros((0, 8, 8, 3), np.uint8))
    save(folder / "train/labels-1.npy", np.zeros(0, np.int32))
    with pytest.raises(ValueError, match="n"):
        image_arrays.load()


def test_labels_without_their_images(folder):
    (folder / "train/images-1.npy").unlink()
    with pytest.raises(ValueError, match="labels-1.npy"):
        image_arrays.load()


def test_a_label_far_from_the_others(folder):
    labels = np.load(folder / "train/labels-0.npy")
    labels[5] = 10**6
    save(folder / "train/labels-0.npy", labels)
    with pytest.raises(ValueError, match="1000000 in train"):
        image_arrays.load()


def test_a_pickle_in_an_array_is_not_read(folder):
    for file in ("images-0.npy", "labels-0.npy"):
        before = (folder / "train" / file).read_bytes()
        np.save(folder / "train" / file, np.array([{}]), allow_pickle=True)
        with pytest.raises(ValueError, match="dtype"):
            image_arrays.load()
        (folder / "train" / file).write_bytes(before)
    image_arrays.load()


def test_an_archive_is_no_array(folder):
    packed = io.BytesIO()
    np.savez(packed, np.zeros((96, 8, 8, 3), np.uint8))
    (folder / "train/images-0.npy").write_bytes(packed.getvalue())
    with pytest.raises(ValueError, match="missing or damaged"):
        image_arrays.load()


@pytest.mark.parametrize("change", [-1, 1, 100])
def test_a_file_is_as_long_as_its_header_says(folder, change):
    file = folder / "train/images-0.npy"
    raw = file.read_bytes()
    file.write_bytes(raw[:change] if change < 0 else raw + bytes(change))
    with pytest.raises(ValueError, match="images-0.npy"):
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


def test_pictures_that_cannot_be_read(tmp_path, capsys):
    draw_pictures(tmp_path / "pictures")
    picture = tmp_path / "pictures/val/ant/1.png"
    raw = picture.read_bytes()
    for content in (b"", b"a text", raw[:50], raw[:-30]):
        picture.write_bytes(content)
        with pytest.raises(SystemExit) as caught:
            image_arrays.main([str(tmp_path / x) for x in ("pictures", "out")])
        assert caught.value.code == 1
        said = capsys.readouterr().err
        assert said.startswith(f"{picture} cannot be read as a picture")
        assert len(said.splitlines()) == 1
        assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


def test_a_disk_that_is_full_of_arrays(tmp_path, capsys):
    """Nothing is left of what would be taken for fewer images."""
    draw_pictures(tmp_path / "pictures")
    arguments = [str(tmp_path / x) for x in ("pictures", "out")]
    # 6 images of 256 x 256 pixels.
    with no_file_above(10**6), pytest.raises(SystemExit) as caught:
        image_arrays.main(arguments)
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert "File too large: " in said
    assert "images-00000.npy" in said
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]
    image_arrays.main(arguments)
    with pytest.raises(SystemExit):
        image_arrays.main(arguments)
    assert "there is something in" in capsys.readouterr().err


def test_classes_without_pictures(tmp_path, capsys):
    for part in ("train", "val"):
        (tmp_path / "pictures" / part / "ant").mkdir(parents=True)
    with pytest.raises(SystemExit):
        image_arrays.main([str(tmp_path / x) for x in ("pictures", "out")])
    assert "there are no pictures" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]
