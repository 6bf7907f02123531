"""An integer interpreter in NumPy: what a .tflite computes, integer for integer, without a runtime.

It executes the graph that `read_back` finds in a file, with a runtime's arithmetic
(`qkd_tf.contract.runtime_arithmetic`): the second derivation of what runtimes compute.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qkd_tf.contract.fixed_point import Scale
from qkd_tf.contract.kinds import GROUPED_CONVOLUTION
from qkd_tf.contract.runtime_arithmetic import Arithmetic, average_of_stored
from qkd_tf.process.portions import num_images, portions
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor

HELD_BYTES = 128 << 20  # of an operator's numbers in 64 bits; NumPy makes a few copies of them
RANGES = {"int8": (-128, 127), "uint8": (0, 255)}

Tensors = list[Tensor]  # that an operator reads
Inputs = list[np.ndarray]  # their integers


def run(graph: IntegerGraph, codes: np.ndarray, arithmetic: Arithmetic) -> dict[str, np.ndarray]:
    """Executes a graph.

    Args:
      codes: the input tensor's integers, [N, H, W, C].

    Returns:
      The integers of each tensor that is not a constant, int8 or uint8, [N, ...], by name.
    """
    values = {graph.input: codes}
    for operator in graph.operators:
        values[operator.output] = run_operator(graph, operator, values, arithmetic)
    return values


def run_operator(
    graph: IntegerGraph, operator: Operator, values: Mapping[str, np.ndarray], arithmetic: Arithmetic
) -> np.ndarray:
    """The integers of one operator's output, computed on as many images at a time as fit HELD_BYTES.

    Args:
      values: name -> integers of an activation that it reads, [N, ...].
    """
    read = {name: values[name] for name in operator.inputs if name in values}
    size = num_images(HELD_BYTES, np.dtype(np.int64).itemsize * _values_of_image(graph, operator))
    parts = zip(*(portions(integers, size) for integers in read.values()), strict=True)
    return np.concatenate([_run(graph, operator, dict(zip(read, part, strict=True)), arithmetic) for part in parts])


def _values_of_image(graph: IntegerGraph, operator: Operator) -> int:
    """Number of values that an operator holds for one image: what it reads and writes, and a convolution's windows."""
    input_, *others, output = (graph.tensors[name] for name in (*operator.inputs, operator.output))
    held = sum(math.prod(tensor.shape) for tensor in (input_, *others, output) if tensor.data is None)
    if OPERATORS[operator.kind] is _conv:
        held += math.prod(output.shape[1:3]) * math.prod(others[0].shape[1:3]) * input_.shape[3]
    return held


def _run(
    graph: IntegerGraph, operator: Operator, values: Mapping[str, np.ndarray], arithmetic: Arithmetic
) -> np.ndarray:
    inputs = [values[name] if name in values else graph.tensors[name].integers for name in operator.inputs]
    tensors = [graph.tensors[name] for name in operator.inputs]
    output = graph.tensors[operator.output]
    grouped = operator.kind == "CONV_2D" and num_groups(*tensors[:2]) > 1
    kind = GROUPED_CONVOLUTION if grouped else operator.kind
    arithmetic = arithmetic.of(kind, any(tensor.dtype == "int4" for tensor in tensors))
    result = OPERATORS[operator.kind](arithmetic, operator, tensors, inputs, output)
    return np.clip(result, *_clip(arithmetic, operator, output)).astype(output.dtype)


def _conv(arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor) -> np.ndarray:
    """Sums over windows are taken in float64, where products of 8-bit integers are exact."""
    input_, kernel, bias = tensors
    patches = _windows(inputs[0], kernel.shape[1:3], operator.options, input_.zero_point)  # [N, H, W, C, h, w]
    patches = patches.astype(np.float64) - input_.zero_point
    if operator.kind == "CONV_2D":
        groups = num_groups(input_, kernel)
        parts = zip(
            np.split(patches, groups, axis=3), np.split(kernel.integers.astype(np.float64), groups), strict=True
        )
        sums = np.concatenate([np.tensordot(x, w, ((4, 5, 3), (1, 2, 3))) for x, w in parts], axis=-1)
    else:
        per_channel = kernel.integers.reshape(*kernel.shape[1:3], input_.shape[3], -1)  # [h, w, C, multiplier]
        sums = np.einsum("nhwcij,ijcm->nhwcm", patches, per_channel.astype(np.float64))
        sums = sums.reshape(*sums.shape[:3], -1)
    sums = np.rint(sums).astype(np.int64) + bias.integers
    return arithmetic.convolution(sums, *_scales(input_, kernel, output)) + output.zero_point


def num_groups(input_: Tensor, kernel: Tensor) -> int:
    """Number of groups of a CONV_2D, which TFLite encodes only in how many input channels a filter reads."""
    return input_.shape[3] // kernel.shape[3]


