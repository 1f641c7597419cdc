"""The input: batches that depend on the seed and the epoch alone."""

import threading

import jax
import numpy as np
import pytest

from benchmarks.data import Dataset, augmentation
from benchmarks.train import batches
from benchmarks.train.layout import make_layout
from benchmarks.train.settings import Settings

SETTINGS = Settings(batch=16, augment=True)


def dataset(count=50, tests=21):
    """Images that are the numbers of their examples."""

    def part(size):
        labels = np.arange(size, dtype=np.int32)
        images = (
            np.ones((size, 6, 6, 1), np.float32) * labels[:, None, None, None]
        )
        return images + 1, labels

    return Dataset("numbers", *part(count), *part(tests), num_classes=count)


def epoch(sizes, number=1, settings=SETTINGS):
    layout = make_layout(sizes)
    made = batches.train_batches(settings, dataset(), layout, number)
    return [[np.asarray(x) for x in batch] for batch in made]


def test_an_epoch_is_the_same_on_any_mesh_and_another_the_next_time():
    one = epoch({"data": 1})
    for sizes in ({"data": 8}, {"data": 2, "fsdp": 2, "model": 2}):
        jax.tree.map(np.testing.assert_array_equal, epoch(sizes), one)
    assert not np.array_equal(epoch({"data": 1}, 2)[0][1], one[0][1])


def test_images_and_labels_belong_together_and_come_once():
    found = epoch({"data": 8})
    # 50 examples in batches of 16; two are dropped.
    labels = np.concatenate([labels for _, labels in found])
    assert len(found) == 3
    assert len(set(labels.tolist())) == 48
    for images, numbers in found:
        # Shifts bring zeros in, but not into all pixels.
        np.testing.assert_array_equal(images.max((1, 2, 3)), numbers + 1)
        assert (images == 0).any()


def test_a_process_makes_the_part_that_its_devices_need(monkeypatch):
    asked = []
    original = augmentation.cut

    def cut(images, cuts, size):
        asked.append(len(images))
        return original(images, cuts, size)

    monkeypatch.setattr(augmentation, "cut", cut)
    epoch({"data": 2, "fsdp": 2, "model": 2})
    # Four parts of three batches, though eight devices have them.
    assert asked == [4] * 12


def test_tests_are_filled_up_with_examples_that_do_not_count():
    made = batches.test_batches(SETTINGS, dataset(), make_layout({"data": 8}))
    [(images, labels, weights)] = [
        [np.asarray(x) for x in batch] for batch in made
    ]
    # 21 examples on 8 devices.
    assert len(images) == len(labels) == 24
    np.testing.assert_array_equal(weights, [1] * 21 + [0] * 3)
    np.testing.assert_array_equal(labels[:21], np.arange(21))
    np.testing.assert_array_equal(images[:21, 0, 0, 0], np.arange(21) + 1)


def test_batches_are_made_in_another_thread_and_in_order():
    threads = []

    def some():
        for index in range(5):
            threads.append(threading.current_thread())
            yield index

    assert list(batches.ahead(some())) == list(range(5))
    assert threading.current_thread() not in threads


def test_an_error_in_the_input_is_an_error_of_training():
    def some():
        yield 1
        raise OSError("the disk is gone")

    made = batches.ahead(some())
    assert next(made) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)


def test_no_more_is_made_than_is_waited_for():
    made = []

    def some():
        for index in range(100):
            made.append(index)
            yield index

    ahead = batches.ahead(some(), count=3)
    next(ahead)
    ahead.close()
    # One is given out and three are waiting.
    assert len(made) == 4
