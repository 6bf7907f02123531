"""Scratch memory that Arm's kernels take from TFLM's arena, in addition to what the reference kernels take.

Computed as CMSIS-NN's own functions do (arm_convolve_s8_get_buffer_size and the like), in the version that TFLM of
August 2026 downloads. Cores with the DSP extension (Cortex-M4, M7, M33) take other amounts than cores with vector
instructions (MVE; M55, M85).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from tflite_export.flatbuffer.graph import IntegerGraph, Operator

MVE_CHANNELS = 124  # of a block of depthwise channels, whatever the layer has
COLUMNS = 4  # pixels that MVE's matrix product takes at once; the DSP's takes two, as int16
LANES = 16


class Scratch(NamedTuple):
    """Bytes on cores with the DSP extension, and with MVE."""

    dsp: int
    mve: int


def scratch(graph: IntegerGraph) -> Scratch:
    """Bytes to add to an arena: the most that any operator takes while it runs, and what Dense layers keep."""
    kept = [_dense(graph, operator) for operator in graph.operators if operator.kind == "FULLY_CONNECTED"]
    passing = [_PASSING[o.kind](graph, o) for o in graph.operators if o.kind in _PASSING]
    return Scratch(*(max((s[i] for s in passing), default=0) + sum(s[i] for s in kept) for i in range(2)))


def _convolution(graph: IntegerGraph, operator: Operator) -> Scratch:
    shape = graph.tensors[operator.inputs[1]].shape
    if shape[1:3] == (1, 1) and not _dilated(operator) and shape[3] == _channels(graph, operator):
        return Scratch(0, 0)
    return _columns(math.prod(shape[1:]))


def _columns(length: int) -> Scratch:
    """Bytes for windows of `length` integers, laid out for a matrix product."""
    return Scratch(dsp=2 * 2 * -(-length // 4) * 4, mve=COLUMNS * -(-length // LANES) * LANES)


def _depthwise(graph: IntegerGraph, operator: Operator) -> Scratch:
    kernel, channels = graph.tensors[operator.inputs[1]], _channels(graph, operator)
    window = math.prod(kernel.shape[1:3])
    if channels == 1:  # MVE computes it as a convolution, of a kernel that is transposed
        as_convolution = _columns(window).mve + kernel.integers.size
        return Scratch(dsp=2 * window, mve=max(as_convolution, COLUMNS * MVE_CHANNELS * window))
    if _dilated(operator) or kernel.shape[3] != channels:
        return Scratch(0, 0)
    has_own_kernel = kernel.dtype == "int8" and kernel.shape[1:3] == (3, 3)
    return Scratch(dsp=0 if has_own_kernel else 2 * channels * window, mve=COLUMNS * MVE_CHANNELS * window)


def _average(graph: IntegerGraph, operator: Operator) -> Scratch:
    return Scratch(dsp=4 * _channels(graph, operator), mve=0)


def _dense(graph: IntegerGraph, operator: Operator) -> Scratch:
    return Scratch(dsp=0, mve=4 * graph.tensors[operator.inputs[1]].shape[0])


_PASSING: dict[str, Callable[[IntegerGraph, Operator], Scratch]] = {
    "AVERAGE_POOL_2D": _average,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
}


def _channels(graph: IntegerGraph, operator: Operator) -> int:
    return graph.tensors[operator.inputs[0]].shape[-1]


def _dilated(operator: Operator) -> bool:
    return {operator.options.get("dilation_h", 1), operator.options.get("dilation_w", 1)} != {1}
