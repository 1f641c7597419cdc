"""Small data sets in the formats of large ones, drawn at random."""

import numpy as np

from benchmarks.data import cifar

# A few images of each class: the format and all checks, without the 160 MB.
EACH = {"cifar-10": 2, "cifar-100": 1}


def draw_cifar(name, seed):
    """Draw images and labels of one file."""
    source = cifar._SOURCES[name]
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(source.classes), EACH[name])
    images = random.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    return images, random.permutation(labels).astype(np.uint8)


def encode_cifar(images, labels, count):
    """Encode records; of two labels, the first one is of the wrong kind."""
    colours = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    front = [labels[:, None] // 5] * (count - 1) + [labels[:, None]]
    return np.concatenate([*front, colours], axis=1).tobytes()


def write_cifar(name, folder, monkeypatch):
    """Write a folder of small files, to be searched in its parent."""
    source = cifar._SOURCES[name]
    small = dict.fromkeys(source.records, source.classes * EACH[name])
    monkeypatch.setitem(cifar._SOURCES, name, source._replace(records=small))
    monkeypatch.setenv("PSI_OPTAX_DATA", str(folder))
    made = folder / source.folder
    made.mkdir()
    for files in source.files.values():
        for seed, file in enumerate(files):
            content = encode_cifar(*draw_cifar(name, seed), source.labels)
            (made / file).write_bytes(content)
    return made


def draw_images(count, side, seed, classes=4):
    """Draw images whose brightness says their class, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count).astype(np.int32)
    # Classes differ in brightness, by more than single pixels vary.
    centres = 50 + 50 * labels[:, None, None, None]
    noise = random.integers(-50, 50, (count, side, side, 3))
    return (centres + noise).astype(np.uint8), labels


def write_images(folder, side=8, counts=(96, 64)):
    """Write arrays to `imagenet`, in two files for training and one."""
    for part, files in (("train", counts), ("test", (40,))):
        made = folder / "imagenet" / part
        made.mkdir(parents=True)
        for number, count in enumerate(files):
            images, labels = draw_images(count, side, seed=number)
            np.save(made / f"images-{number}.npy", images)
            np.save(made / f"labels-{number}.npy", labels)
