import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from qkd_tf import data
from qkd_tf.experiment import DataSpec, ExperimentError

DIGITS = DataSpec("digits", batch_size=64, crop_padding=1, horizontal_flip=False, validation_fraction=0.1)


def arrays(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def load(**changes):
    return data.load(dataclasses.replace(DIGITS, **changes))


def epoch(number, **changes):
    return arrays(load(**changes).train(number))


@pytest.fixture(scope="module")
def digits():
    return data.load(DIGITS)


def pictures(*splits):
    """Each picture of the splits as bytes."""
    return [image.tobytes() for split in splits for image in arrays(split)[0]]


def test_digits_are_split_into_disjoint_parts_of_the_right_size(digits):
    calibration, validation, test = (arrays(s) for s in (digits.calibration, digits.validation, digits.test))
    assert len(test[0]) == 360  # one fifth of 1,797
    assert len(validation[0]) == 144  # one tenth of the rest
    assert len(calibration[0]) == digits.num_train == 1797 - 360 - 144
    whole = load_digits()
    expected = sorted(np.round(whole.images * 255 / 16).astype(np.uint8).reshape(-1, 64).tolist())
    got = np.concatenate([calibration[0], validation[0], test[0]]).reshape(-1, 64)
    assert sorted(got.tolist()) == expected
    assert len(set(pictures(digits.calibration)) & set(pictures(digits.validation, digits.test))) == 0


def test_digits_keep_their_labels(digits):
    whole = load_digits()
    by_picture = {
        np.round(i * 255 / 16).astype(np.uint8).tobytes(): t for i, t in zip(whole.images, whole.target, strict=True)
    }
    for split in (digits.calibration, digits.validation, digits.test):
        images, labels = arrays(split)
        assert [by_picture[image[..., 0].tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize("fraction, expected", [(0.1, 144), (0.25, 359), (0.5, 718)])
def test_validation_is_the_fraction_of_the_training_split(fraction, expected):
    splits = load(validation_fraction=fraction)
    assert len(arrays(splits.validation)[0]) == expected
    assert splits.num_train == 1437 - expected


def test_a_validation_fraction_of_less_than_one_image_is_refused():
    with pytest.raises(ExperimentError, match="validation_fraction"):
        load(validation_fraction=0.0001)


def test_splits_say_what_they_are(digits):
    assert digits.image_shape == (8, 8, 1)
    assert digits.batch_size == 64
    assert digits.label_names == [str(i) for i in range(10)]
    assert digits.fingerprint["name"] == "digits"
    assert (digits.fingerprint["num_train"], digits.fingerprint["num_test"]) == (1293, 360)


def test_fingerprint_is_that_of_the_test_split_alone(digits):
    assert load(seed=5, validation_fraction=0.5).fingerprint["test_sha256"] == digits.fingerprint["test_sha256"]


@pytest.mark.parametrize("split", ["calibration", "validation", "test"])
def test_pixels_are_whole_and_labels_class_indices(digits, split):
    images, labels = next(getattr(digits, split).as_numpy_iterator())
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    assert images.shape[1:] == (8, 8, 1) and len(images) == len(labels)


def test_training_batches_are_full_and_of_whole_pixels(digits):
    shapes = [(images.shape, images.dtype) for images, _ in digits.train(0).as_numpy_iterator()]
    assert shapes == [((64, 8, 8, 1), np.uint8)] * (digits.num_train // 64)


def test_an_epoch_is_a_function_of_seed_and_epoch(digits):
    first = arrays(digits.train(3))
    for again in (arrays(digits.train(3)), epoch(3)):
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("other", [(4, 0), (3, 1)])
def test_another_epoch_or_seed_is_another_order(digits, other):
    number, seed = other
    assert not np.array_equal(arrays(digits.train(3))[1], epoch(number, seed=seed)[1])


def test_another_epoch_has_other_crops_too():
    """Told apart from the order by pictures that are all the same."""
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) + 1
    crops = [
        data.augment(np.stack([picture] * 32), (8, 8, 1), DIGITS, tf.constant([seed, step], tf.int64)).numpy()
        for seed, step in ((0, 0), (1, 0), (0, 1))
    ]
    assert not np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])


def test_every_training_image_is_seen_once_an_epoch():
    splits = load(crop_padding=0, batch_size=1)
    assert sorted(pictures(splits.train(0))) == sorted(pictures(splits.calibration))


def test_calibration_images_are_training_images_without_augmentation(digits):
    assert sorted(pictures(digits.calibration)) == sorted(pictures(load(crop_padding=0, batch_size=1).train(0)))


def test_calibration_images_are_shuffled_by_the_seed():
    assert pictures(load().calibration) == pictures(load().calibration)
    assert pictures(load().calibration) != pictures(load(seed=1).calibration)


def test_validation_and_test_do_not_move_with_the_seed(digits):
    assert pictures(digits.validation, digits.test) == pictures(*(lambda s: (s.validation, s.test))(load(seed=9)))


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ExperimentError, match="--batch_size=2000 is more than the 1293"):
        load(batch_size=2000)


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
    got = data.augment(images, (height, width, 2), spec, tf.constant(seed, tf.int64)).numpy()
    again = data.augment(images, (height, width, 2), spec, tf.constant(seed, tf.int64)).numpy()
    assert got.dtype == np.uint8 and got.shape == images.shape
    np.testing.assert_array_equal(got, again)
    for image, augmented in zip(images, got, strict=True):
        allowed = crops(np.pad(image, [(pad, pad), (pad, pad), (0, 0)]), height, width)
        allowed += [crop[:, ::-1] for crop in allowed] if flip else []
        assert any(np.array_equal(augmented, crop) for crop in allowed)


