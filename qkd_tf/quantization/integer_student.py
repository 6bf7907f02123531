"""The student computed in integers, with a runtime's order of rounding.

The quantized student computes with real numbers that lie on grids, and rounds once for each tensor. A runtime adds
int32 sums and rescales them to the next grid in its own arithmetic. Here the same layers are computed in that way,
which predicts the integers of every tensor in the exported file exactly. Nothing of the exporter is used.
"""

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.contract import weight_storage
from qkd_tf.contract.grid import AVERAGE_CODE, TensorQuantParams, quantize, slope_params
from qkd_tf.contract.kinds import GROUPED_CONVOLUTION, POINTWISE_CONVOLUTION
from qkd_tf.contract.runtime_arithmetic import Arithmetic, average_of_stored
from qkd_tf.models.activations import activation_name, is_relu
from qkd_tf.process.accelerators import on_cpu
from qkd_tf.process.portions import values_of_image
from qkd_tf.quantization.roles import (
    LAYERS,
    averages_what_is_there,
    batch_norm_of,
    is_sigmoid,
    num_channel_axes,
    parents,
    role,
)
from qkd_tf.quantization.scheme import QuantizedStudent
from qkd_tf.quantization.stored_bytes import stored_kernels

INT32_MAX = 2**31 - 1
FLOAT32_EXACT = 2**24  # whole numbers up to here are exact in float32
_layers = tf_keras.layers


