"""The integer-faithful mode: the student computed in integers, in a runtime's order of rounding.

The quantized student computes with real numbers that lie on grids, and rounds once for each tensor. A
runtime adds int32 sums and brings them to the next grid in its own arithmetic. Here the same layers are
computed that way, so that the integers of every tensor of the exported file are predicted, and not only
approached. Nothing of the exporter is used.
"""

import dataclasses
from collections.abc import Callable, Container, Mapping

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.quantization.grid import AVERAGE_CODE, TensorQuantParams, quantize
from qkd_tf.quantization.plan import activation_name, is_sigmoid, parents, producer, role
from qkd_tf.quantization.runtime_arithmetic import INT4_MAX, Arithmetic
from qkd_tf.quantization.scheme import QuantizedStudent

INT32_MAX = 2**31 - 1
FLOAT32_EXACT = 2**24  # whole numbers up to here are exact in float32
_layers = tf_keras.layers


class IntegerStudent:
    """A student that `put_on_integer_steps` has been applied to, ready to compute in integers."""

    def __init__(self, student: QuantizedStudent):
        self.layers = student.plain.layers
        (output,) = student.plain.output_names
        self.output = producer(student.plain.get_layer(output)).name
        self.pixels = student.pixels[0]
        self.params = {self.pixels: student.pixels[1]} | {name: q.params() for name, q in student.outputs.items()}
        for layer in self.layers:  # a layer that only moves integers hands its input's parameters on
            if role(layer) == "pass":
                self.params[layer.name] = self.params[parents(layer)[0].name]
        self.kernels = {
            name: (quantize(q.kernel.numpy(), q.params()).astype(np.float64), q.params())
            for name, q in student.weights.items()
        }

    def predict(self, images: np.ndarray, arithmetic: Arithmetic) -> dict[str, np.ndarray]:
        """The integers of every tensor with parameters, as a runtime of that arithmetic stores them.

        Args:
          images: [N, H, W, C] uint8 pixels.

        Returns:
          int8 [N, ...] by name of the layer that hands the tensor on.
        """
        steps: dict[str, np.ndarray] = {}  # multiples of the scale, without zero point
        for layer in self.layers:
            if layer.name == self.pixels:
                steps[layer.name] = images.astype(np.int64) + self.params[layer.name].grid.qmin
            elif role(layer) == "pass":
                (parent,) = parents(layer)
                moved = layer(tf.constant(steps[parent.name], tf.float32), training=False)
                steps[layer.name] = moved.numpy().astype(np.int64)
            elif layer.name in self.params:
                operator = _Operator.ending_in(layer, self.params)
                own = self._arithmetic_of(operator.root, arithmetic)
                result = OPERATORS[type(operator.root)](self, operator, own, steps)
                steps[layer.name] = np.clip(result, *operator.limits(self.params[layer.name], own))
        return {name: (q + self.params[name].zero_point).astype(np.int8) for name, q in steps.items()}

    def _arithmetic_of(self, layer, arithmetic: Arithmetic) -> Arithmetic:
        if layer.name not in self.kernels:
            return arithmetic
        codes, params = self.kernels[layer.name]
        fits_int4 = np.abs(codes).max() * 2**params.grid.weight_shift <= INT4_MAX
        return arithmetic.of(KINDS[type(layer)], fits_int4)

    def _scale(self, layer) -> np.float32:
        return np.float32(self.params[layer.name].scale)

    def _compute(self, operator: "_Operator", arithmetic: Arithmetic, steps) -> np.ndarray:
        """Sums of integer products and the rounded bias; BatchNorm is in the scale of each channel."""
        layer = operator.root
        (parent,) = parents(layer)
        codes, params = self.kernels[layer.name]
        unit = 2**params.grid.weight_shift
        a, bias = operator.affine()
        scales = (params.scale * np.abs(a)).astype(np.float32)
        codes = codes * (np.sign(a)[:, np.newaxis] if isinstance(layer, _layers.DepthwiseConv2D) else np.sign(a))
        bias_step = np.float64(self._scale(parent)) * scales
        held = np.abs(bias) + 255 * _largest_sums(layer, codes) * bias_step <= INT32_MAX // unit * bias_step
        held &= bias_step > 0
        sums = _sums(layer, steps[parent.name], codes)
        sums += np.round(bias / np.where(held, bias_step, np.inf)).astype(np.int64)
        rescale = arithmetic.dense if isinstance(layer, _layers.Dense) else arithmetic.convolution
        output_scale = self._scale(operator.end)
        # A channel whose BatchNorm leaves nothing but its bias is that constant.
        constant = np.round(bias / np.float64(output_scale)).astype(np.int64)
        scales = np.where(held, scales / np.float32(unit), output_scale)
        return np.where(held, rescale(sums * unit, self._scale(parent), scales, output_scale), constant)

    def _add(self, operator: "_Operator", arithmetic: Arithmetic, steps) -> np.ndarray:
        a, b = parents(operator.root)
        scales = self._scale(a), self._scale(b), self._scale(operator.end)
        return arithmetic.add(steps[a.name], steps[b.name], *scales)

    def _multiply(self, operator: "_Operator", arithmetic: Arithmetic, steps) -> np.ndarray:
        a, b = parents(operator.root)
        scales = self._scale(a), self._scale(b), self._scale(operator.end)
        return arithmetic.multiply(steps[a.name], steps[b.name], *scales)

    def _activation(self, operator: "_Operator", arithmetic: Arithmetic, steps) -> np.ndarray:
        """A sigmoid, or nothing but another grid."""
        if not is_sigmoid(operator.root):
            return self._requantize(operator, arithmetic, steps)
        (parent,) = parents(operator.root)
        return arithmetic.logistic(steps[parent.name], self._scale(parent))

    def _average(self, operator: "_Operator", arithmetic: Arithmetic, steps) -> np.ndarray:
        (parent,) = parents(operator.root)
        x = steps[parent.name]
        window = getattr(operator.root, "pool_size", x.shape[1:3])
        if tuple(window) != x.shape[1:3]:
            return self._average_windows(operator, arithmetic, x)
        sums = x.sum(axis=(1, 2), keepdims=len(operator.root.output_shape) == 4)
        return arithmetic.mean(sums, x.shape[1] * x.shape[2], self._scale(parent), self._scale(operator.end))

    def _average_windows(self, operator: "_Operator", arithmetic: Arithmetic, x: np.ndarray) -> np.ndarray:
        """A depthwise convolution of equal weights, each AVERAGE_CODE."""
        layer = operator.root
        (parent,) = parents(layer)
        area = layer.pool_size[0] * layer.pool_size[1]
        sums = np.round(layer(tf.constant(x, tf.float64)).numpy() * area).astype(np.int64) * AVERAGE_CODE
        kernel_scale = np.float32(1 / (AVERAGE_CODE * area))
        return arithmetic.convolution(sums, self._scale(parent), kernel_scale, self._scale(operator.end))

    def _concatenate(self, operator: "_Operator", arithmetic: Arithmetic, steps) -> np.ndarray:
        parts = [
            arithmetic.requantize(steps[parent.name], self._scale(parent), self._scale(operator.end))
            for parent in parents(operator.root)
        ]
        return np.concatenate(parts, axis=operator.root.axis)

    def _requantize(self, operator: "_Operator", arithmetic: Arithmetic, steps) -> np.ndarray:
        (parent,) = parents(operator.root)
        return arithmetic.requantize(steps[parent.name], self._scale(parent), self._scale(operator.end))


