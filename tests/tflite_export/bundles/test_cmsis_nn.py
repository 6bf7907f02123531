"""Scratch of Arm's kernels, by hand from CMSIS-NN's arm_..._get_buffer_size functions."""

import numpy as np
import pytest

from tflite_export.bundles.cmsis_nn import scratch
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor, constant

DILATED = {"dilation_h": 2, "dilation_w": 1}


def graph_of(*rows):
    """Operators in turn: (kind, channels in, shape of the kernel or None, its dtype, options)."""
    graph = IntegerGraph("x", "y")
    for number, (kind, channels, shape, dtype, options) in enumerate(rows):
        graph.add_tensor(Tensor(f"x{number}", (1, 8, 8, channels), "int8", np.ones(1, np.float32)))
        inputs = [f"x{number}"]
        if shape is not None:
            kernel = constant(f"k{number}", np.zeros(shape, np.int8), [1.0])
            graph.add_tensor(Tensor(kernel.name, kernel.shape, dtype, kernel.scales, data=kernel.data))
            inputs.append(kernel.name)
        graph.operators.append(Operator(kind, tuple(inputs), f"x{number + 1}", options))
    return graph


@pytest.mark.parametrize(
    "row, dsp, mve",
    [
        (("CONV_2D", 3, (8, 3, 3, 3), "int8", {}), 4 * 28, 4 * 32),  # 27 integers a window
        (("CONV_2D", 64, (8, 3, 3, 64), "int4", {}), 4 * 576, 4 * 576),
        (("CONV_2D", 64, (8, 1, 1, 64), "int8", {}), 0, 0),
        (("CONV_2D", 64, (8, 1, 1, 32), "int8", {}), 4 * 32, 4 * 32),  # of two groups
        (("DEPTHWISE_CONV_2D", 16, (1, 3, 3, 16), "int8", {}), 0, 4464),
        (("DEPTHWISE_CONV_2D", 16, (1, 3, 3, 16), "int4", {}), 2 * 16 * 9, 4464),
        (("DEPTHWISE_CONV_2D", 480, (1, 5, 5, 480), "int8", {}), 24_000, 12_400),
        (("DEPTHWISE_CONV_2D", 16, (1, 3, 3, 16), "int8", DILATED), 0, 0),
        (("DEPTHWISE_CONV_2D", 16, (1, 3, 3, 32), "int8", {}), 0, 0),
        (("DEPTHWISE_CONV_2D", 1, (1, 3, 3, 900), "int8", {}), 18, 4 * 16 + 8100),
        (("AVERAGE_POOL_2D", 10, None, "", {}), 40, 0),
        (("FULLY_CONNECTED", 10, (7, 10), "int8", {}), 0, 28),
        (("ADD", 10, None, "", {}), 0, 0),
    ],
)
def test_scratch_of_an_operator(row, dsp, mve):
    assert scratch(graph_of(row)) == (dsp, mve)


def test_operators_take_turns_and_dense_layers_keep_theirs():
    dense = ("FULLY_CONNECTED", 10, (7, 10), "int8", {})
    convolutions = [("CONV_2D", c, (8, 3, 3, c), "int8", {}) for c in (16, 64, 32)]
    assert scratch(graph_of(*convolutions, dense, dense)) == (4 * 576, 4 * 576 + 2 * 28)


def test_network_of_nothing_takes_nothing():
    assert scratch(graph_of()) == (0, 0)
