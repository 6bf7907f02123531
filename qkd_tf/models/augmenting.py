"""The augmentation layers at a model's beginning, as a function of pictures and a seed.

Keras draws their random numbers from generators with a state. Here they depend on the seed alone, so that a training
can be resumed exactly.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_keras import layers

from qkd_tf.models.copier import maker
from qkd_tf.models.normalization import NORMALIZING, Affine, scale_and_offset

# Layers that move pixels, whatever these mean, and layers that only know pixels from 0 to 255.
MOVING = (layers.RandomFlip, layers.RandomRotation, layers.RandomTranslation, layers.RandomZoom)
OF_PIXELS = (layers.RandomBrightness, layers.RandomContrast)
PIXEL_RANGE = (0, 255)


@dataclasses.dataclass(frozen=True, eq=False)
class Augmenting:
    """Augmentation layers of a model, as augment(images, seed).

    Attributes:
      steps: each of the user's layers, with the map from pixels to what it reads.
    """

    steps: Sequence[tuple[layers.Layer, Affine]]

    @property
    def told(self) -> str:
        return ", ".join(f"{layer.name} ({type(layer).__name__})" for layer, _ in self.steps)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Pixels [N, H, W, C] uint8 in and out; seed is [2] int32."""
        pixels = tf.cast(images, tf.float32)
        for number, (layer, reads) in enumerate(self.steps):
            scale, offset = (tf.constant(values, tf.float32) for values in (reads.scale, reads.offset))
            own = _seeded(layer, tf.random.experimental.stateless_fold_in(seed, number))
            pixels = (own(pixels * scale + offset, training=True) - offset) / scale
        return tf.saturate_cast(tf.round(pixels), tf.uint8)


def at_front(layer: layers.Layer, tensor) -> Affine | None:
    """The map from a model's input to what an augmentation layer reads; None if the layer cannot be applied there.

    Args:
      tensor: what the layer reads, [N, H, W, C]. Between the model's input and this, layers may only normalise.
    """
    return _normalization(tensor) if isinstance(layer, MOVING + OF_PIXELS) else None


def fits(layer: layers.Layer, reads: Affine) -> bool:
    """Whether an augmentation layer does what it says on what it reads.

    Args:
      reads: the map from pixels to that.
    """
    if not isinstance(layer, OF_PIXELS):
        return True
    value_range = tuple(layer.get_config().get("value_range", PIXEL_RANGE))
    return value_range == PIXEL_RANGE and reads.is_as(Affine.identity(len(reads.scale)))


def _normalization(tensor) -> Affine | None:
    """The map from a model's input to a tensor [N, H, W, C]; None if it is more than a normalisation."""
    if len(tensor.shape) != 4:
        return None
    steps = []
    while not isinstance(layer := maker(tensor), layers.InputLayer):
        if not isinstance(layer, NORMALIZING):
            return None
        steps.append(layer)
        tensor = layer.input
    channels = tensor.shape[-1]
    affine = Affine.identity(channels)
    for layer in reversed(steps):
        affine = affine.then(*scale_and_offset(layer, channels))
    return affine


def _seeded(layer: layers.Layer, seed: tf.Tensor) -> layers.Layer:
    """A copy whose random numbers depend on the seed alone."""
    copy = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    copy._random_generator = _Generator(seed)  # Keras has no public way to it
    return copy


class _Generator:
    """As tf_keras.backend.RandomGenerator, of which the layers above use these methods."""

    def __init__(self, seed: tf.Tensor):
        self._seed, self._drawn = seed, 0

    def _maybe_init(self) -> None:
        pass

    def make_seed_for_stateless_op(self) -> tf.Tensor:
        self._drawn += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._drawn)

    def random_uniform(self, shape: Any, minval: float = 0.0, maxval: float = 1.0, **_: Any) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, self.make_seed_for_stateless_op(), minval, maxval)
