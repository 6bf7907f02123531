import numpy as np
import pytest

from qkd_tf import data
from qkd_tf.data import rereading
from qkd_tf.data.sources import lasting
from qkd_tf.experiment import DataSpec, ExperimentError


def arrays(batches):
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("first, number", [(0, -1), (0, 5), (350, -1), (352, 4), (359, 1)])
def test_any_part_is_that_of_the_splits(first, number):
    spec = DataSpec("digits", image_size=11)
    expected = arrays(data.load(spec).test.as_numpy_iterator())
    again = data.Rereading(spec)
    assert again.shape == expected[0].shape == (360, 11, 11, 1)
    end = None if number < 0 else first + number
    for found, whole in zip(arrays(again.batches(first, number)), expected, strict=True):
        np.testing.assert_array_equal(found, whole[first:end])


def test_batches_have_a_bound_of_bytes(monkeypatch):
    monkeypatch.setattr(rereading, "BATCH_BYTES", 100 * 64)
    assert [len(images) for images, _ in data.Rereading(DataSpec("digits")).batches()] == [100, 100, 100, 60]


def test_set_in_memory_cannot_be_read_again():
    assert lasting(DataSpec("in_memory:123")) is None
    with pytest.raises(ExperimentError, match="were given in Python"):
        data.Rereading(DataSpec("in_memory:123"))


def test_places_are_told_from_the_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert lasting(DataSpec("folder:pictures", image_size=9)) == DataSpec(f"folder:{tmp_path}/pictures", image_size=9)
    assert lasting(DataSpec("folder:~/pictures")).name == "folder:/home/me/pictures"
    assert lasting(DataSpec("cifar10", data_dir="sets")) == DataSpec("cifar10", data_dir=f"{tmp_path}/sets")
    assert lasting(DataSpec("cifar10")) == DataSpec("cifar10")
