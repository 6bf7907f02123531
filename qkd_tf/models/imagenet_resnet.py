"""Residual networks for ImageNet (He et al. 2015, table 1), and the same with a stem for small pictures."""

import tf_keras
from tf_keras import layers

from qkd_tf.models.layers import batch_norm, conv, pixels

EPSILON = 1e-5  # of the published PyTorch weights
STAGE_CHANNELS = (64, 128, 256, 512)
EXPANSION = 4  # of a bottleneck's output over its 3x3 convolution


def _conv_bn(x, channels: int, size: int, stride: int, name: str, bn: str):
    """Convolution and BatchNormalization; strided 3x3 ones are padded by 1 on each side, as published weights need."""
    if stride > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        return batch_norm(conv(x, channels, size, stride, name, padding="valid"), bn, EPSILON)
    return batch_norm(conv(x, channels, size, stride, name), bn, EPSILON)


def _basic(x, channels: int, stride: int, name: str):
    y = _conv_bn(x, channels, 3, stride, f"{name}_conv1", f"{name}_bn1")
    y = layers.ReLU(name=f"{name}_relu1")(y)
    return _conv_bn(y, channels, 3, 1, f"{name}_conv2", f"{name}_bn2")


def _bottleneck(x, channels: int, stride: int, name: str):
    """1x1, 3x3, 1x1; the stride is in the first of them (version 1)."""
    y = _conv_bn(x, channels, 1, stride, f"{name}_conv1", f"{name}_bn1")
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = layers.ReLU(name=f"{name}_relu2")(_conv_bn(y, channels, 3, 1, f"{name}_conv2", f"{name}_bn2"))
    return _conv_bn(y, EXPANSION * channels, 1, 1, f"{name}_conv3", f"{name}_bn3")


BLOCKS = {"basic": _basic, "bottleneck": _bottleneck}


def _residual(x, block: str, channels: int, stride: int, name: str):
    y = BLOCKS[block](x, channels, stride, name)
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        # Made, and added, after the main path: the order in which PyTorch's files have them.
        x = _conv_bn(x, y.shape[-1], 1, stride, f"{name}_projection", f"{name}_projection_bn")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([y, x]))


def build_imagenet_resnet(
    input_shape, num_classes, normalization, *, name: str, block: str, stages: tuple[int, ...], small_pictures=False
) -> tf_keras.Model:
    """Stem, four stages of 64, 128, 256 and 512 channels (times 4 with bottlenecks), average, logits; no biases.

    Args:
      input_shape: (H, W, C); published for 224.
      normalization: `PixelNormalization` of the network's input.
      block: a key of BLOCKS.
      stages: blocks of each stage.
      small_pictures: a 3x3 stem at stride 1 without max-pooling, for 32x32 pixels.

    Returns:
      Model from pixels [N, H, W, C], 0..255, to logits [N, num_classes].
    """
    inputs, x = pixels(input_shape, normalization)
    if small_pictures:
        x = layers.ReLU(name="stem_relu")(_conv_bn(x, STAGE_CHANNELS[0], 3, 1, "stem_conv", "stem_bn"))
    else:
        x = layers.ReLU(name="stem_relu")(_conv_bn(x, STAGE_CHANNELS[0], 7, 2, "stem_conv", "stem_bn"))
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage, (channels, num_blocks) in enumerate(zip(STAGE_CHANNELS, stages, strict=True), start=1):
        for index in range(1, num_blocks + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = _residual(x, block, channels, stride, f"stage{stage}_block{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name=name)
