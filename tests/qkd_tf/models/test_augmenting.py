"""A model's augmentation layers: which are at its beginning, and that pictures depend on the seed alone."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf import networks
from qkd_tf.experiment import NetworkSpec, PixelNormalization
from qkd_tf.models.augmenting import Augmenting
from qkd_tf.models.normalization import Affine

SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (64, *SHAPE)).astype(np.uint8)
HALVES = Affine(np.full(3, 1 / 128), np.full(3, -1.0))

PIXELS = PixelNormalization((0.0,), (1.0,))


def made(*steps, seed=(1, 2), images=IMAGES):
    augment = tf.function(Augmenting(steps))
    return augment(tf.constant(images), tf.constant(seed)).numpy()


def of_student(*front, normalization=PIXELS):
    """The augmentation layers that are found in a classifier with these layers at its beginning."""
    rest = (layers.Conv2D(2, 3), layers.GlobalAveragePooling2D(), layers.Dense(2))
    model = tf_keras.Sequential([layers.Input(SHAPE), *front, *rest])
    network = networks.build_student(NetworkSpec("in_memory:mine", normalization), SHAPE, 2, model)
    return network.augmenting


@pytest.mark.parametrize("reads", [Affine.identity(3), HALVES])
def test_a_flip_mirrors_half_of_the_pictures_and_changes_no_pixel(reads):
    found = made((layers.RandomFlip("horizontal"), reads))
    mirrored = [np.array_equal(one, image[:, ::-1]) for one, image in zip(found, IMAGES, strict=True)]
    kept = [np.array_equal(one, image) for one, image in zip(found, IMAGES, strict=True)]
    assert np.all(np.logical_xor(mirrored, kept)) and 16 < sum(kept) < 48


@pytest.mark.parametrize(
    "layer",
    [
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomTranslation(0.2, 0.2),
        layers.RandomZoom(0.3, 0.3),
        layers.RandomContrast(0.5),
        layers.RandomBrightness(0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_pictures_depend_on_the_seed_alone(layer):
    step = (layer, Affine.identity(3))
    assert np.array_equal(made(step), made(step))
    assert not np.array_equal(made(step), made(step, seed=(1, 3)))
    assert made(step).dtype == np.uint8 and not np.array_equal(made(step), IMAGES)


def test_layers_of_one_kind_draw_different_numbers():
    flip = (layers.RandomFlip("horizontal"), Affine.identity(3))
    assert not np.array_equal(made(flip, flip), IMAGES)  # each picture would be mirrored back


def test_a_layer_behind_a_normalisation_fills_what_it_uncovers_with_its_own_zero():
    shift = layers.RandomTranslation((0.5, 0.5), 0.0, fill_mode="constant", fill_value=0.0)
    white = np.full((2, *SHAPE), 255, np.uint8)
    assert set(np.unique(made((shift, Affine.identity(3)), images=white))) == {0, 255}
    assert set(np.unique(made((shift, HALVES), images=white))) == {128, 255}


def test_layers_at_the_beginning_are_found_through_nested_models_and_normalisation():
    nested = tf_keras.Sequential([layers.RandomFlip(name="flip"), layers.RandomContrast(0.1, name="contrast")])
    found = of_student(nested, layers.Rescaling(1 / 128, -1), layers.RandomZoom(0.1, name="zoom"))
    assert found.told == "flip (RandomFlip), contrast (RandomContrast), zoom (RandomZoom)"
    assert [reads.is_as(Affine.identity(3)) for _, reads in found.steps] == [True, True, False]
    assert found.steps[-1][1].is_as(HALVES)


def test_pixels_that_are_normalised_outside_of_the_model_are_normalised_for_its_layers_too():
    found = of_student(layers.RandomFlip(), normalization=PixelNormalization((127.0,), (128.0,)))
    ((_, reads),) = found.steps
    assert reads.is_as(Affine(np.full(3, 1 / 128), np.full(3, -127 / 128)))


def test_layers_that_only_know_pixels_are_told_and_not_applied_where_the_model_reads_other_numbers():
    model = tf_keras.Sequential([layers.Input(SHAPE), layers.RandomContrast(0.1, name="contrast"), layers.Flatten()])
    model.add(layers.Dense(2))
    for mean, std, is_applied in ((0.0, 1.0, True), (127.0, 128.0, False)):
        spec = NetworkSpec("in_memory:mine", PixelNormalization((mean,), (std,)))
        network = networks.build_student(spec, SHAPE, 2, model)
        assert (network.augmenting is not None) == is_applied
        assert any("neither in training nor in the file: contrast" in note for note in network.notes) != is_applied


@pytest.mark.parametrize(
    "front",
    [
        (),
        (layers.Dropout(0.1),),
        (layers.GaussianNoise(0.1),),
        (layers.Rescaling(1 / 255), layers.RandomContrast(0.1)),
        (layers.RandomBrightness(0.1, value_range=(0, 1)),),
        (layers.Conv2D(3, 3), layers.RandomFlip()),
    ],
)
def test_other_layers_are_not_augmentation_of_pictures(front):
    assert of_student(*front) is None
