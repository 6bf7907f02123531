from collections import Counter

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.contract.ratio_limits import LIMITS
from qkd_tf.outcome import handoff
from qkd_tf.quantization.integer_limits import of_operator
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor, constant
from tflite_export.rebuilding.ratios import check_ratios, ratios
from tflite_export.rebuilding.rebuild import rebuild


def graph(kind: str, *input_scales: float, kernel=None, output_scale=1.0, **options) -> IntegerGraph:
    found = IntegerGraph()
    for i, scale in enumerate(input_scales):
        found.add_tensor(Tensor(f"x{i}", (1, 2), "int8", np.array([scale], np.float32)))
    if kernel:
        found.add_tensor(constant("kernel", np.zeros((2, 2), np.int8), kernel, axis=0))
        found.add_tensor(constant("bias", np.zeros(2, np.int32), kernel, axis=0))
    found.add_tensor(Tensor("y", (1, 2), "int8", np.array([output_scale], np.float32)))
    found.operators.append(Operator(kind, tuple(name for name in found.tensors if name != "y"), "y", options))
    return found


@pytest.mark.parametrize(
    "made, expected",
    [
        (graph("QUANTIZE", 0.5, output_scale=2.0), [0.25]),
        (graph("ADD", 4.0, 0.5), [4.0, 0.5]),
        (graph("CONV_2D", 0.5, kernel=[4.0, 16.0], output_scale=2.0), [4.0]),
        (graph("LEAKY_RELU", 0.5, output_scale=2.0, alpha=-0.5), [0.25, 0.125]),
        (graph("PRELU", 0.5, 0.25, output_scale=2.0), [0.25, 0.0625]),
    ],
)
def test_ratio_is_that_of_the_largest_step(made, expected):
    assert ratios(made, made.operators[0]) == expected


@pytest.mark.parametrize(
    "made",
    [
        graph("QUANTIZE", 1 / 257),
        graph("QUANTIZE", 256.0),
        graph("ADD", 1.0, 256.0),
        graph("LEAKY_RELU", 1 / 257, alpha=2.0),
        graph("LEAKY_RELU", 0.25, alpha=1 / 65),
        graph("LEAKY_RELU", 0.25, alpha=float("nan")),
        graph("PRELU", 1.0, 128.0),
        graph("MEAN", 128.0),
        graph("FULLY_CONNECTED", 2.0, kernel=[1.0, 128.0]),
    ],
)
def test_ratio_that_no_kernel_holds_is_refused_by_the_tensor_and_in_one_line(made):
    with pytest.raises(ExportError, match="^tensor y: one step of its inputs is .* of its own steps, and ") as caught:
        check_ratios(made)
    assert "\n" not in str(caught.value)


def test_ratios_at_the_limits_pass():
    check_ratios(graph("QUANTIZE", 1 / 256))
    check_ratios(graph("ADD", 255.0, 1e-9))
    check_ratios(graph("CONV_2D", 2.0, kernel=[1.0, 127.0]))
    check_ratios(graph("LEAKY_RELU", 0.25, alpha=-1 / 64))
    check_ratios(graph("RESHAPE", 1e9))


def test_operators_that_rescale_have_a_row(exported):
    for operator in exported.graph.operators:
        if any(ratio != 1 for ratio in ratios(exported.graph, operator)):
            assert operator.kind in LIMITS


@pytest.mark.slow
def test_training_looks_at_the_ratios_of_the_file(monkeypatch, make_handoff, randomize):
    """Those of 1 left out: a clip has one more, a move of integers none."""
    x = pixels = tf_keras.Input((4, 4, 1), name="pixels")
    x = layers.Conv2D(2, 3, name="stem")(layers.Rescaling(1 / 64, -2.0, name="normalization")(x))
    x = layers.PReLU(name="slopes")(layers.LeakyReLU(0.1, name="leaky")(x))
    x = layers.DepthwiseConv2D(1, use_bias=False, name="depthwise")(x)
    x = shortcut = layers.BatchNormalization(name="bn")(x)
    x = layers.Multiply(name="swish")([x, layers.Activation("sigmoid", name="sigmoid")(x)])
    x = layers.Concatenate(name="concat")([layers.Add(name="add")([shortcut, x]), shortcut])
    x = layers.ZeroPadding2D(1, name="pad")(layers.AveragePooling2D((1, 2), padding="same", name="there")(x))
    x = layers.Conv2D(2, 1, name="linear")(layers.AveragePooling2D((2, 1), name="windows")(x))
    x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D(name="mean")(x))
    students = []
    monkeypatch.setattr(handoff, "require_within_limits", students.append)
    graph = rebuild(make_handoff(randomize(tf_keras.Model(pixels, x))))
    rescaling = [(operator.kind, ratios(graph, operator)) for operator in graph.operators if operator.kind in LIMITS]
    (student,) = students
    known = [of_operator(student, operator) for operator in student.operators]

    def counted(rows) -> Counter:
        return Counter((kind, f"{ratio:.6g}") for kind, found in rows for ratio in found if ratio != 1)

    assert counted(known) == counted(rescaling)
    assert {kind for kind, _ in counted(known)} == {*LIMITS}