def test_every_crop_and_mirror_comes_up_about_equally_often():
    picture = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1)
    spec = DataSpec("digits", crop_padding=1, horizontal_flip=True)
    got = data.augment(np.stack([picture] * 3600), (3, 3, 1), spec, tf.constant([1, 2], tf.int64)).numpy()
    _, counts = np.unique(got.reshape(3600, -1), axis=0, return_counts=True)
    assert len(counts) == 9 * 2
    assert counts.min() > 140 and counts.max() < 260  # 200 of each; deviation 14


class FakeBuilder:
    """Stands for a TFDS set of pictures that are ramps from left to right, of several sizes or of one."""

    version = "1.2.3"

    def __init__(self, path, sizes=((32, 64),), names=("train", "test"), features=None):
        self.data_path = path
        self.sizes = sizes
        label = tfds.features.ClassLabel(names=["cat", "dog"])
        self.info = types.SimpleNamespace(
            supervised_keys=("image", "label"),
            features=features or {"image": tfds.features.Image(), "label": label},
            splits={name: types.SimpleNamespace(num_examples=6) for name in names},
        )

    def as_dataset(self, split, **_):
        self.splits = split

        def examples():
            for index in range(6):
                height, width = self.sizes[index % len(self.sizes)]
                ramp = (2 * np.arange(width)).astype(np.uint8)
                yield np.broadcast_to(ramp[None, :, None], (height, width, 3)), index % 2

        shape = (*self.sizes[0], 3) if len(self.sizes) == 1 else (None, None, 3)
        signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((), tf.int64))
        whole = tf.data.Dataset.from_generator(examples, output_signature=signature)
        return [whole.take(0) if name == "train[6:]" else whole for name in split]


@pytest.fixture
def load_fake(tmp_path, monkeypatch):
    """load_fake(builder fields, spec fields): `data.load` of a fake TFDS set; returns (splits, builder)."""

    def load(fields=None, **spec):
        builder = FakeBuilder(tmp_path, **(fields or {}))
        monkeypatch.setattr(data.tfds, "builder", lambda name, data_dir: builder)
        return data.load(DataSpec("fake", data_dir=str(tmp_path), batch_size=4, **spec)), builder

    return load


