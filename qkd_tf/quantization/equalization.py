"""Scales kernel channels to one size, so that one interval serves them all; BatchNormalization undoes it.

A kernel has one interval. If its channels differ a hundredfold, as in depthwise convolutions of float networks, the
small ones would all become 0. But before a BatchNormalization a channel may have any scale. So one interval can give
the same integers as one scale per channel (Krishnamoorthi 2018, arXiv 1806.08342).
"""

import collections
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.quantization.roles import has_kernel, parents

MAX_FACTOR = 2.0**20  # smaller channels are nothing beside BatchNormalization's epsilon, and squares must stay finite


def equalize_channels(model: tf_keras.Model, spread: float = 1.0) -> bool:
    """Scales kernels' output channels to their layer's largest weight. The model's function stays the same.

    A kernel stays as it is unless a BatchNormalization with gamma is the only reader of its output; so do channels of
    zeros.

    Args:
      model: float, in standard form.
      spread: nothing is done unless some kernel's largest channel is more than this many times its median one, without
        channels of zeros; 1 for any.

    Returns:
      Whether anything was scaled.
    """
    found = _normalized(model)
    is_uneven = any(_spread(_sizes(layer, batch_norm)) > spread for layer, batch_norm in found)
    for layer, batch_norm in found if is_uneven else ():
        sizes = _sizes(layer, batch_norm)
        _scale(layer, batch_norm, np.full_like(sizes, sizes.max()), sizes)
    return is_uneven


def equalize_deviations(model: tf_keras.Model, normalize: dict[str, Callable[[tf.Tensor], tf.Tensor]]) -> None:
    """Scales kernels' output channels to the deviation that they will have once normalized.

    The model's function stays the same. When such a kernel is then normalized, it loses only its mean, so BatchNorm
    statistics still fit except for that mean.

    Args:
      model: float, in standard form.
      normalize: by the layer's name; layers are those of `weight_normalization.is_normalizable`.
    """
    for layer, batch_norm in _normalized(model):
        if layer.name in normalize:
            goal = normalize[layer.name](tf.constant(layer.get_weights()[0])).numpy()
            _scale(layer, batch_norm, *(_deviations(kernel, batch_norm) for kernel in (goal, layer.get_weights()[0])))


def _normalized(model: tf_keras.Model) -> list[tuple[tf_keras.layers.Layer, tf_keras.layers.BatchNormalization]]:
    """Layers with a kernel, each with the BatchNormalization with gamma that is the only reader of its output."""
    readers = collections.defaultdict(list)
    for layer in model.layers:
        for parent in parents(layer):
            readers[parent.name].append(layer)
    kernels = [layer for layer in model.layers if has_kernel(layer) and len(readers[layer.name]) == 1]
    return [(layer, readers[layer.name][0]) for layer in kernels if _has_gamma(readers[layer.name][0])]


def _has_gamma(layer: tf_keras.layers.Layer) -> bool:
    return isinstance(layer, tf_keras.layers.BatchNormalization) and layer.scale


def _sizes(layer: tf_keras.layers.Layer, batch_norm: tf_keras.layers.BatchNormalization) -> np.ndarray:
    """Largest weight of each channel; those of a depthwise kernel are its last two axes."""
    channels = layer.get_weights()[0].reshape(-1, batch_norm.gamma.shape[0])
    return np.max(np.abs(channels), axis=0).astype(np.float64)


def _spread(sizes: np.ndarray) -> float:
    return sizes.max() / np.median(sizes[sizes > 0]) if np.any(sizes) else 0.0


def _deviations(kernel: np.ndarray, batch_norm: tf_keras.layers.BatchNormalization) -> np.ndarray:
    """Standard deviation of each channel."""
    return np.std(kernel.reshape(-1, batch_norm.gamma.shape[0]), axis=0, dtype=np.float64)


def _scale(
    layer: tf_keras.layers.Layer,
    batch_norm: tf_keras.layers.BatchNormalization,
    goals: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """Gives channels of `sizes` those of `goals`; of size 0 they stay as they are."""
    kernel, *bias = layer.get_weights()
    factors = np.minimum(np.divide(goals, sizes, out=np.ones_like(sizes), where=sizes > 0), MAX_FACTOR)
    channels = kernel.reshape(-1, len(sizes))
    layer.set_weights([(channels * factors).reshape(kernel.shape), *(b * factors for b in bias)])
    variance = batch_norm.moving_variance.numpy().astype(np.float64)
    scaled = variance * factors**2
    deviations = np.sqrt(variance + batch_norm.epsilon), np.sqrt(scaled + batch_norm.epsilon)
    batch_norm.gamma.assign(batch_norm.gamma * (deviations[1] / (deviations[0] * factors)))
    batch_norm.moving_mean.assign(batch_norm.moving_mean * factors)
    batch_norm.moving_variance.assign(scaled)