def _fully_connected(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    input_, kernel, bias = tensors
    sums = (inputs[0].astype(np.float64) - input_.zero_point) @ kernel.integers.T.astype(np.float64)
    sums = np.rint(sums).astype(np.int64) + bias.integers
    return arithmetic.dense(sums, *_scales(input_, kernel, output)) + output.zero_point


def _add(arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor) -> np.ndarray:
    a, b = (x.astype(np.int64) - tensor.zero_point for x, tensor in zip(inputs, tensors, strict=True))
    return arithmetic.add(a, b, *_scales(*tensors, output)) + output.zero_point


def _multiply(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    a, b = (x.astype(np.int64) - tensor.zero_point for x, tensor in zip(inputs, tensors, strict=True))
    if operator.inputs[0] == operator.inputs[1]:
        scale, output_scale = _scales(tensors[0], output)
        return arithmetic.square(a, scale, output_scale, output.zero_point) + output.zero_point
    return arithmetic.multiply(a, b, *_scales(*tensors, output)) + output.zero_point


def _logistic(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    x = inputs[0].astype(np.int64) - tensors[0].zero_point
    return arithmetic.logistic(x, tensors[0].scales[0]) + output.zero_point


def _mean(arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor) -> np.ndarray:
    axes = tuple(tensors[1].integers.tolist())
    x = inputs[0].astype(np.int64) - tensors[0].zero_point
    sums = x.sum(axis=axes, keepdims=operator.options["keep_dims"])
    count, (scale, output_scale) = x.size // sums.size, _scales(tensors[0], output)
    means = arithmetic.mean(sums, count, scale, output_scale, tensors[0].zero_point, output.zero_point)
    return means + output.zero_point


def _quantize(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    x = inputs[0].astype(np.int64) - tensors[0].zero_point
    return arithmetic.requantize(x, *_scales(tensors[0], output)) + output.zero_point


def _leaky_relu(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    x = inputs[0].astype(np.int64) - tensors[0].zero_point
    return arithmetic.leaky_relu(x, 1, operator.options["alpha"], *_scales(tensors[0], output)) + output.zero_point


def _prelu(arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor) -> np.ndarray:
    input_, slopes = tensors
    x, codes = inputs[0].astype(np.int64) - input_.zero_point, slopes.integers.astype(np.int64) - slopes.zero_point
    return arithmetic.prelu(x, codes, *_scales(slopes, input_, output)) + output.zero_point


def _maximum(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    return np.maximum(*inputs)


def _max_pool(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    window = operator.options["filter_h"], operator.options["filter_w"]
    return _windows(inputs[0], window, operator.options, RANGES["int8"][0]).max(axis=(4, 5))


def _average_pool(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    """The average over unpadded pixels; sums are over integers as stored."""
    window = operator.options["filter_h"], operator.options["filter_w"]
    stored = inputs[0].astype(np.int64)
    sums, counts = (
        _windows(x, window, operator.options, 0).sum(axis=(4, 5)) for x in (stored, np.ones_like(stored[:1]))
    )
    return average_of_stored(sums, counts)


def _slice(arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor) -> np.ndarray:
    begin, size = (tensor.integers[1:].tolist() for tensor in tensors[1:])
    return inputs[0][(slice(None), *(slice(first, first + n) for first, n in zip(begin, size, strict=True)))]


def _resize_nearest(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    """For each output pixel, the input pixel into which its scaled centre falls."""
    rows, columns = (
        (2 * np.arange(side) + 1) * before // (2 * side)
        for side, before in zip(tensors[1].integers.tolist(), inputs[0].shape[1:3], strict=True)
    )
    return inputs[0][:, rows[:, np.newaxis], columns]


def _pad(arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor) -> np.ndarray:
    return np.pad(inputs[0], tensors[1].integers, constant_values=output.zero_point)


def _reshape(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    return inputs[0].reshape(-1, *output.shape[1:])


def _concatenation(
    arithmetic: Arithmetic, operator: Operator, tensors: Tensors, inputs: Inputs, output: Tensor
) -> np.ndarray:
    return np.concatenate(inputs, axis=operator.options["axis"])


OPERATORS: Mapping[str, Callable[[Arithmetic, Operator, Tensors, Inputs, Tensor], np.ndarray]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average_pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _fully_connected,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _logistic,
    "MAXIMUM": _maximum,
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "MUL": _multiply,
    "PAD": _pad,
    "PRELU": _prelu,
    "QUANTIZE": _quantize,
    "RESHAPE": _reshape,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "SLICE": _slice,
}


def _windows(x: np.ndarray, window: Sequence[int], options: dict, padding_value: int) -> np.ndarray:
    """[N, H, W, C, window height, window width]; 'same' pads less before than after, as TensorFlow does."""
    pads, slices, dilated = [(0, 0)], [slice(None)], []
    for size, taps, axis in zip(x.shape[1:3], window, "hw", strict=True):
        stride, dilation = options[f"stride_{axis}"], options.get(f"dilation_{axis}", 1)
        extent = (taps - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + extent - size, 0) if options["padding"] == "SAME" else 0
        pads.append((total // 2, total - total // 2))
        slices.append(slice(None, None, stride))
        dilated.append((extent, slice(None, None, dilation)))
    padded = np.pad(x, [*pads, (0, 0)], constant_values=padding_value)
    (height, rows), (width, columns) = dilated
    views = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return views[(*slices, slice(None), rows, columns)]


def _clip(arithmetic: Arithmetic, operator: Operator, output: Tensor) -> tuple[int, int]:
    """Lowest and highest integer that the output's type and the fused activation allow."""
    low, high = RANGES[output.dtype]
    activation = operator.options.get("activation", "NONE")
    if activation in ("RELU", "RELU6"):
        low = max(low, output.zero_point)
    if activation == "RELU6":
        high = min(high, output.zero_point + int(arithmetic.limit(6.0, output.scales[0])))
    return low, high


def _scales(*tensors: Tensor) -> list[Scale]:
    """The tensors' scales: one each, or for the kernel one per channel."""
    return [tensor.scales if tensor.scales.size > 1 else tensor.scales[0] for tensor in tensors]
