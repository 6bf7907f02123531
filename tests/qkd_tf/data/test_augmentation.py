"""A user's own augmentation: what it may be, and that a batch is a function of seed, epoch and step alone."""

import dataclasses
import functools
import random

import numpy as np
import pytest
import tensorflow as tf

from qkd_tf import data
from qkd_tf.data import augmentation
from qkd_tf.experiment import DataSpec, ExperimentError

SHAPE = (4, 6, 3)
SPEC = DataSpec("digits", batch_size=8, augment="in_memory:mine")
GENERATOR = np.random.default_rng()


def brighter(images, seed):
    return tf.image.stateless_random_brightness(images, 0.3, seed)


def look(function, spec=SPEC):
    return augmentation.open_augmentation(spec, SHAPE, function)


def test_no_function_is_none():
    assert look(None, dataclasses.replace(SPEC, augment="")) is None


class Layers:
    """As the augmentation layers of a student."""

    told = "flip (RandomFlip)"

    def __call__(self, images, seed):
        return tf.image.stateless_random_flip_left_right(images, seed)


def test_layers_of_the_student_follow_the_users_function():
    both, one = (look(brighter).graphs, augmentation.open_augmentation(SPEC, SHAPE, brighter, Layers()))
    assert len(one.graphs) == len(both) + 1 and one.sha256 != look(brighter).sha256
    (note,) = one.notes
    assert note.startswith("note: training pictures are augmented by the student's own layers, as in Keras: flip (R")
    alone = augmentation.open_augmentation(dataclasses.replace(SPEC, augment=""), SHAPE, None, Layers())
    images = np.random.default_rng(1).integers(0, 256, (8, *SHAPE)).astype(np.uint8)
    seed, share = tf.constant([5, 6]), (0, 1)
    assert np.array_equal(np.sort(alone(images, seed, share).numpy(), axis=2), np.sort(images, axis=2))
    assert not np.array_equal(one(images, seed, share).numpy(), look(brighter)(images, seed, share).numpy())


@pytest.mark.parametrize(
    "changes, off",
    [
        ({}, "mirrored (--horizontal_flip) or shifted (--crop_padding)"),
        ({"horizontal_flip": True}, "shifted (--crop_padding)"),
        ({"crop_padding": 4}, "mirrored (--horizontal_flip)"),
        ({"image_size": 8}, "mirrored (--horizontal_flip)"),
        ({"horizontal_flip": True, "crop_padding": 4}, None),
        ({"name": "in_memory:x"}, None),
    ],
)
def test_what_is_not_done_beside_layers_of_the_student_is_told(changes, off):
    plain = {"augment": "", "name": "folder:x", "horizontal_flip": None, "crop_padding": None}
    spec = dataclasses.replace(SPEC, **plain | changes).beside_layers()
    _, *notes = augmentation.open_augmentation(spec, SHAPE, None, Layers()).notes
    told = f"note: beside these layers training pictures are not {off}, unless you ask for it"
    assert notes == ([told] if off else [])


def test_layers_of_the_student_can_be_left_out():
    spec = dataclasses.replace(SPEC, augment="", student_augmentation=False)
    assert augmentation.open_augmentation(spec, SHAPE, None, Layers()) is None


def test_function_gets_whole_batches_of_bytes_and_a_seed_of_two():
    seen = []

    def augment(images, seed):
        seen.append((images.dtype.name, tuple(images.shape), seed.dtype.name, tuple(seed.shape)))
        return images

    assert look(augment).notes == (
        "note: --augment=mine ignores its seed: a picture is changed in the same way every time",
    )
    assert set(seen) == {("uint8", (8, *SHAPE), "int32", (2,))}