KINDS: Mapping[type, str] = {
    _layers.Conv2D: "CONV_2D",
    _layers.DepthwiseConv2D: "DEPTHWISE_CONV_2D",
    _layers.Dense: "FULLY_CONNECTED",
}
OPERATORS: Mapping[type, Callable] = {
    _layers.Conv2D: IntegerStudent._compute,
    _layers.DepthwiseConv2D: IntegerStudent._compute,
    _layers.Dense: IntegerStudent._compute,
    _layers.Add: IntegerStudent._add,
    _layers.GlobalAveragePooling2D: IntegerStudent._average,
    _layers.AveragePooling2D: IntegerStudent._average,
    _layers.Concatenate: IntegerStudent._concatenate,
    _layers.Activation: IntegerStudent._activation,
    _layers.ReLU: IntegerStudent._requantize,
    _layers.Multiply: IntegerStudent._multiply,
}


@dataclasses.dataclass(frozen=True)
class _Operator:
    """The layers that are one integer operator: the one that computes, and what is folded into it."""

    chain: tuple[tf_keras.layers.Layer, ...]

    @classmethod
    def ending_in(cls, layer, ends: Container[str]) -> "_Operator":
        chain = [layer]
        while role(chain[0]) == "fold" and parents(chain[0])[0].name not in ends:
            chain.insert(0, parents(chain[0])[0])
        return cls(tuple(chain))

    @property
    def root(self):
        return self.chain[0]

    @property
    def end(self):
        return self.chain[-1]

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """(a, b), float64 [C]: what the folded layers make of the kernel's result x is a * x + b."""
        channels = self.root.output_shape[-1]
        a, b = np.ones(channels), np.zeros(channels)
        if self.root.use_bias:
            b = self.root.bias.numpy().astype(np.float64)
        for layer in self.chain[1:]:
            if isinstance(layer, _layers.BatchNormalization):
                gamma = layer.gamma.numpy() if layer.scale else np.ones(channels)
                a = gamma.astype(np.float64) / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
                b = layer.beta.numpy() + a * (b - layer.moving_mean.numpy())
        return a, b

    def limits(self, params: TensorQuantParams, arithmetic: Arithmetic) -> tuple[int, int]:
        """Lowest and highest step that the grid and the activation functions leave."""
        low, high = params.grid.qmin, params.grid.qmax
        activations = {activation_name(layer) for layer in self.chain}
        if activations & {"relu", "relu6"}:
            low = 0
        if "relu6" in activations:
            high = min(high, arithmetic.limit(6.0, params.scale))
        return low, high


def _sums(layer, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Integer sums of a compute layer, taken in floating point where every one of them is exact."""
    exact = np.max(_largest_sums(layer, codes)) * max(1, int(np.abs(x).max())) < FLOAT32_EXACT
    dtype = tf.float32 if exact else tf.float64
    x, codes = tf.constant(x, dtype), tf.constant(codes, dtype)
    if isinstance(layer, _layers.Dense):
        sums = x @ codes
    else:
        convolve = tf.nn.depthwise_conv2d if isinstance(layer, _layers.DepthwiseConv2D) else tf.nn.conv2d
        strides = [1, *layer.strides, 1]
        sums = convolve(x, codes, strides, layer.padding.upper(), dilations=list(layer.dilation_rate))
    return sums.numpy().astype(np.int64)


def _largest_sums(layer, codes: np.ndarray) -> np.ndarray:
    """Sum of magnitudes of each output channel's codes, [C]."""
    magnitudes = np.abs(codes)
    if isinstance(layer, _layers.DepthwiseConv2D):
        return magnitudes.sum(axis=(0, 1, 3))
    return magnitudes.reshape(-1, codes.shape[-1]).sum(axis=0)
