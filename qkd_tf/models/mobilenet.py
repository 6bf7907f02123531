"""MobileNetV2 (Sandler et al. 2018), for pictures of ImageNet's and of CIFAR's size."""

import tf_keras
from tf_keras import layers

from qkd_tf.models.layers import batch_norm, conv, multiple_of_8, pixels

# t, c, n, s of the paper's table 2: expansion, channels, blocks, stride of the first of them.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS, LAST_CHANNELS = 32, 1280


def _relu6(x, name: str):
    return layers.ReLU(6.0, name=name)(x)


def _block(x, expansion: int, channels: int, stride: int, name: str):
    """Inverted residual: 1x1 expansion, 3x3 depthwise, linear 1x1 projection."""
    y = x
    if expansion > 1:
        y = batch_norm(conv(y, expansion * x.shape[-1], 1, 1, f"{name}_expand"), f"{name}_expand_BN")
        y = _relu6(y, f"{name}_expand_relu")
    y = layers.DepthwiseConv2D(
        3, stride, "same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_depthwise"
    )(y)
    y = _relu6(batch_norm(y, f"{name}_depthwise_BN"), f"{name}_depthwise_relu")
    y = batch_norm(conv(y, channels, 1, 1, f"{name}_project"), f"{name}_project_BN")
    return layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and x.shape[-1] == channels else y


def build_mobilenet_v2(
    input_shape, num_classes, normalization, *, name: str, width: float, small_pictures: bool = False
) -> tf_keras.Model:
    """Stem, 17 inverted residual blocks, 1x1 convolution, average, logits.

    Layers have the names of tf_keras.applications.MobileNetV2, so that its weights fit by name.

    Args:
      input_shape: (H, W, C).
      normalization: `PixelNormalization` of the network's input.
      width: multiplier of all channels; of the last convolution only where it is above 1.
      small_pictures: stem and second stage at stride 1, for 32x32 pixels.

    Returns:
      Model from pixels [N, H, W, C], 0..255, to logits [N, num_classes].
    """
    inputs, x = pixels(input_shape, normalization)
    x = conv(x, multiple_of_8(width * STEM_CHANNELS), 3, 1 if small_pictures else 2, "Conv1")
    x = _relu6(batch_norm(x, "bn_Conv1"), "Conv1_relu")
    number = 0
    for stage, (expansion, channels, num_blocks, stride) in enumerate(STAGES):
        if small_pictures and stage == 1:
            stride = 1
        for index in range(num_blocks):
            block = f"block_{number}" if number else "expanded_conv"
            x = _block(x, expansion, multiple_of_8(width * channels), stride if index == 0 else 1, block)
            number += 1
    x = conv(x, multiple_of_8(max(width, 1.0) * LAST_CHANNELS), 1, 1, "Conv_1")
    x = _relu6(batch_norm(x, "Conv_1_bn"), "out_relu")
    x = layers.GlobalAveragePooling2D(name="global_average_pooling2d")(x)
    return tf_keras.Model(inputs, layers.Dense(num_classes, name="predictions")(x), name=name)
