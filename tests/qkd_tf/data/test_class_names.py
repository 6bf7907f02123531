"""Which names of classes a set still knows."""

import pytest
import tensorflow as tf

from qkd_tf.data.class_names import class_names


def of_keras():
    made = tf.data.Dataset.from_tensor_slices(([[1.0], [2.0]], [0, 1])).batch(2)
    made.class_names = ["ant", "bee"]
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made,
        lambda made: made.cache().prefetch(tf.data.AUTOTUNE),
        lambda made: made.shuffle(9).take(1),
        lambda made: made.skip(0).with_options(tf.data.Options()),
        lambda made: made.batch(2).batch(2, num_parallel_calls=2),
    ],
)
def test_names_outlive_what_keeps_labels(change):
    assert class_names(change(of_keras())) == ["ant", "bee"]


@pytest.mark.parametrize(
    "given",
    [
        of_keras().map(lambda image, label: (image, 1 - label)),
        of_keras().map(lambda image, label: (image, 1 - label)).cache(),
        of_keras().concatenate(of_keras()),
        tf.data.Dataset.range(3).cache(),
        ([1], [2]),
        "folder:a",
        None,
    ],
)
def test_nothing_is_known_where_labels_may_mean_something_else(given):
    assert class_names(given) is None
