"""What the bytes of a file are spent on, counted by hand."""

import numpy as np

from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor, constant
from tflite_export.flatbuffer.parts import parts


def graph() -> IntegerGraph:
    """A convolution of 3 x 3 from 4 to 8 channels onto a map of 5 x 6, with a bias, and a Dense layer without one."""
    found = IntegerGraph("x", "z")
    for name, shape in (("x", (1, 5, 6, 4)), ("y", (1, 5, 6, 8)), ("z", (1, 3))):
        found.add_tensor(Tensor(name, shape, "int8", np.ones(1, np.float32)))
    for tensor in (
        constant("a/kernel", np.zeros((8, 3, 3, 4), np.int8), np.ones(8), axis=0),
        constant("a/bias", np.zeros(8, np.int32), np.ones(8), axis=0),
        constant("b/kernel", np.zeros((3, 240), np.int8), [1.0]),
        constant("axes", np.array([1, 2], np.int32)),
    ):
        found.add_tensor(tensor)
    found.operators = [Operator("CONV_2D", ("x", "a/kernel", "a/bias"), "y")]
    found.operators.append(Operator("FULLY_CONNECTED", ("y", "b/kernel"), "z"))
    return found


def test_parts_add_up_to_the_file():
    found = parts(graph(), 5_000)
    assert found == {"kernel_bytes": 288 + 720, "bias_bytes": 32, "scale_bytes": 12 * (3 + 17), "other_bytes": 3_720}
    assert sum(found.values()) == 5_000


def test_multiply_adds_are_those_of_every_output():
    depthwise = IntegerGraph("x", "y")
    depthwise.add_tensor(Tensor("x", (1, 5, 6, 4), "int8", np.ones(1)))
    depthwise.add_tensor(Tensor("y", (1, 5, 6, 8), "int8", np.ones(1)))
    depthwise.add_tensor(constant("kernel", np.zeros((1, 3, 3, 8), np.int8), [1.0]))
    depthwise.operators = [Operator("DEPTHWISE_CONV_2D", ("x", "kernel"), "y")]
    assert depthwise.multiply_adds == 5 * 6 * 8 * 9
    assert graph().multiply_adds == 5 * 6 * 8 * 9 * 4 + 3 * 240
