import copy

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_export.convert import convert
from tflite_export.graph import IntegerGraph, Operator, Tensor, constant
from tflite_export.read_back import read_back
from tflite_export.rebuild import rebuild


def assert_equal_graphs(found: IntegerGraph, expected: IntegerGraph) -> None:
    assert (found.input, found.output) == (expected.input, expected.output)
    assert found.operators == expected.operators
    assert list(found.tensors) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        for field, value in vars(tensor).items():
            other = getattr(found.tensors[name], field)
            if isinstance(value, np.ndarray):
                assert other.dtype == value.dtype, f"{name}.{field}"
                np.testing.assert_array_equal(other, value, f"{name}.{field}")
            else:
                assert other == value, f"{name}.{field}"


@pytest.mark.parametrize("input_type", ["int8", "uint8"])
def test_what_was_written_is_read_back_tensor_by_tensor(exported, input_type):
    graph = rebuild(exported.handoff, input_type)
    assert_equal_graphs(read_back(convert(graph, "")), graph)


def test_every_option_of_every_operator_survives_at_a_value_of_its_own():
    window = {"padding": "VALID", "stride_h": 2, "stride_w": 3, "activation": "RELU6"}
    rows = [
        ("CONV_2D", {**window, "dilation_h": 4, "dilation_w": 5}),
        ("DEPTHWISE_CONV_2D", {**window, "activation": "RELU", "dilation_h": 4, "dilation_w": 5}),
        ("MAX_POOL_2D", {**window, "filter_h": 6, "filter_w": 7}),
        ("MEAN", {"keep_dims": True}),
        ("CONCATENATION", {"axis": 3, "activation": "NONE"}),
        ("ADD", {"activation": "RELU6"}),
        ("FULLY_CONNECTED", {"activation": "RELU"}),
        ("PAD", {}),
        ("RESHAPE", {}),
        ("QUANTIZE", {}),
        ("MAXIMUM", {}),
    ]
    graph = IntegerGraph("t0", f"t{len(rows)}")
    for i in range(len(rows) + 1):
        graph.add_tensor(Tensor(f"t{i}", (1, i + 1), "int8", np.array([0.5], np.float32), -i))
    graph.add_tensor(constant("c", np.arange(12, dtype=np.int8).reshape(3, 4), [0.1, 0.2, 0.3], axis=0))
    for i, (kind, options) in enumerate(rows):
        graph.operators.append(Operator(kind, (f"t{i}", "c"), f"t{i + 1}", options))
    assert_equal_graphs(read_back(convert(graph, "")), graph)


@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"PK\x03\x04" * 30, bytes(64)], ids=["empty", "short", "zip", "zeros"]
)
def test_what_is_no_tflite_is_refused(content):
    with pytest.raises(ValueError, match="not a .tflite"):
        read_back(content)


def test_tflite_that_is_cut_off_is_refused(residual):
    with pytest.raises(ValueError):
        read_back(residual.content[: len(residual.content) // 2])


def test_several_subgraphs_are_refused(residual, edit):
    content = edit(residual.content, lambda model: model.subgraphs.append(copy.deepcopy(model.subgraphs[0])))
    with pytest.raises(ValueError, match="2 subgraphs"):
        read_back(content)


@pytest.mark.parametrize("ends", ["inputs", "outputs"])
def test_several_inputs_or_outputs_are_refused(residual, edit, ends):
    def change(model):
        setattr(model.subgraphs[0], ends, [0, 1])

    with pytest.raises(ValueError, match=f"2 {ends}"):
        read_back(edit(residual.content, change))


def test_tensor_with_several_zero_points_is_refused(residual, edit):
    def change(model):
        (kernel,) = [t for t in model.subgraphs[0].tensors if t.name == b"linear/kernel"]
        kernel.quantization.zeroPoint = [0, 1, 0, 0]

    with pytest.raises(ValueError, match="linear/kernel has several zero points"):
        read_back(edit(residual.content, change))


def test_option_that_we_never_write_is_told(residual, edit):
    def change(model):
        model.subgraphs[0].operators[-1].builtinOptions.weightsFormat = 1

    found = read_back(edit(residual.content, change)).operators[-1]
    assert found.options == {"activation": "NONE", "weightsFormat": 1}


def test_operator_beyond_the_old_code_field_is_named(residual, edit):
    def change(model):
        code = schema.OperatorCodeT()
        code.deprecatedBuiltinCode, code.builtinCode = 127, schema.BuiltinOperator.GELU
        model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex] = code

    assert read_back(edit(residual.content, change)).operators[0].kind == "GELU"


def test_left_out_optional_input_is_not_taken_for_the_last_tensor(residual, edit):
    """TFLite writes -1 where there is no bias; as a Python index that is the last tensor, here the bias itself."""

    def change(model):
        model.subgraphs[0].operators[-1].inputs[2] = -1

    found = read_back(edit(residual.content, change)).operators[-1]
    assert list(residual.graph.tensors)[-1] == "logits/bias"
    assert found != residual.graph.operators[-1]
