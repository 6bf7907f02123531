"""Biases on the grid that an integer convolution gives them.

An integer operator adds its bias to the int32 sum, so a bias is a whole number of steps of
input interval * weight interval (times BatchNorm's scale). At 8 bits that grid is too fine to
matter. At 2 to 4 bits a step is a good part of a step of the output, and rounding it at export
alone would make the file another network than the one that was evaluated.
"""

import numpy as np
import tf_keras

from qkd_tf.quantization.plan import parents, role
from qkd_tf.quantization.scheme import QuantizedStudent

INT32_MAX = 2**31 - 1


def round_biases(student: QuantizedStudent) -> None:
    """Moves each folded bias of the float and the quantized student to its nearest integer step.

    The change goes into the layer's own bias, or into beta of the BatchNormalization behind it. A
    channel whose steps are too small for the bias to fit int32 is left alone; export deals with it.
    """
    student.copy_weights_to_plain()
    scales = {name: quantized.params().scale for name, quantized in student.outputs.items()}
    scales[student.pixels[0]] = student.pixels[1].scale
    for name, quantized in student.weights.items():
        layer = student.plain.get_layer(name)
        input_scale = np.float64(scales[_tensor_read_by(layer)])
        weight_scale = np.float64(quantized.params().scale)
        following = layer.outbound_nodes[0].outbound_layer if layer.outbound_nodes else None
        if isinstance(following, tf_keras.layers.BatchNormalization):
            _round_beta(following, layer, input_scale * weight_scale)
        elif layer.use_bias:
            bias = layer.bias.numpy().astype(np.float64)
            layer.bias.assign(_nearest(bias, np.full_like(bias, input_scale * weight_scale)))
    student.copy_weights_from_plain()


def _round_beta(batch_norm, layer, step: float) -> None:
    """beta such that beta + a * (bias - mean) is a multiple of step * |a|, a = gamma / sqrt(variance + epsilon)."""
    mean = batch_norm.moving_mean.numpy().astype(np.float64)
    gamma = batch_norm.gamma.numpy() if batch_norm.scale else 1.0
    a = gamma / np.sqrt(batch_norm.moving_variance.numpy().astype(np.float64) + batch_norm.epsilon)
    if not batch_norm.center:
        return
    constant = a * ((layer.bias.numpy() if layer.use_bias else 0.0) - mean)
    folded = batch_norm.beta.numpy() + constant
    batch_norm.beta.assign(_nearest(folded, step * np.abs(a)) - constant)


def _nearest(bias: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The multiple of `step` nearest to `bias`; `bias` itself where that is no int32."""
    fits = np.abs(bias) < step * INT32_MAX
    return np.where(fits, np.round(bias / np.where(fits, step, 1.0)) * step, bias)


def _tensor_read_by(layer) -> str:
    """Name of the layer that made the tensor, behind those that only move integers."""
    (parent,) = parents(layer)
    while role(parent) == "pass":
        (parent,) = parents(parent)
    return parent.name