def test_images_are_resized_by_their_shorter_side_and_cropped_at_the_centre(load_fake):
    splits, _ = load_fake(image_size=7)  # 32 x 64 becomes 8 x 16, of which the middle 8 x 8, of which 7 x 7
    assert splits.image_shape == (7, 7, 3)
    ramp = [8 * (4 + column) + 3 for column in range(8)]  # mean of 4 columns: 2 * (4 * column + 1.5)
    for split in (splits.test, splits.validation, splits.calibration):
        images, labels = arrays(split)
        assert images.shape == (6, 7, 7, 3) and images.dtype == np.uint8
        assert sorted(labels) == [0, 0, 0, 1, 1, 1]
        assert all(row.tolist() == ramp[:7] for row in images[..., 0].reshape(-1, 7))
    images, _ = arrays(splits.train(0))
    allowed = [ramp[:7], ramp[1:], ramp[6::-1], ramp[:0:-1]]
    assert images.shape == (4, 7, 7, 3)  # the short batch is dropped
    assert all(row.tolist() in allowed for row in images[..., 1].reshape(-1, 7))


def test_images_of_several_sizes_become_one(load_fake):
    splits, _ = load_fake({"sizes": ((32, 64), (64, 32), (20, 20))}, image_size=7)
    assert arrays(splits.test)[0].shape == (6, 7, 7, 3)


def test_images_of_several_sizes_need_an_image_size(load_fake):
    with pytest.raises(ExperimentError, match="--image_size"):
        load_fake({"sizes": ((32, 64), (64, 32))})


def test_tfds_set_says_what_it_is(load_fake):
    splits, builder = load_fake(validation_fraction=0.2)
    assert builder.splits == ["train[:5]", "train[5:]", "test"]  # of 6
    assert splits.label_names == ["cat", "dog"]
    assert splits.fingerprint["version"] == "1.2.3"


def test_validation_stands_in_for_a_test_split_that_is_missing(load_fake):
    assert load_fake({"names": ("train", "validation")})[1].splits[-1] == "validation"
    with pytest.raises(ExperimentError, match="train and validation are needed"):
        load_fake({"names": ("train",)})


def test_a_set_of_something_else_than_images_is_refused(load_fake):
    text = {"image": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
    with pytest.raises(ExperimentError, match="not a set of"):
        load_fake({"features": text})


def test_a_fraction_of_tfds_examples_that_is_not_one_is_refused(load_fake):
    with pytest.raises(ExperimentError, match="validation_fraction"):
        load_fake(validation_fraction=0.004)[0]


def test_data_dir_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(ExperimentError, match="nowhere is not a folder"):
        data.load(DataSpec("cifar10", data_dir=str(tmp_path / "nowhere")))


def test_a_set_that_is_not_prepared_comes_with_the_command_that_prepares_it(tmp_path):
    with pytest.raises(ExperimentError) as caught:
        data.load(DataSpec("cifar10", data_dir=str(tmp_path)))
    assert f"tfds build cifar10 --data_dir={tmp_path}" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_set_is_named_with_what_is_known(tmp_path):
    with pytest.raises(ExperimentError, match="unknown data set 'no_such_set'.*digits.*cifar10"):
        data.load(DataSpec("no_such_set", data_dir=str(tmp_path)))


def test_cifar10_is_whole(cifar10):
    assert cifar10.image_shape == (32, 32, 3)
    assert cifar10.label_names == "airplane automobile bird cat deer dog frog horse ship truck".split()
    assert (cifar10.num_train, cifar10.fingerprint["num_test"]) == (47_500, 10_000)
    images, labels = next(cifar10.test.as_numpy_iterator())
    assert images.shape == (128, 32, 32, 3) and images.dtype == np.uint8
    assert set(labels) <= set(range(10))
