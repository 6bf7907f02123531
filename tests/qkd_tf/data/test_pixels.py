import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf.data import pixels
from qkd_tf.experiment import DataSpec


def test_another_epoch_has_other_crops_too():
    """Told apart from the order by pictures that are all the same."""
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) + 1
    crops = [
        pixels.augment(
            np.stack([picture] * 32), (8, 8, 1), DataSpec("digits"), tf.constant([seed, step], tf.int64)
        ).numpy()
        for seed, step in ((0, 0), (1, 0), (0, 1))
    ]
    assert not np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])


def crops(padded, height, width):
    rows, columns = padded.shape[0] - height + 1, padded.shape[1] - width + 1
    return [padded[y : y + height, x : x + width] for y in range(rows) for x in range(columns)]


@given(
    seed=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)),
    pad=st.integers(0, 3),
    flip=st.booleans(),
    height=st.integers(2, 5),
    width=st.integers(2, 5),
)
def test_augmented_images_are_crops_of_the_padded_one_or_their_mirror(seed, pad, flip, height, width):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (6, height, width, 2)).astype(np.uint8)
    spec = DataSpec("digits", crop_padding=pad, horizontal_flip=flip)
    got = pixels.augment(images, (height, width, 2), spec, tf.constant(seed, tf.int64)).numpy()
    again = pixels.augment(images, (height, width, 2), spec, tf.constant(seed, tf.int64)).numpy()
    assert got.dtype == np.uint8 and got.shape == images.shape
    np.testing.assert_array_equal(got, again)
    for image, augmented in zip(images, got, strict=True):
        allowed = crops(np.pad(image, [(pad, pad), (pad, pad), (0, 0)]), height, width)
        allowed += [crop[:, ::-1] for crop in allowed] if flip else []
        assert any(np.array_equal(augmented, crop) for crop in allowed)


def test_every_crop_and_mirror_comes_up_about_equally_often():
    picture = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1)
    spec = DataSpec("digits", crop_padding=1, horizontal_flip=True)
    got = pixels.augment(np.stack([picture] * 3600), (3, 3, 1), spec, tf.constant([1, 2], tf.int64)).numpy()
    _, counts = np.unique(got.reshape(3600, -1), axis=0, return_counts=True)
    assert len(counts) == 9 * 2
    assert counts.min() > 140 and counts.max() < 260  # 200 of each; deviation 14
