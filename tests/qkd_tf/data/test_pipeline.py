import dataclasses
import hashlib

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from qkd_tf import data
from qkd_tf.data import pipeline
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_every_training_image_is_seen_once_an_epoch():
    splits = load(crop_padding=0, batch_size=1)
    assert sorted(pictures(splits.train(0))) == sorted(pictures(splits.calibration))


def test_calibration_images_are_training_images_without_augmentation(digits):
    assert sorted(pictures(digits.calibration)) == sorted(pictures(load(crop_padding=0, batch_size=1).train(0)))


@pytest.mark.slow
def test_calibration_images_are_shuffled_by_the_seed():
    assert pictures(load().calibration) == pictures(load().calibration)
    assert pictures(load().calibration) != pictures(load(seed=1).calibration)


def test_validation_and_test_do_not_move_with_the_seed(digits):
    assert pictures(digits.validation, digits.test) == pictures(*(lambda s: (s.validation, s.test))(load(seed=9)))


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ExperimentError, match="--batch_size=2000 is more than the 1293"):
        load(batch_size=2000)


@pytest.mark.parametrize(
    "number, seed, expected",
    [(0, 3, "5d4223b73ef62bd3"), (5, 3, "99a8340f73a59467")],
)
def test_batches_are_those_of_earlier_versions(number, seed, expected):
    """A seed means the same batches for ever; digests of the first version's."""
    digest = hashlib.sha256()
    for images, labels in load(seed=seed).train(number).as_numpy_iterator():
        digest.update(images.tobytes() + labels.tobytes())
    assert digest.hexdigest().startswith(expected)


def test_fingerprint_digests_the_whole_test_split(digits):
    images, labels = zip(*digits.test.as_numpy_iterator(), strict=True)
    digest = hashlib.sha256(b"".join(i.tobytes() + y.tobytes() for i, y in zip(images, labels, strict=True)))
    assert digits.fingerprint["test_sha256"] == digest.hexdigest()
    assert digits.fingerprint["digested"] == 360


def test_an_epoch_ends_after_the_steps_that_were_asked_for(digits):
    splits = load(max_steps=3)
    assert splits.steps_per_epoch == len(list(splits.train(1))) == 3
    np.testing.assert_array_equal(arrays(splits.train(1))[0], arrays(digits.train(1))[0][: 3 * 64])
    assert load(max_steps=1000).steps_per_epoch == len(list(digits.train(0))) == 1293 // 64


