"""The few layers that all families are made of, with their initialisers."""

import tensorflow as tf
import tf_keras
from tf_keras import layers

SMALLEST_PROBABILITY = 1e-30  # of float32, with room for its gradient


def pixels(input_shape, normalization):
    """Network input of pixels 0..255 and its normalisation, (x - mean) / std.

    Returns:
      (input tensor, normalised tensor).
    """
    inputs = tf_keras.Input(input_shape, name="pixels")
    return inputs, layers.Rescaling(*scale_and_offset(normalization), name="normalization")(inputs)


def scale_and_offset(normalization):
    """Arguments of a Rescaling layer: scalars if one value serves all channels, else a list each."""
    scale = [1.0 / std for std in normalization.std]
    offset = [-mean / std for mean, std in zip(normalization.mean, normalization.std, strict=True)]
    return (scale[0], offset[0]) if len(scale) == 1 else (scale, offset)


def multiple_of_8(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, never less than nine tenths of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def conv(x, channels: int, size: int, stride: int, name: str, padding: str = "same", use_bias: bool = False):
    return layers.Conv2D(channels, size, stride, padding, use_bias=use_bias, kernel_initializer="he_normal", name=name)(
        x
    )


def batch_norm(x, name: str, epsilon: float = 1e-3):
    return layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name=name)(x)


@tf_keras.utils.register_keras_serializable("qkd_tf")
class Logarithm(layers.Layer):
    """Logits from probabilities: the logarithms, whose softmax gives them back."""

    def call(self, probabilities):
        return tf.math.log(tf.maximum(probabilities, SMALLEST_PROBABILITY))
