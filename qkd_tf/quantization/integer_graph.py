"""The student in integers, fast: one TensorFlow graph for each arithmetic, bit-equal to `integer_student`.

`IntegerStudent` is the definition, in NumPy. Here the same operators are a graph over whole numbers in float32:

* Sums of products are taken in the float type that the definition chooses for the layer. That type holds every partial
  sum exactly, so neither the order of summation nor the number of threads changes a bit.
* Sums are rescaled to the output's steps by the definition's own multipliers, in float32 or int64 as there.
* Operators that read only 8-bit integers (an Add, a sigmoid, a requantization, an average) have few possible inputs.
  The definition computes each of them once, and the graph looks up the results.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from qkd_tf.contract.grid import AVERAGE_CODE
from qkd_tf.contract.runtime_arithmetic import (
    Arithmetic,
    float_sums,
    num_in_blocks,
    sums_multiplier,
    sums_ratio,
    sums_rounded_in_blocks,
    sums_rounded_once,
    sums_rounded_twice,
    sums_rounded_up_twice,
)
from qkd_tf.process import portions
from qkd_tf.process.accelerators import on_cpu
from qkd_tf.quantization.integer_student import IntegerStudent, Operator, integer_slopes, integer_sums, window_counts
from qkd_tf.quantization.roles import parents

# Of the largest tensor of a batch, of which a graph holds some at a time: 8 images of MobileNetV2 at 224 x 224.
BATCH_BYTES = 40 << 20
# Values of a tensor, over all images, from which it pays to have XLA compile how sums are rounded: half a second of
# TensorFlow's operators one by one, against a sixth of one for compiling.
COMPILED_VALUES = 2**26


class IntegerGraph:
    """A student in one arithmetic, ready to compute many images.

    Args:
      num_images: number of images to expect. It decides batches and what is compiled, but no bit of a result.
    """

    def __init__(self, student: IntegerStudent, arithmetic: Arithmetic, num_images: int):
        self._student, self._num_images = student, num_images
        with on_cpu():
            builds = [self._build(operator, arithmetic) for operator in student.operators]
        shape = student.image_shape
        of_image = np.dtype(np.float32).itemsize * student.largest_tensor
        self._batch = max(1, min(num_images, portions.num_images(BATCH_BYTES, of_image)))
        spec = tf.TensorSpec((self._batch, *shape), tf.uint8)
        # No reference to this object: its memory, a second copy of the kernels, is freed with the last reference to it.
        stored = functools.partial(_stored, student, builds)
        self._tensors = tf.function(stored, input_signature=[spec], autograph=False)
        self._logits = tf.function(
            lambda pixels: stored(pixels)[student.output], input_signature=[spec], autograph=False
        )

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The integers of every tensor with parameters: `IntegerStudent.predict`.

        Args:
          images: [N, H, W, C] uint8 pixels.

        Returns:
          int8 [N, ...] by name of the layer whose output it is.
        """
        parts = [
            {name: values[:num_images].numpy() for name, values in self._tensors(batch).items()}
            for batch, num_images in self._batches([images])
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def logits(self, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Logits of one batch of images after another, int8 [n, ..., K].

        Args:
          parts: the images, [n, H, W, C] uint8 pixels, as many at a time as the caller likes.
        """
        for batch, num_images in self._batches(parts):
            yield self._logits(batch)[:num_images].numpy()

    def _batches(self, parts: Iterable[np.ndarray]) -> Iterator[tuple[tf.Tensor, int]]:
        """Whole batches, the last one padded, and how many images of each count, so that only one shape is compiled."""
        for batch in portions.regrouped(parts, self._batch):
            missing = self._batch - len(batch)
            yield tf.constant(np.pad(batch, ((0, missing), *[(0, 0)] * (batch.ndim - 1)))), len(batch)

    def _build(self, operator: Operator, arithmetic: Arithmetic) -> Callable:
        """A function from the steps of an operator's inputs to those of its output, float32."""
        own = self._student.arithmetic_of(operator.root, arithmetic)
        rule, definition = operator.computation()
        limits = operator.limits(self._student.params[operator.end.name], own)
        return BUILDS[definition](self, operator, getattr(own, rule), limits)

    def _compute(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        kernel = self._student.kernels[operator.root.name]
        rescale, numbers = RESCALES[rounding](*self._rescaled(operator), len(kernel.scales))
        num_values = self._num_images * np.prod(operator.root.output_shape[1:])
        rescale = _compiled(rescale) if num_values >= COMPILED_VALUES else rescale
        codes, bias = _kept(kernel.codes), _kept(kernel.bias)
        low, high = (_kept(np.float32(limit)) for limit in limits)
        numbers = [_kept(number) for number in numbers]
        constant = np.clip(kernel.constant, *limits).astype(np.float32)

        def build(x: tf.Tensor) -> tf.Tensor:
            sums = integer_sums(operator.root, tf.cast(x, codes.dtype), codes)
            steps = rescale(sums, bias, low, high, *numbers)
            return steps if kernel.bias_fits.all() else tf.where(kernel.bias_fits, steps, constant)

        return build

    def _rescaled(self, operator: Operator) -> tuple[np.float32, np.ndarray, np.float32]:
        """Scales of input, kernel and output."""
        input_scale, output_scale = self._student.scales(operator)
        return input_scale, self._student.kernels[operator.root.name].scales, output_scale

    def _combine(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        (low, firsts), (low_b, seconds) = (self._steps(layer) for layer in parents(operator.root))
        found = rounding(firsts[:, np.newaxis], seconds, *self._student.scales(operator))
        look_up = _table(found.ravel(), limits)
        return lambda a, b: look_up((a - low) * len(seconds) + (b - low_b))

    def _square(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        scale, _, output_scale = self._student.scales(operator)
        zero_point = self._student.params[operator.end.name].written_zero_point()
        look_up = self._unary(operator, lambda x: rounding(x, scale, output_scale, zero_point), limits)
        return lambda x, same: look_up(x)

    def _logistic(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        input_scale, _ = self._student.scales(operator)
        return self._unary(operator, lambda x: rounding(x, input_scale), limits)

    def _requantize(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        return self._unary(operator, lambda x: rounding(x, *self._student.scales(operator)), limits)

    def _leaky_relu(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        scales = self._student.scales(operator)
        return self._unary(operator, lambda x: rounding(x, 1, operator.root.alpha, *scales), limits)

    def _prelu(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        low, steps = self._steps(parents(operator.root)[0])
        slopes, scale = integer_slopes(operator.root)
        values, places = np.unique(slopes, return_inverse=True)
        found = rounding(steps, values[:, np.newaxis], scale, *self._student.scales(operator))
        look_up, rows = _table(found.ravel(), limits), _kept(np.float32(places.reshape(slopes.shape) * len(steps)))
        return lambda x: look_up(rows + (x - low))

    def _unary(self, operator: Operator, compute: Callable, limits: tuple[int, int], position: int = 0) -> Callable:
        low, steps = self._steps(parents(operator.root)[position])
        look_up = _table(compute(steps), limits)
        return lambda x: look_up(x - low)

    def _average(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        student, root = self._student, operator.root
        (parent,) = parents(root)
        count = int(np.prod(root.input_shape[1:3]))
        low, sums = self._steps(parent, count)
        zero_points = student.params[parent.name].zero_point, student.params[operator.end.name].written_zero_point()
        look_up = _table(rounding(sums, count, *student.scales(operator), *zero_points), limits)

        def build(x: tf.Tensor) -> tf.Tensor:
            total = tf.reduce_sum(tf.cast(x, tf.int64), axis=(1, 2), keepdims=len(root.output_shape) == 4)
            return look_up(total - low)

        return build

    def _average_windows(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        layer = operator.root
        area = layer.pool_size[0] * layer.pool_size[1]
        low, sums = self._steps(parents(layer)[0], area)
        input_scale, output_scale = self._student.scales(operator)
        found = rounding(sums * AVERAGE_CODE, input_scale, np.float32(1 / (AVERAGE_CODE * area)), output_scale)
        look_up = _table(found, limits)
        return lambda x: look_up(tf.round(layer(tf.cast(x, tf.float64)) * area) - low)

    def _average_what_is_there(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        layer = operator.root
        (parent,) = parents(layer)
        zero_point, counts = self._student.params[parent.name].zero_point, tf.constant(window_counts(layer))
        look_up = self._requantize(operator, rounding, limits)

        def build(x: tf.Tensor) -> tf.Tensor:
            means = layer(tf.cast(x, tf.float64) + zero_point)
            sums = tf.cast(tf.round(tf.cast(means, tf.float64) * tf.cast(counts, tf.float64)), tf.int64)
            averages = tf.sign(sums) * ((tf.abs(sums) + counts // 2) // counts)  # `average_of_stored`
            return look_up(tf.cast(averages - zero_point, tf.float32))

        return build

    def _concatenate(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        *input_scales, output_scale = self._student.scales(operator)

        def part(position: int) -> Callable:
            return self._unary(operator, lambda x: rounding(x, input_scales[position], output_scale), limits, position)

        parts = [part(position) for position in range(len(input_scales))]
        return lambda *inputs: tf.concat(
            [look_up(x) for look_up, x in zip(parts, inputs, strict=True)], axis=operator.root.axis
        )

    def _move(self, operator: Operator, rounding: Callable, limits: tuple[int, int]) -> Callable:
        return lambda x: operator.root(x, training=False)

    def _steps(self, layer, count: int = 1) -> tuple[int, np.ndarray]:
        """(Smallest, all values from it on, int64) of a sum of `count` integers of a layer's output."""
        grid = self._student.params[layer.name].grid
        return count * grid.qmin, np.arange(count * grid.qmin, count * grid.qmax + 1)


# The definition's way to compute an operator -> the graph's.
BUILDS: Mapping[Callable, Callable] = {
    IntegerStudent.compute: IntegerGraph._compute,
    IntegerStudent.combine: IntegerGraph._combine,
    IntegerStudent.square: IntegerGraph._square,
    IntegerStudent.logistic: IntegerGraph._logistic,
    IntegerStudent.average: IntegerGraph._average,
    IntegerStudent.average_windows: IntegerGraph._average_windows,
    IntegerStudent.average_what_is_there: IntegerGraph._average_what_is_there,
    IntegerStudent.concatenate: IntegerGraph._concatenate,
    IntegerStudent.requantize: IntegerGraph._requantize,
    IntegerStudent.leaky_relu: IntegerGraph._leaky_relu,
    IntegerStudent.prelu: IntegerGraph._prelu,
    IntegerStudent.move: IntegerGraph._move,
}


def _stored(student: IntegerStudent, builds: list[Callable], pixels: tf.Tensor) -> dict[str, tf.Tensor]:
    """int8 [B, ...] by name."""
    with on_cpu():
        steps = {student.pixels: tf.cast(pixels, tf.float32) + student.params[student.pixels].grid.qmin}
        for operator, build in zip(student.operators, builds, strict=True):
            steps[operator.end.name] = build(*(steps[parent.name] for parent in parents(operator.root)))
        return {name: tf.cast(x + student.params[name].zero_point, tf.int8) for name, x in steps.items()}


def _kept(number: np.ndarray) -> tf.Variable:
    """A number hidden from TensorFlow's graph optimizer, which would multiply kernels by constants."""
    return tf.Variable(number, trainable=False)


def _table(found: np.ndarray, limits: tuple[int, int]) -> Callable:
    """A function that looks up results by index, float32, within limits."""
    values = _kept(np.clip(found, *limits).astype(np.float32))
    return lambda places: tf.gather(values, tf.cast(places, tf.int32))


def _round_floats(sums, bias, low, high, ratio):
    """`runtime_arithmetic.float_sums`."""
    return tf.clip_by_value(tf.round(tf.cast(sums + bias, tf.float32) * ratio), low, high)


def _round_twice(sums, bias, low, high, fixed, exponent, half, downward):
    """`runtime_arithmetic`: `multiply_rounding_twice` where `downward` is 1, `multiply_rounding_up_twice` elsewhere."""
    product = tf.cast(sums + bias, tf.int64) * fixed + 2**30
    high_part = tf.bitwise.right_shift(product, tf.constant(31, tf.int64))
    nudged = high_part - tf.cast(high_part < 0, tf.int64) * downward + half
    steps = tf.bitwise.right_shift(nudged, tf.broadcast_to(exponent, tf.shape(nudged)))
    return _clipped(steps, low, high)


def _round_once(sums, bias, low, high, fixed, exponent, half):
    """`runtime_arithmetic.multiply_rounding_once`."""
    product = tf.cast(sums + bias, tf.int64) * fixed + half
    return _clipped(tf.bitwise.right_shift(product, tf.broadcast_to(exponent, tf.shape(product))), low, high)


def _clipped(steps: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Clips steps, then converts them to float32, which cannot hold every step outside the limits."""
    return tf.cast(tf.clip_by_value(steps, tf.cast(low, tf.int64), tf.cast(high, tf.int64)), tf.float32)


def _float_numbers(input_scale, kernel_scales, output_scale, num_channels: int):
    return _round_floats, [sums_ratio(input_scale, kernel_scales, output_scale)]


def _twice_numbers(input_scale, kernel_scales, output_scale, num_channels: int, downward_from: Callable):
    """Channels from `downward_from(num_channels)` on round as TFLM does, those before as ruy does."""
    fixed, shift = sums_multiplier(input_scale, kernel_scales, output_scale)
    exponent = np.maximum(-shift, 0)
    half = np.where(exponent > 0, np.int64(1) << np.maximum(exponent - 1, 0), 0)
    downward = (exponent > 0) & (np.arange(num_channels) >= downward_from(num_channels))
    return _round_twice, [fixed << np.maximum(shift, 0), exponent, half, downward.astype(np.int64)]


def _once_numbers(input_scale, kernel_scales, output_scale, num_channels: int):
    fixed, shift = sums_multiplier(input_scale, kernel_scales, output_scale)
    exponent = 31 - shift
    return _round_once, [fixed, exponent, np.int64(1) << (exponent - 1)]


# The definition's way to bring sums to the steps of an output -> the graph's, and the numbers that it needs.
RESCALES: Mapping[Callable, Callable] = {
    float_sums: _float_numbers,
    sums_rounded_twice: functools.partial(_twice_numbers, downward_from=lambda num_channels: 0),
    sums_rounded_up_twice: functools.partial(_twice_numbers, downward_from=lambda num_channels: num_channels),
    sums_rounded_in_blocks: functools.partial(_twice_numbers, downward_from=num_in_blocks),
    sums_rounded_once: _once_numbers,
}


@functools.cache
def _compiled(rescale: Callable) -> Callable:
    """Compiled by XLA, in one pass. Nothing is added to a float32 product: XLA might round the two only once."""
    return tf.function(rescale, jit_compile=True, autograph=False)