@pytest.mark.parametrize("limit", [pipeline.CACHE_BYTES, 0], ids=["kept", "streamed"])
@pytest.mark.parametrize("first_step, max_steps", [(0, 0), (1, 0), (19, 0), (20, 0), (2, 5), (5, 5)])
def test_an_epoch_goes_on_at_any_step_to_the_bit(monkeypatch, limit, first_step, max_steps):
    monkeypatch.setattr(pipeline, "CACHE_BYTES", limit)
    splits = load(max_steps=max_steps)
    whole = list(splits.train(3).as_numpy_iterator())
    rest = list(splits.train(3, first_step).as_numpy_iterator())
    assert len(whole) == splits.steps_per_epoch and len(rest) == len(whole) - first_step
    for expected, found in zip(whole[first_step:], rest, strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_first_images_of_validation_and_test_are_taken(digits):
    splits = load(max_eval_images=50)
    for name in ("validation", "test"):
        np.testing.assert_array_equal(arrays(getattr(splits, name))[0], arrays(getattr(digits, name))[0][:50])
    assert (splits.fingerprint["num_test"], splits.num_train) == (50, digits.num_train)


@pytest.mark.parametrize("wrong", [-1, 10])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_labels_that_are_no_class_are_refused(split, wrong):
    source = data.open_source(DIGITS)
    images, labels = np.zeros((70, 8, 8, 1), np.uint8), np.arange(70) % 10
    labels[60] = wrong
    source = dataclasses.replace(source, **{split: data.in_memory(images, labels)})
    with pytest.raises(
        ExperimentError, match=f"{split} split of digits has the label {wrong}, but the classes are 0..9"
    ):
        data.pipelines(source, DIGITS)


@pytest.mark.parametrize(
    "labels, missing", [(np.arange(70) % 9, "9"), (np.arange(70) % 2, "2, 3, 4 and 5 more"), (np.arange(70) % 10, None)]
)
def test_classes_without_a_training_image_are_told(labels, missing):
    source = dataclasses.replace(
        data.open_source(DIGITS), train=data.in_memory(np.zeros((70, 8, 8, 1), np.uint8), labels)
    )
    notes = data.pipelines(source, DIGITS).notes
    told = f"note: no training image of class {missing} in digits: there are only {len(set(labels))} of 10 classes"
    assert notes == ((told,) if missing else ())


@pytest.mark.parametrize(
    "split, effect",
    [("validation", "epochs are judged by these classes only"), ("test", "the test result covers these classes only")],
)
def test_classes_that_only_other_splits_have_are_told(split, effect):
    source = data.open_source(DIGITS)
    sorted_out = dataclasses.replace(
        source, **{split: data.in_memory(np.zeros((100, 8, 8, 1), np.uint8), np.full(100, 4))}
    )
    (note,) = data.pipelines(sorted_out, DIGITS).notes
    assert note == (
        f"note: no {split} image of class 0, 1, 2 and 6 more in digits: there are only 1 of 10 classes; {effect}"
    )


def test_a_class_that_would_be_two_lines_of_labels_txt_is_refused():
    source = data.open_source(DIGITS)
    for name, told in (
        ("a\nb", "line break"),
        ("a\u2028b", "line break"),
        (" ", "no line is empty"),
        ("\udce4", "not valid UTF-8"),
    ):
        with pytest.raises(ExperimentError, match=told):
            dataclasses.replace(source, label_names=[name, *source.label_names[1:]])


def test_a_set_of_one_class_is_refused():
    source = dataclasses.replace(data.open_source(DIGITS), label_names=["all"])
    with pytest.raises(ExperimentError, match="digits has 1 class; two or more are needed"):
        data.pipelines(source, DIGITS)


@pytest.mark.parametrize("limit, kept", [(-1, "streamed"), (0, "kept")])
def test_splits_that_fit_in_memory_together_are_kept(monkeypatch, limit, kept):
    """Of the digits, 64 bytes each, those of the test come first."""
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 64 * (360 + 144) + limit)
    notes = load().notes
    streamed = "train" if kept == "kept" else "validation, train"
    assert [note.split(" would")[0] for note in notes] == [f"note: {streamed} of digits"]


def imagenet(data_dir, **changes):
    fields = {"batch_size": 8, "image_size": 28, "validation_fraction": 0.2, **changes}
    return DataSpec("imagenet2012", data_dir=data_dir, **fields)


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(second), strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
def test_streamed_batches_are_a_function_of_seed_and_epoch(imagenet_dir):
    splits, again = (data.load(imagenet(imagenet_dir)) for _ in range(2))
    assert same(splits.train(3), splits.train(3)) and same(splits.train(3), again.train(3))
    assert same(splits.calibration, again.calibration)
    assert not same(splits.train(3), splits.train(4))
    assert not same(splits.train(3), data.load(imagenet(imagenet_dir, seed=1)).train(3))
    assert [len(labels) for _, labels in splits.train(0)] == [8] * splits.steps_per_epoch == [8] * 4


@pytest.mark.slow
def test_streamed_images_are_those_that_would_be_kept(imagenet_dir, monkeypatch):
    """The order of training may differ, the pictures may not."""
    spec = imagenet(imagenet_dir)
    kept = data.load(spec)
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    streamed = data.load(spec)
    assert any("test, validation, train of imagenet2012 would take more than 0 GiB" in note for note in streamed.notes)
    assert not any("would take" in note for note in kept.notes)
    assert same(kept.validation, streamed.validation) and same(kept.test, streamed.test)
    assert sorted(pictures(kept.calibration)) == sorted(pictures(streamed.calibration))
    assert kept.fingerprint == streamed.fingerprint  # of fewer than 1,000 images


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
def test_streamed_epoch_sees_every_image_once_also_with_a_short_buffer(imagenet_dir):
    source = data.open_source(imagenet(imagenet_dir))
    source = dataclasses.replace(source, train=dataclasses.replace(source.train, buffer=4))
    splits = data.pipelines(source, imagenet(imagenet_dir))
    labels = [sorted(arrays(splits.train(epoch))[1]) for epoch in range(2)]
    assert labels[0] == labels[1] == sorted(arrays(splits.calibration)[1])


