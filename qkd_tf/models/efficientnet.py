"""EfficientNet (Tan and Le 2019) and EfficientNet-Lite, which has ReLU6 and no squeeze-excite."""

import math

import tf_keras
from tf_keras import layers

from qkd_tf.models.layers import batch_norm, conv, multiple_of_8, pixels

# Expansion, channels, blocks, stride of the first, kernel: table 1 of the paper.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
SQUEEZE = 0.25  # of a block's input channels
DROP_CONNECT = 0.2  # of the last block; it grows from 0 by equal steps


def _activate(x, name: str, lite: bool):
    return layers.ReLU(6.0, name=name)(x) if lite else layers.Activation("swish", name=name)(x)


def _window(x, size: int, stride: int, name: str, lite: bool):
    """(x, padding): strided windows are padded explicitly as tf_keras.applications does; Lite is 'same' throughout."""
    if stride == 1 or lite:
        return x, "same"
    pads = tuple((size // 2 - (1 - side % 2), size // 2) for side in x.shape[1:3])
    return layers.ZeroPadding2D(pads, name=f"{name}_pad")(x), "valid"


def _squeeze_excite(x, channels: int, name: str):
    """A gate in (0, 1) for each channel, computed from the map's averages."""
    gate = layers.GlobalAveragePooling2D(name=f"{name}_squeeze")(x)
    gate = layers.Reshape((1, 1, x.shape[-1]), name=f"{name}_reshape")(gate)
    gate = conv(gate, channels, 1, 1, f"{name}_reduce", use_bias=True)
    gate = layers.Activation("swish", name=f"{name}_reduce_activation")(gate)
    gate = conv(gate, x.shape[-1], 1, 1, f"{name}_expand", use_bias=True)
    gate = layers.Activation("sigmoid", name=f"{name}_expand_activation")(gate)
    return layers.Multiply(name=f"{name}_excite")([x, gate])


def _block(x, expansion: int, channels: int, stride: int, size: int, drop: float, name: str, lite: bool):
    """Inverted residual: 1x1 expansion, depthwise, gate, linear 1x1 projection."""
    y = x
    if expansion > 1:
        y = batch_norm(conv(y, expansion * x.shape[-1], 1, 1, f"{name}_expand_conv"), f"{name}_expand_bn")
        y = _activate(y, f"{name}_expand_activation", lite)
    y, padding = _window(y, size, stride, f"{name}_dwconv", lite)
    y = layers.DepthwiseConv2D(
        size, stride, padding, use_bias=False, depthwise_initializer="he_normal", name=f"{name}_dwconv"
    )(y)
    y = _activate(batch_norm(y, f"{name}_bn"), f"{name}_activation", lite)
    if not lite:
        y = _squeeze_excite(y, max(1, int(x.shape[-1] * SQUEEZE)), f"{name}_se")
    y = batch_norm(conv(y, channels, 1, 1, f"{name}_project_conv"), f"{name}_project_bn")
    if stride > 1 or x.shape[-1] != channels:
        return y
    if drop:
        y = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(y)
    return layers.Add(name=f"{name}_add")([y, x])


def build_efficientnet(
    input_shape, num_classes, normalization, *, name: str, width: float, depth: float, dropout: float, lite=False
) -> tf_keras.Model:
    """Stem, seven stages of inverted residuals, 1x1 head, average, logits.

    Layers have the names of tf_keras.applications.EfficientNetB0, so that its weights fit by name.

    Args:
      input_shape: (H, W, C); published for 224 (B0, Lite0), 240 (1) and 260 (2).
      normalization: `PixelNormalization` of the network's input.
      width, depth: multipliers of channels and of blocks; Lite leaves stem, head, and the blocks of the first and last
        stage as they are.
      dropout: rate before the logits.
      lite: ReLU6 for swish, no squeeze-excite.

    Returns:
      Model from pixels [N, H, W, C], 0..255, to logits [N, num_classes].
    """
    inputs, x = pixels(input_shape, normalization)
    x, padding = _window(x, 3, 2, "stem_conv", lite)
    x = conv(x, STEM_CHANNELS if lite else multiple_of_8(width * STEM_CHANNELS), 3, 2, "stem_conv", padding=padding)
    x = _activate(batch_norm(x, "stem_bn"), "stem_activation", lite)
    fixed = (0, len(STAGES) - 1) if lite else ()
    repeats = [s[2] if i in fixed else math.ceil(depth * s[2]) for i, s in enumerate(STAGES)]
    number, total = 0, sum(repeats)
    for stage, (expansion, channels, _, stride, size) in enumerate(STAGES):
        for index in range(repeats[stage]):
            x = _block(
                x,
                expansion,
                multiple_of_8(width * channels),
                stride if index == 0 else 1,
                size,
                DROP_CONNECT * number / total,
                f"block{stage + 1}{chr(ord('a') + index)}",
                lite,
            )
            number += 1
    x = conv(x, HEAD_CHANNELS if lite else multiple_of_8(width * HEAD_CHANNELS), 1, 1, "top_conv")
    x = _activate(batch_norm(x, "top_bn"), "top_activation", lite)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="top_dropout")(x)
    return tf_keras.Model(inputs, layers.Dense(num_classes, name="predictions")(x), name=name)
