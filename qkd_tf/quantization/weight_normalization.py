"""Weights of zero mean and one deviation, before they are rounded (APoT, Li et al. 2020, arXiv 1909.13144).

The straight-through gradient moves a kernel's mean and size as it does single weights, and an interval has to follow
both. Normalized weights keep both. BatchNormalization behind the kernel undoes the change of scale, and its statistics
have to be measured anew (`batch_norm.BatchNormShift`): a mean that is taken away changes the network.

Optimizers update the weights as they were; only what is rounded is normalized. So gradients pass through mean and
deviation, as in weight standardization (Qiao et al. 2019, arXiv 1903.10520). APoT treats both as constants.
"""

import math

import tensorflow as tf
import tf_keras

from qkd_tf.contract.grid import MAX_BITS, IntegerGrid

_layers = tf_keras.layers


def is_normalizable(layer: tf_keras.layers.Layer, grid: IntegerGrid) -> bool:
    """Whether a kernel may be normalized: a BatchNormalization with gamma that is not frozen is its only reader.

    Kernels of 8 bits, by default the first and last layer's, stay as they are: they have enough integers.

    Args:
      layer: one with a kernel, in a model of its own.
      grid: the kernel's.
    """
    readers = [node.outbound_layer for node in layer.outbound_nodes]
    if len(readers) != 1 or not isinstance(readers[0], _layers.BatchNormalization):
        return False
    return readers[0].scale and readers[0].trainable and grid.num_bits < MAX_BITS


def normalized(kernel: tf.Tensor, num_channel_axes: int, by_channel: bool) -> tf.Tensor:
    """(w - mean) / deviation / sqrt(n), where n is the number of weights of a channel.

    Normalizing twice equals normalizing once, except for the last bits. A constant kernel or channel becomes 0.

    Args:
      kernel: float32, any shape; its last axes are those of output channels.
      num_channel_axes: how many: 2 for a depthwise kernel, else 1.
      by_channel: whether each channel has its own mean and deviation, or all have those of the kernel.
    """
    weights = list(range(kernel.shape.rank - num_channel_axes))
    axes = weights if by_channel else None
    centered = kernel - tf.reduce_mean(kernel, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axes, keepdims=True)
    is_alive = variance > 0
    inverse = tf.where(is_alive, tf.math.rsqrt(tf.where(is_alive, variance, 1.0)), 0.0)
    return centered * inverse / math.sqrt(math.prod(kernel.shape[axis] for axis in weights))
