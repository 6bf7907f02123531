"""The CIFAR family of residual networks (He et al. 2015, section 4.2) and MLPerf Tiny's ResNet-8."""

import tf_keras
from tf_keras import layers

from qkd_tf.models.layers import batch_norm, conv, pixels


def _pad_shortcut(x, channels: int, stride: int, name: str):
    """Identity shortcut: every stride-th pixel, zero channels on both sides."""
    missing = channels - x.shape[-1]
    if stride > 1:
        x = layers.MaxPooling2D(pool_size=1, strides=stride, name=f"{name}_subsample")(x)
    if missing:
        # Read as channels_first, the last axis is one that ZeroPadding2D pads: here, the channels.
        pad = ((0, 0), (missing // 2, missing - missing // 2))
        x = layers.ZeroPadding2D(pad, data_format="channels_first", name=f"{name}_pad_channels")(x)
    return x


def _pad_block(x, channels: int, stride: int, name: str):
    """Two 3x3 convolutions with the padding of the published PyTorch weights: 1 on each side, at stride 2 too."""
    y = x
    if stride > 1:
        y = layers.ZeroPadding2D(1, name=f"{name}_pad")(y)
    y = conv(y, channels, 3, stride, f"{name}_conv1", padding="same" if stride == 1 else "valid")
    y = layers.ReLU(name=f"{name}_relu1")(batch_norm(y, f"{name}_bn1", epsilon=1e-5))
    y = batch_norm(conv(y, channels, 3, 1, f"{name}_conv2"), f"{name}_bn2", epsilon=1e-5)
    y = layers.Add(name=f"{name}_add")([_pad_shortcut(x, channels, stride, name), y])
    return layers.ReLU(name=f"{name}_relu2")(y)


def _projection_block(x, channels: int, stride: int, name: str, use_bias: bool = False, project_batch_norm=True):
    """Two 3x3 convolutions; a strided 1x1 convolution on the shortcut where the shape changes."""
    y = conv(x, channels, 3, stride, f"{name}_conv1", use_bias=use_bias)
    y = layers.ReLU(name=f"{name}_relu1")(batch_norm(y, f"{name}_bn1"))
    y = conv(y, channels, 3, 1, f"{name}_conv2", use_bias=use_bias)
    if stride > 1 or x.shape[-1] != channels:
        x = conv(x, channels, 1, stride, f"{name}_projection", use_bias=not project_batch_norm)
        if project_batch_norm:
            x = batch_norm(x, f"{name}_projection_bn")
    y = layers.Add(name=f"{name}_add")([x, batch_norm(y, f"{name}_bn2")])
    return layers.ReLU(name=f"{name}_relu2")(y)


def _mlperf_block(x, channels: int, stride: int, name: str):
    return _projection_block(x, channels, stride, name, use_bias=True, project_batch_norm=False)


BLOCKS = {"pad": _pad_block, "projection": _projection_block, "mlperf": _mlperf_block}


def build_resnet(
    input_shape, num_classes, normalization, *, name: str, blocks_per_stage: int, block: str
) -> tf_keras.Model:
    """Stem, three stages of 16, 32 and 64 channels, average, logits.

    Args:
      input_shape: (H, W, C).
      normalization: `PixelNormalization` of the network's input.
      blocks_per_stage: n of He et al.'s 6n + 2 layers; 1 is ResNet-8.
      block: a key of BLOCKS.

    Returns:
      Model from pixels [N, H, W, C], 0..255, to logits [N, num_classes].
    """
    inputs, x = pixels(input_shape, normalization)
    epsilon = 1e-5 if block == "pad" else 1e-3
    x = conv(x, 16, 3, 1, "stem_conv", use_bias=block == "mlperf")
    x = layers.ReLU(name="stem_relu")(batch_norm(x, "stem_bn", epsilon))
    for stage, channels in enumerate((16, 32, 64), start=1):
        for index in range(1, blocks_per_stage + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = BLOCKS[block](x, channels, stride, f"stage{stage}_block{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name=name)