def test_files_of_a_streamed_set_are_read_in_another_order_each_epoch(imagenet_dir):
    """A buffer of one leaves the order to the files of the set."""
    source = data.open_source(imagenet(imagenet_dir))
    orders = [[len(image) for image, _ in source.train.read(seed).as_numpy_iterator()] for seed in (None, 1, 1, 2)]
    assert orders[1] == orders[2]
    assert len({tuple(order) for order in orders}) > 1
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[3])


def counting(examples, decoded):
    """The same examples, which leave a mark in `decoded` for each that is decoded."""

    def decode(image):
        tf.py_function(lambda: decoded.append(1), [], [])
        return examples.decode(image)

    return dataclasses.replace(examples, decode=decode)


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("first_step", [0, 2, 3])
def test_what_was_trained_before_a_resume_is_not_decoded_again(imagenet_dir, first_step):
    decoded = []
    source, spec = data.open_source(imagenet(imagenet_dir)), imagenet(imagenet_dir)
    splits = data.pipelines(dataclasses.replace(source, train=counting(source.train, decoded)), spec)
    assert len(list(splits.train(0, first_step))) == 4 - first_step
    assert len(decoded) == 8 * (4 - first_step)


@pytest.mark.slow
def test_a_resume_decodes_what_is_left_of_its_epoch_and_nothing_else_of_sound_pictures(imagenet_dir):
    """Also of a set that is small enough to be kept: the kept pictures are those of the first whole epoch."""
    decoded = []
    source, spec = data.open_source(imagenet(imagenet_dir)), imagenet(imagenet_dir)
    whole = list(data.pipelines(source, spec).train(0).as_numpy_iterator())
    scanned = dataclasses.replace(source, train=counting(source.train, decoded), is_sound=True)
    splits = data.pipelines(scanned, spec)
    assert decoded == []
    left = list(splits.train(0, 3).as_numpy_iterator())
    assert len(decoded) == 8
    again = list(splits.train(0).as_numpy_iterator())
    for found, expected in zip([*left, *again], [whole[3], *whole], strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.slow
def test_epochs_cut_short_decode_what_they_read_until_all_are_decoded_and_kept(imagenet_dir):
    decoded, numbers = [], []
    source = dataclasses.replace(data.open_source(imagenet(imagenet_dir)), is_sound=True)
    counted = dataclasses.replace(source, train=counting(source.train, decoded))
    short, whole = (
        data.pipelines(counted, imagenet(imagenet_dir, max_steps=2)),
        data.pipelines(source, imagenet(imagenet_dir)),
    )
    for epoch in range(3):
        found = arrays(short.train(epoch))
        numbers.append(len(decoded) - sum(numbers))
        np.testing.assert_array_equal(found[0], arrays(whole.train(epoch).take(2))[0])
    assert 2 * 8 <= numbers[0] < 3 * 8  # some are decoded ahead
    assert numbers[1:] == [4 * 8, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("number, first_step", [(2, 0), (2, 3), (4, 1)])
def test_shares_decode_their_own_pictures_and_are_the_whole_batches_together(imagenet_dir, number, first_step):
    source, spec = data.open_source(imagenet(imagenet_dir)), imagenet(imagenet_dir, horizontal_flip=True)
    whole, shares = list(data.pipelines(source, spec).train(1, first_step).as_numpy_iterator()), []
    for index in range(number):
        decoded = []
        splits = data.pipelines(dataclasses.replace(source, train=counting(source.train, decoded)), spec)
        shares.append(list(splits.train(1, first_step, (index, number)).as_numpy_iterator()))
        assert len(decoded) == 8 // number * (4 - first_step)
    for step, batch in enumerate(whole):
        for column, expected in enumerate(batch):
            parts = [share[step][column] for share in shares]
            assert {len(part) for part in parts} == {8 // number}
            np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_shares_of_a_kept_set_have_as_many_steps_where_the_last_batch_would_be_short(digits):
    spec = dataclasses.replace(DIGITS, batch_size=100)  # of 1,293 pictures
    splits = data.load(spec)
    whole = list(splits.train(0).as_numpy_iterator())
    parts = [list(splits.train(0, 0, (index, 2)).as_numpy_iterator()) for index in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 12
    for batch, first, second in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), batch[0])


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
def test_a_streamed_set_is_not_read_to_be_counted(imagenet_dir, monkeypatch):
    monkeypatch.setattr(pipeline, "DIGESTED", 5)
    decoded = []
    source = data.open_source(imagenet(imagenet_dir))
    counted = dataclasses.replace(
        source, train=counting(source.train, decoded), validation=counting(source.validation, decoded)
    )
    splits = data.pipelines(counted, imagenet(imagenet_dir))
    assert decoded == []
    next(iter(splits.validation))
    assert len(decoded) >= 8
    assert (splits.num_train, splits.fingerprint["num_test"], splits.fingerprint["digested"]) == (32, 12, 5)


def test_cifar10_is_whole(cifar10):
    assert cifar10.image_shape == (32, 32, 3)
    assert cifar10.label_names == "airplane automobile bird cat deer dog frog horse ship truck".split()
    assert (cifar10.num_train, cifar10.fingerprint["num_test"]) == (47_500, 10_000)
    images, labels = next(cifar10.test.as_numpy_iterator())
    assert images.shape == (128, 32, 32, 3) and images.dtype == np.uint8
    assert set(labels) <= set(range(10))


@pytest.mark.slow
def test_a_sample_is_of_training_pictures_as_validation_would_have_them(digits):
    source = data.open_source(DIGITS)
    images, labels = data.sample(source, DIGITS, 32)
    assert images.shape == (32, 8, 8, 1) and images.dtype == np.uint8 and labels.dtype == np.int64
    known = {
        image.tobytes(): label
        for batch in digits.calibration.as_numpy_iterator()
        for image, label in zip(*batch, strict=True)
    }
    assert [known[image.tobytes()] for image in images] == labels.tolist()
    np.testing.assert_array_equal(data.sample(source, dataclasses.replace(DIGITS, seed=5), 32)[0], images)
    assert len(data.sample(source, DIGITS, 10_000)[1]) == 1293


@pytest.mark.slow
def test_a_sample_is_resized_and_cropped_and_reads_no_more_than_it_gives(imagenet_dir):
    spec, decoded = imagenet(imagenet_dir), []
    source = data.open_source(spec)

    def decode(image):
        decoded.append(1)
        return source.train.decode(image)

    counted = dataclasses.replace(source, train=dataclasses.replace(source.train, decode=decode))
    images, labels = data.sample(counted, spec, 7)
    assert (images.shape, len(labels), len(decoded)) == ((7, 28, 28, 3), 7, 7)
    assert {image.tobytes() for image in images} <= set(pictures(data.load(spec).calibration))


def test_content_of_the_digits_is_known(digits):
    assert len(digits.fingerprint["content_sha256"]) == 64
    assert load(seed=4, validation_fraction=0.3).fingerprint["content_sha256"] == digits.fingerprint["content_sha256"]


def test_digits_in_three_channels_are_grey(digits):
    splits = load(image_channels=3)
    images, grey = arrays(splits.test)[0], arrays(digits.test)[0]
    assert splits.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(images, np.repeat(grey, 3, axis=-1))
    assert arrays(splits.train(0))[0].shape[1:] == (8, 8, 3)


@pytest.mark.parametrize("limit", [pipeline.CACHE_BYTES, 0])
def test_images_of_each_class_are_counted_kept_or_streamed(monkeypatch, digits, limit):
    monkeypatch.setattr(pipeline, "CACHE_BYTES", limit)
    monkeypatch.setattr(pipeline, "DIGESTED", 100)
    _, labels = arrays(digits.calibration)
    assert load().num_by_class() == np.bincount(labels).tolist()