def test_functions_that_do_the_same_are_the_same_and_others_are_not():
    assert look(brighter).notes == ()
    assert look(brighter).sha256 == look(lambda images, seed: brighter(images, seed)).sha256
    assert look(brighter).sha256 != look(lambda images, seed: brighter(images, seed + 1)).sha256


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda images: images, r"is called as augment\(images, seed\), and too many positional arguments; give"),
        (lambda images, seed: images.numpy(), "has no attribute 'numpy'.*; use only TensorFlow operations"),
        (lambda images, seed: np.asarray(images), "symbolic"),
        (lambda images, seed: None, "returns NoneType; one tensor of images is expected"),
        (lambda images, seed: (images, seed), "returns tuple; one tensor of images is expected"),
        (
            lambda images, seed: tf.cast(images, tf.float32) / 255,
            r"turns uint8 \(8, 4, 6, 3\) into float32 \(8, 4, 6, 3\) from 0 to 1; .* tf.saturate_cast",
        ),
        (lambda images, seed: tf.cast(images, tf.int32) - 300, "turns uint8 .* into int32 .* from -300 to -45"),
        (lambda images, seed: images[:, 1:], r"turns uint8 .* into uint8 \(8, 3, 6, 3\)"),
        (lambda images, seed: images[0], r"turns uint8 .* into uint8 \(4, 6, 3\)"),
        (lambda images, seed: tf.roll(images, random.randrange(6), 2), "random numbers that do not depend on its seed"),
        (
            lambda images, seed: images ^ np.uint8(np.random.randint(255)),
            "random numbers that do not depend on its seed",
        ),
        (
            lambda images, seed: images ^ GENERATOR.integers(1, 255, SHAPE, np.uint8),
            "random numbers that do not depend on its seed",
        ),
        (
            lambda images, seed: images ^ tf.cast(tf.random.uniform(SHAPE, 0, 255, tf.int32), tf.uint8),
            "random numbers that do not depend on its seed",
        ),
        (
            lambda images, seed: tf.image.random_flip_left_right(images, seed=1),
            "random numbers that do not depend on its seed",
        ),
    ],
)
def test_function_that_would_not_do_is_refused_in_a_line(function, message):
    with pytest.raises(ExperimentError, match=message.replace("(images, seed)", r"\(images, seed\)")) as caught:
        look(function)
    assert str(caught.value).startswith("--augment=mine ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, message",
    [
        ("nets.py:augment", "--augment: nets.py:augment begins with a file's path; give nets:augment"),
        ("math:augment", "math:augment cannot be imported: .* give package.module:function"),
        ("augment", "augment cannot be imported"),
        ("in_memory:mine", "--augment=in_memory:mine was given in Python and is not saved"),
    ],
)
def test_name_of_nothing_is_told(name, message):
    with pytest.raises(ExperimentError, match=message):
        look(None, dataclasses.replace(SPEC, augment=name))


def test_graph_may_branch_on_its_seed():
    def augment(images, seed):
        if tf.random.stateless_uniform([], seed) < 0.5:
            images = images[:, ::-1]
        return images

    assert look(augment)


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """batches(epoch, step, share, **changes): images of an epoch of the digits, by a function of a module."""
    (tmp_path / "own_looks.py").write_text(
        "import tensorflow as tf\n\n\ndef noise(images, seed):\n"
        "    return images ^ tf.cast(tf.random.stateless_uniform(tf.shape(images), seed, 0, 256, tf.int32), tf.uint8)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    @functools.cache
    def opened(augment, seed):
        return data.load(DataSpec("digits", batch_size=256, augment=augment, seed=seed))

    def read(epoch, step=0, share=(0, 1), augment="own_looks:noise", seed=0):
        return [images for images, _ in opened(augment, seed).train(epoch, step, share).as_numpy_iterator()]

    read.opened = opened
    return read


@pytest.mark.slow
def test_epoch_is_the_same_again_from_any_step_and_another_by_epoch_and_seed(batches):
    whole = batches(3)
    assert [image.tobytes() for image in batches(3, 2)] == [image.tobytes() for image in whole[2:]]
    assert not any(np.array_equal(a, b) for a, b in zip(whole, batches(4), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(whole, batches(3, seed=1), strict=True))
    halves = [batches(3, 0, (index, 2))[0] for index in range(2)]
    plain = [batches(3, 0, (index, 2), augment="")[0] for index in range(2)]
    assert not np.array_equal(halves[0] ^ plain[0], halves[1] ^ plain[1])  # noise of each share's own


def test_images_are_cropped_and_mirrored_before_and_what_is_tested_is_left_alone(batches):
    plain, noisy = batches(0, augment=""), batches(0)
    seeds = {(image ^ other).tobytes() for image, other in zip(plain, noisy, strict=True)}
    assert len(seeds) == len(plain)  # another seed for each step
    own, none = (batches.opened(name, 0) for name in ("own_looks:noise", ""))
    for kind in ("calibration", "validation", "test"):
        pairs = zip(getattr(own, kind).as_numpy_iterator(), getattr(none, kind).as_numpy_iterator(), strict=True)
        assert all(np.array_equal(a, b) for (a, _), (b, _) in pairs)
    assert own.augmentation and own.spec.augment == "" and none.augmentation is None