class IntegerStudent:
    """A student after `put_on_integer_steps`, ready to compute in integers.

    Attributes:
      largest_tensor: number of values, for one image, in the largest tensor that an operator makes. A prediction holds
        a few copies of it, besides all tensors as int8.
    """

    def __init__(self, student: QuantizedStudent):
        self.layers = student.plain.layers
        self.image_shape = student.plain.input_shape[1:]
        (self.output,) = student.plain.output_names
        self.pixels = student.pixels[0]
        self.params = {self.pixels: student.pixels[1]} | {name: q.params() for name, q in student.outputs.items()}
        for layer in self.layers:  # a layer that only moves integers hands its input's parameters on
            if role(layer) == "pass":
                self.params[layer.name] = self.params[parents(layer)[0].name]
        self.operators = [
            Operator.ending_in(layer, self.params) for layer in stored_layers(student) if layer.name != self.pixels
        ]
        self.largest_tensor = max(values_of_image([operator.end]) for operator in self.operators)
        stored = stored_kernels(student.plain, {name: q.params().grid for name, q in student.weights.items()})
        self.kernels = {
            operator.root.name: self._kernel(operator, student.weights[operator.root.name], stored[operator.root.name])
            for operator in self.operators
            if operator.root.name in student.weights
        }

    def predict(self, images: np.ndarray, arithmetic: Arithmetic) -> dict[str, np.ndarray]:
        """The integers of every tensor with parameters, as a runtime of that arithmetic stores them.

        Args:
          images: [N, H, W, C] uint8 pixels.

        Returns:
          int8 [N, ...] by name of the layer whose output it is.
        """
        (predicted,) = self.predict_each(images, [arithmetic])
        return predicted

    def predict_each(self, images: np.ndarray, arithmetics: Iterable[Arithmetic]) -> list[dict[str, np.ndarray]]:
        """`predict` in several arithmetics; a tensor on which some of them agree is computed and stored once."""
        params = self.params[self.pixels]
        pixels = (images.astype(np.int16) + (params.grid.qmin + params.zero_point)).astype(np.int8)
        known: dict[tuple, np.ndarray] = {}
        return [self._predict(pixels, arithmetic, known) for arithmetic in arithmetics]

    def rules(self, arithmetic: Arithmetic) -> tuple:
        """How each operator rounds and clips in an arithmetic; if that is equal, so are all integers."""

        def rule(operator: Operator) -> tuple:
            own = self.arithmetic_of(operator.root, arithmetic)
            return getattr(own, operator.computation()[0]), operator.limits(self.params[operator.end.name], own)

        return tuple(map(rule, self.operators))

    def _predict(self, pixels: np.ndarray, arithmetic: Arithmetic, known: dict) -> dict[str, np.ndarray]:
        """`known` caches tensors by all that they depend on; inputs count as equal if they are the same object."""
        stored = {self.pixels: pixels}
        for operator, (rounding, (low, high)) in zip(self.operators, self.rules(arithmetic), strict=True):
            name, params = operator.end.name, self.params[operator.end.name]
            _, compute = operator.computation()
            inputs = [stored[parent.name] for parent in parents(operator.root)]
            key = (name, rounding, low, high, *map(id, inputs))
            if key not in known:
                result = compute(self, operator, rounding, *map(self._steps, parents(operator.root), inputs))
                known[key] = (np.clip(result, low, high) + params.zero_point).astype(np.int8)
            stored[name] = known[key]
        return stored

    def _steps(self, layer, stored: np.ndarray) -> np.ndarray:
        """Stored integers as multiples of the scale, int16."""
        return stored.astype(np.int16) - np.int16(self.params[layer.name].zero_point)

    def arithmetic_of(self, layer, arithmetic: Arithmetic) -> Arithmetic:
        kernel = self.kernels.get(layer.name)
        return arithmetic.of(_kind(layer), weight_storage.never_int4(kernel.stored) is None) if kernel else arithmetic

    def _scale(self, layer) -> np.float32:
        return np.float32(self.params[layer.name].scale)

    def scales(self, operator: "Operator") -> list[np.float32]:
        """Scales of the inputs, then that of the output."""
        return [self._scale(layer) for layer in (*parents(operator.root), operator.end)]

    def _kernel(self, operator: "Operator", quantized, stored: weight_storage.Kernel) -> "Kernel":
        layer, params = operator.root, quantized.params()
        (parent,) = parents(layer)
        unit = 2**params.grid.weight_shift
        a, bias = operator.affine()
        scales = (params.scale * np.abs(a)).astype(np.float32)
        codes = quantize(quantized.values().numpy(), params)
        codes = codes * np.sign(a).reshape(_channel_axes(layer, codes)) * unit
        bias_step = np.float64(self._scale(parent)) * scales
        largest = _largest_sums(layer, codes)
        reach = 255 * largest / unit * bias_step
        fits = np.abs(bias) + reach <= INT32_MAX // unit * bias_step
        fits &= bias_step > 0
        rounded = np.round(bias / np.where(fits, bias_step / unit, np.inf))
        grid, output_scale = self.params[parent.name].grid, self._scale(operator.end)
        exact = _float_type(np.max(largest * max(-grid.qmin, grid.qmax) + np.abs(rounded)))
        return Kernel(
            codes=codes.astype(exact),
            bias=rounded.astype(exact),
            scales=np.where(fits, scales / np.float32(unit), output_scale),
            bias_fits=fits,
            bias_is_lost=~fits & (reach >= output_scale),
            constant=np.round(np.clip(bias / np.float64(output_scale), -INT32_MAX, INT32_MAX)).astype(np.int64),
            stored=dataclasses.replace(stored, largest=int(np.abs(codes).max())),
        )

    def compute(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        """Rescaled sums of integer products and rounded bias; BatchNorm is in each channel's scale."""
        kernel = self.kernels[operator.root.name]
        with on_cpu():
            sums = integer_sums(operator.root, tf.constant(x.astype(kernel.codes.dtype)), kernel.codes).numpy()
        sums += kernel.bias
        input_scale, output_scale = self.scales(operator)
        result = rounding(sums, input_scale, kernel.scales, output_scale)
        result[..., ~kernel.bias_fits] = kernel.constant[~kernel.bias_fits]
        return result

    def combine(self, operator: "Operator", rounding: Callable, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return rounding(a, b, *self.scales(operator))

    def square(self, operator: "Operator", rounding: Callable, x: np.ndarray, same: np.ndarray) -> np.ndarray:
        """A product of a tensor with itself."""
        scale, _, output_scale = self.scales(operator)
        return rounding(x, scale, output_scale, self.params[operator.end.name].written_zero_point())

    def logistic(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        input_scale, _ = self.scales(operator)
        return rounding(x, input_scale)

    def leaky_relu(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        return rounding(x, 1, operator.root.alpha, *self.scales(operator))

    def prelu(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        slopes, scale = integer_slopes(operator.root)
        return rounding(x.astype(np.int64), slopes, scale, *self.scales(operator))

    def average(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        sums = x.sum(axis=(1, 2), keepdims=len(operator.root.output_shape) == 4, dtype=np.int64)
        (parent,) = parents(operator.root)
        zero_points = self.params[parent.name].zero_point, self.params[operator.end.name].written_zero_point()
        return rounding(sums, x.shape[1] * x.shape[2], *self.scales(operator), *zero_points)

    def average_windows(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        """An average as a depthwise convolution whose weights are all AVERAGE_CODE."""
        layer = operator.root
        area = layer.pool_size[0] * layer.pool_size[1]
        with on_cpu():
            means = layer(tf.constant(x, tf.float64)).numpy()
        sums = np.round(means * area).astype(np.int64) * AVERAGE_CODE
        input_scale, output_scale = self.scales(operator)
        return rounding(sums, input_scale, np.float32(1 / (AVERAGE_CODE * area)), output_scale)

    def average_what_is_there(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        """An average over unpadded pixels, rounded to the steps of the input as stored, then to those of the output."""
        layer, input_scale, output_scale = operator.root, *self.scales(operator)
        (parent,) = parents(layer)
        zero_point = self.params[parent.name].zero_point
        counts = window_counts(layer)
        with on_cpu():
            means = layer(tf.constant(x.astype(np.float64) + zero_point)).numpy()
        averages = average_of_stored(np.round(means * counts), counts) - zero_point
        return rounding(averages, input_scale, output_scale)

    def concatenate(self, operator: "Operator", rounding: Callable, *parts: np.ndarray) -> np.ndarray:
        *input_scales, output_scale = self.scales(operator)
        rounded = [rounding(part, scale, output_scale) for part, scale in zip(parts, input_scales, strict=True)]
        return np.concatenate(rounded, axis=operator.root.axis)

    def requantize(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        return rounding(x, *self.scales(operator))

    def move(self, operator: "Operator", rounding: Callable, x: np.ndarray) -> np.ndarray:
        return operator.root(tf.constant(x, tf.float32), training=False).numpy().astype(np.int16)


def stored_layers(student: QuantizedStudent) -> list:
    """The layers for whose tensors `IntegerStudent` has integers: those with a grid, and those that move integers."""
    named = {student.pixels[0], *student.outputs}
    return [layer for layer in student.plain.layers if layer.name in named or role(layer) == "pass"]


# The row of Arithmetic by which an operator rounds, and what computes it.
OPERATORS: Mapping[type, tuple[str, Callable]] = {
    _layers.Conv2D: ("convolution", IntegerStudent.compute),
    _layers.DepthwiseConv2D: ("convolution", IntegerStudent.compute),
    _layers.Dense: ("dense", IntegerStudent.compute),
    _layers.Add: ("add", IntegerStudent.combine),
    _layers.Multiply: ("multiply", IntegerStudent.combine),
    _layers.GlobalAveragePooling2D: ("mean", IntegerStudent.average),
    _layers.AveragePooling2D: ("mean", IntegerStudent.average),
    _layers.Concatenate: ("requantize", IntegerStudent.concatenate),
    _layers.Activation: ("requantize", IntegerStudent.requantize),
    _layers.ReLU: ("requantize", IntegerStudent.requantize),
    _layers.LeakyReLU: ("leaky_relu", IntegerStudent.leaky_relu),
    _layers.PReLU: ("prelu", IntegerStudent.prelu),
}
SIGMOID = ("logistic", IntegerStudent.logistic)
SQUARE = ("square", IntegerStudent.square)
WINDOWS = ("convolution", IntegerStudent.average_windows)
WHAT_IS_THERE = ("requantize", IntegerStudent.average_what_is_there)
MOVE = ("limit", IntegerStudent.move)  # rounds nothing


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A layer's weights and bias, with BatchNorm folded in. Integers are in a float type that holds them exactly.

    Attributes:
      codes: the integers as the file stores them, [..., C].
      bias: the bias in steps of the sums, [C].
      scales: float32 [C].
      bias_fits: bool [C], whether the bias fits int32 in such steps. If not, BatchNorm left nothing but the bias.
      bias_is_lost: bool [C], whether it does not fit although the kernel matters, so that no file can hold it.
      constant: the bias in steps of the output, int64 [C].
      stored: decides how the codes are stored.
    """

    codes: np.ndarray
    bias: np.ndarray
    scales: np.ndarray
    bias_fits: np.ndarray
    bias_is_lost: np.ndarray
    constant: np.ndarray
    stored: weight_storage.Kernel


@dataclasses.dataclass(frozen=True)
class Operator:
    """The layers that are one integer operator: the one that computes, and what is folded into it."""

    chain: tuple[tf_keras.layers.Layer, ...]

    @classmethod
    def ending_in(cls, layer, ends: Container[str]) -> "Operator":
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
        """(a, b), float64 [C]: the folded layers turn the kernel's result x into a * x + b."""
        channels = self.root.output_shape[-1]
        a, b = np.ones(channels), np.zeros(channels)
        if self.root.use_bias:
            b = self.root.bias.numpy().astype(np.float64)
        for layer in self.chain[1:]:
            if isinstance(layer, _layers.BatchNormalization):
                a, b = batch_norm_of(layer).affine(b)
        return a, b

    def computation(self) -> tuple[str, Callable]:
        """The operator's row of OPERATORS."""
        if role(self.root) == "pass":
            return MOVE
        if is_sigmoid(self.root):
            return SIGMOID
        if isinstance(self.root, _layers.Multiply) and len(set(map(id, parents(self.root)))) == 1:
            return SQUARE
        if averages_what_is_there(self.root):
            return WHAT_IS_THERE
        if isinstance(self.root, _layers.AveragePooling2D) and self.root.pool_size != self.root.input_shape[1:3]:
            return WINDOWS
        return OPERATORS[type(self.root)]

    def limits(self, params: TensorQuantParams, arithmetic: Arithmetic) -> tuple[int, int]:
        """Lowest and highest step that the grid and the activation functions allow."""
        low, high = params.grid.qmin, params.grid.qmax
        activations = {activation_name(layer) for layer in self.chain}
        if any(map(is_relu, activations)):
            low = 0
        if "relu6" in activations:
            high = min(high, arithmetic.limit(6.0, params.scale))
        return low, high


def _kind(layer) -> str:
    """The name in Arithmetic of a compute layer's operator."""
    if isinstance(layer, _layers.Conv2D):
        if layer.groups > 1:
            return GROUPED_CONVOLUTION
        if {*layer.kernel_size, *layer.strides, *layer.dilation_rate} == {1} and layer.input_shape[-1] % 2 == 0:
            return POINTWISE_CONVOLUTION
    return LAYERS[type(layer)].operator


def integer_sums(layer, x: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
    """Integer sums of a compute layer, in the float type of `codes` and `x`."""
    if isinstance(layer, _layers.Dense):
        return x @ codes
    convolve = tf.nn.depthwise_conv2d if isinstance(layer, _layers.DepthwiseConv2D) else tf.nn.conv2d
    strides = [1, *layer.strides, 1]
    return convolve(x, codes, strides, layer.padding.upper(), dilations=list(layer.dilation_rate))


def integer_slopes(layer) -> tuple[np.ndarray, float]:
    """The slopes of a PReLU as int64 in their own shape, and their scale."""
    slopes = layer.alpha.numpy()
    params = slope_params(slopes)
    return quantize(slopes, params).astype(np.int64), params.scale


def window_counts(layer) -> np.ndarray:
    """Number of the map's pixels in each pooling window, int64 [1, H, W, 1]: fewer where there is padding."""
    ones = np.ones((1, *layer.input_shape[1:3], 1))
    area = layer.pool_size[0] * layer.pool_size[1]
    window = tf.ones((*layer.pool_size, 1, 1), tf.float64)
    with on_cpu():
        counts = tf.nn.conv2d(tf.constant(ones), window, layer.strides, layer.padding.upper()).numpy()
    return np.clip(np.round(counts), 1, area).astype(np.int64)


def _float_type(largest: float) -> type:
    """The float type that holds whole numbers up to `largest` exactly, and so sums up to it."""
    return np.float32 if largest < FLOAT32_EXACT else np.float64


def _largest_sums(layer, codes: np.ndarray) -> np.ndarray:
    """Sum of magnitudes of each output channel's codes, [C]."""
    channels = int(np.prod(_channel_axes(layer, codes)))
    return np.abs(codes).reshape(-1, channels).sum(axis=0)


def _channel_axes(layer, codes: np.ndarray) -> tuple[int, ...]:
    """Shape of the last axes of a kernel, which hold its output channels."""
    return codes.shape[-num_channel_axes(layer) :]
