"""Grouped convolutions without XLA.

tf_keras leaves them to XLA, because TensorFlow once had no such kernel for CPUs. oneDNN has one now, forward and
backward; on a CPU XLA's takes 29 to 284 times as long (a training step of 64 maps; 2 groups of 32 channels, 32 groups
of 4). Where TensorFlow does not use oneDNN, as on processors without AVX-512, each group is a convolution of its own.
"""

import functools
from collections.abc import Callable

import tensorflow as tf
import tf_keras


def without_xla(model: tf_keras.Model) -> tf_keras.Model:
    """The same model; its grouped Conv2D layers, also nested and wrapped ones, no longer call XLA."""
    for layer in model.submodules:
        if isinstance(layer, tf_keras.layers.Conv2D) and layer.groups > 1:
            layer._jit_compiled_convolution_op = _convolution(layer)
    return model


def _convolution(layer: tf_keras.layers.Conv2D) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A layer's convolution: inputs [N, H, W, C] and kernel [h, w, C / groups, out] to outputs."""

    def at_once(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return layer.convolution_op(inputs, kernel)

    def by_group(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        parts = zip(tf.split(inputs, layer.groups, -1), tf.split(kernel, layer.groups, -1), strict=True)
        return tf.concat([layer.convolution_op(part, of_part) for part, of_part in parts], -1)

    return at_once if _has_kernel() else by_group


@functools.cache
def _has_kernel() -> bool:
    """Whether TensorFlow computes gradients of grouped convolutions here."""
    with tf.init_scope():
        try:
            tf.nn.conv2d_transpose(tf.ones([1, 3, 3, 4]), tf.ones([3, 3, 2, 4]), [1, 3, 3, 4], 1)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True
