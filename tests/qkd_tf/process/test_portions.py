"""Bounds of bytes over anything that may come."""

import numpy as np
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from tf_keras import layers

from qkd_tf.process import portions


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_images_fill_the_bound_and_only_a_single_one_may_exceed_it(max_bytes, bytes_of_image):
    number = portions.num_images(max_bytes, bytes_of_image)
    assert number == 1 or number * bytes_of_image <= max_bytes
    assert (number + 1) * bytes_of_image > max_bytes


@given(st.integers(0, 40), st.integers(1, 50))
def test_portions_are_all_images_in_their_order(num_images, size):
    images = np.arange(num_images)
    parts = list(portions.portions(images, size))
    assert [image for part in parts for image in part] == list(images)
    assert {len(part) for part in parts[:-1]} <= {size} and all(0 < len(part) <= size for part in parts)


def test_values_of_an_image_by_hand(chain):
    model = chain(layers.Conv2D(4, 3, name="conv"), layers.Flatten(), layers.Dense(5))
    assert portions.values_of_image(model.layers[-3:]) == 6 * 6 * 4 + 6 * 6 * 4 + 5


def test_tensors_of_any_model_are_counted():
    """A teacher may be nested, take pictures of any size, and have layers of several outputs."""
    pixels = tf_keras.Input((None, 6, 4))
    halves = layers.Lambda(lambda x: (x[..., :2], x[..., 2:]))(pixels)
    x = tf_keras.Sequential([layers.Conv2D(3, 1), layers.ReLU()])(layers.Add()(halves))
    model = tf_keras.Model(pixels, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    counts = [6 * 4, 6 * 2, 6 * 2, 6 * 2, 6 * 3, 6 * 3, 3, 5]
    assert list(portions.values_of_tensors(model.layers)) == counts
    assert portions.values_of_image(model.layers) == sum(counts)


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(1, 30))
def test_regrouped_batches_are_all_images_in_their_order(sizes, size):
    images, cuts = np.arange(sum(sizes)), np.cumsum(sizes)[:-1]
    parts = list(portions.regrouped(np.split(images, cuts), size))
    assert [image for part in parts for image in part] == list(images)
    assert {len(part) for part in parts[:-1]} <= {size} and all(0 < len(part) <= size for part in parts)
