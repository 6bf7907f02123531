"""A small convolutional network for small pictures."""

import tf_keras
from tf_keras import layers

from qkd_tf.models.layers import batch_norm, conv, pixels


def build_convnet(input_shape, num_classes, normalization, *, name: str, widths: tuple[int, ...]) -> tf_keras.Model:
    """One 3x3 convolution for each of `widths`, stride 2 where the width grows; average, logits.

    Returns:
      Model from pixels [N, H, W, C], 0..255, to logits [N, num_classes].
    """
    inputs, x = pixels(input_shape, normalization)
    previous = widths[0]
    for index, width in enumerate(widths, start=1):
        x = conv(x, width, 3, 2 if width > previous else 1, f"conv{index}")
        x = layers.ReLU(name=f"relu{index}")(batch_norm(x, f"bn{index}"))
        previous = width
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name=name)
