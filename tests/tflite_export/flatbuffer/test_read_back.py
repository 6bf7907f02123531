import copy
import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor, constant
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.rebuilding.rebuild import rebuild


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
        (
            "DEPTHWISE_CONV_2D",
            {**window, "activation": "RELU", "dilation_h": 4, "dilation_w": 5, "depth_multiplier": 6},
        ),
        ("MAX_POOL_2D", {**window, "filter_h": 6, "filter_w": 7}),
        ("AVERAGE_POOL_2D", {**window, "filter_h": 6, "filter_w": 7}),
        ("RESIZE_NEAREST_NEIGHBOR", {"half_pixel_centers": True}),
        ("SLICE", {}),
        ("MEAN", {"keep_dims": True}),
        ("CONCATENATION", {"axis": 3, "activation": "NONE"}),
        ("ADD", {"activation": "RELU6"}),
        ("FULLY_CONNECTED", {"activation": "RELU", "keep_num_dims": True}),
        ("LEAKY_RELU", {"alpha": 0.25}),
        ("PRELU", {}),
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
    assert found.options == {"activation": "NONE", "keep_num_dims": False, "weightsFormat": 1}


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


def tensor_of(model, name: str):
    (tensor,) = [t for t in model.subgraphs[0].tensors if t.name == name.encode()]
    return tensor


def test_int4_kernels_are_read_back_integer_for_integer(residual):
    """With the versions that INT4 asks for, an odd number of integers, and each of the 15."""
    tensors = {
        name: dataclasses.replace(residual.graph.tensors[name], dtype="int4")
        for name in ("depthwise/kernel", "linear/kernel")
    }
    codes = np.arange(-7, 8, dtype=np.int8).reshape(5, 3)
    scales = np.full(5, 0.5, np.float32)
    tensors["logits/kernel"] = Tensor("logits/kernel", codes.shape, "int4", scales, axis=0, data=codes)
    graph = dataclasses.replace(residual.graph, tensors=residual.graph.tensors | tensors)
    assert_equal_graphs(read_back(convert(graph, "")), graph)


@pytest.mark.parametrize(
    "field, value",
    [
        ("shapeSignature", [-1, 4]),
        ("isVariable", True),
        ("sparsity", schema.SparsityParametersT()),
        ("variantTensors", [schema.VariantSubTypeT()]),
        ("externalBuffer", 1),
    ],
)
def test_property_of_a_tensor_that_we_never_write_is_refused(residual, edit, field, value):
    content = edit(residual.content, lambda model: setattr(tensor_of(model, "pool"), field, value))
    with pytest.raises(ValueError, match=f"^tensor pool has {field} .*, which we never write$"):
        read_back(content)


def test_quantization_beyond_scales_and_zero_points_is_refused(residual, edit):
    content = edit(residual.content, lambda model: setattr(tensor_of(model, "pool").quantization, "max", [6.0]))
    with pytest.raises(ValueError, match=r"the quantization of tensor pool has max \[6.0\]"):
        read_back(content)


def test_constants_outside_the_flatbuffer_are_refused(residual, edit):
    def change(model):
        model.buffers[tensor_of(model, "linear/kernel").buffer].offset = 64

    with pytest.raises(ValueError, match="the buffer of tensor linear/kernel has offset 64"):
        read_back(edit(residual.content, change))


@pytest.mark.parametrize("num_bytes", [15, 17])
def test_constants_of_another_length_than_the_shape_has_are_refused_by_name(residual, edit, num_bytes):
    def change(model):
        model.buffers[tensor_of(model, "linear/kernel").buffer].data = np.ones(num_bytes, np.uint8)

    with pytest.raises(ValueError, match=f"tensor linear/kernel has {num_bytes} bytes; int8 .* takes 16"):
        read_back(edit(residual.content, change))


def test_zero_points_that_are_not_one_a_scale_are_refused(residual, edit):
    content = edit(
        residual.content, lambda model: setattr(tensor_of(model, "linear/kernel").quantization, "zeroPoint", [0, 0])
    )
    with pytest.raises(ValueError, match="linear/kernel has 4 scales and 2 zero points"):
        read_back(content)


def test_axis_of_a_single_scale_is_told(residual, edit):
    def change(model):
        tensor_of(model, "add").quantization.quantizedDimension = 3

    assert read_back(edit(residual.content, change)).tensors["add"].axis == 3
    assert residual.graph.tensors["add"].axis is None


def test_type_and_operator_that_the_schema_does_not_know_are_told_by_number(residual, edit):
    def change(model):
        tensor_of(model, "pool").type = 99
        code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
        code.deprecatedBuiltinCode, code.builtinCode = 127, 9999
        model.subgraphs[0].operators[-1].builtinOptions.fusedActivationFunction = 77

    found = read_back(edit(residual.content, change))
    assert found.tensors["pool"].dtype == "type 99"
    assert found.operators[0].kind == "operator code 9999"
    assert found.operators[-1].options["activation"] == 77


@pytest.mark.parametrize(
    "owner, field, value, told",
    [
        ("code", "version", 5, 5),
        ("code", "customCode", b"Mine", b"Mine"),
        ("operator", "outputs", [14, 0], ["logits", "normalization"]),
        ("operator", "intermediates", [3], [3]),
        ("operator", "customOptions", [1], [1]),
        ("operator", "mutatingVariableInputs", [True], [True]),
    ],
)
def test_what_an_operator_has_beyond_its_options_is_told_among_them(residual, edit, owner, field, value, told):
    def change(model):
        operator = model.subgraphs[0].operators[-1]
        setattr(operator if owner == "operator" else model.operatorCodes[operator.opcodeIndex], field, value)

    assert list(residual.graph.tensors)[14] == "logits"
    found = read_back(edit(residual.content, change)).operators[-1]
    assert found.options == {"activation": "NONE", "keep_num_dims": False, field: told}


def test_options_under_a_type_that_is_not_the_operators_are_told(residual, edit):
    """A runtime finds no options then, whatever fields they share with the operator's own."""

    def change(model):
        (operator,) = [o for o in model.subgraphs[0].operators if isinstance(o.builtinOptions, schema.AddOptionsT)]
        operator.builtinOptions, operator.builtinOptionsType = schema.SubOptionsT(), schema.BuiltinOptions.SubOptions

    (found,) = [o for o in read_back(edit(residual.content, change)).operators if o.kind == "ADD"]
    assert found.options == {"activation": "NONE", "builtinOptionsType": "SubOptions"}


def test_depth_multiplier_is_told_though_it_be_the_schemas_default(residual, edit):
    """0 is that, but runtimes on microcontrollers multiply by it."""

    def change(model):
        (operator,) = [o for o in model.subgraphs[0].operators if hasattr(o.builtinOptions, "depthMultiplier")]
        operator.builtinOptions.depthMultiplier = 0

    found = read_back(edit(residual.content, change))
    assert [o.options["depth_multiplier"] for o in found.operators if o.kind == "DEPTHWISE_CONV_2D"] == [0]
    assert [o.options["depth_multiplier"] for o in residual.graph.operators if o.kind == "DEPTHWISE_CONV_2D"] == [1]


def test_new_shape_among_the_options_of_a_reshape_is_told(residual, edit):
    def change(model):
        operator = model.subgraphs[0].operators[-1]
        operator.builtinOptions = schema.ReshapeOptionsT()
        operator.builtinOptions.newShape = [1, -1]
        operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions

    found = read_back(edit(residual.content, change)).operators[-1]
    assert found.options == {"newShape": [1, -1], "builtinOptionsType": "ReshapeOptions"}


def test_signature_of_another_subgraph_is_refused(residual, edit):
    content = edit(residual.content, lambda model: setattr(model.signatureDefs[0], "subgraphIndex", 1))
    with pytest.raises(ValueError, match="signature serving_default has subgraphIndex 1"):
        read_back(content)


def test_signature_with_one_name_twice_is_refused(residual, edit):
    def change(model):
        (signature,) = model.signatureDefs
        signature.outputs.append(signature.outputs[0])

    with pytest.raises(ValueError, match="the signature has serving_default/logits twice, for logits and logits"):
        read_back(edit(residual.content, change))


def test_signature_that_gives_out_the_input_is_told(residual, edit):
    def change(model):
        (signature,) = model.signatureDefs
        signature.outputs.append(signature.inputs.pop())

    found = read_back(edit(residual.content, change)).signature
    assert found == {
        "serving_default/logits": "logits",
        "serving_default/pixels (at the wrong end)": "normalization",
    }


@pytest.mark.parametrize("field, value", [("metadataBuffer", [0]), ("version", 2)])
def test_model_that_is_more_than_a_graph_is_refused(residual, edit, field, value):
    with pytest.raises(ValueError, match="the model has metadataBuffer|schema version 2; 3 is expected"):
        read_back(edit(residual.content, lambda model: setattr(model, field, value)))


def test_negative_index_of_an_output_is_not_taken_for_one_from_the_end(residual, edit):
    def change(model):
        model.subgraphs[0].operators[-1].outputs = [-1]

    with pytest.raises(ValueError, match="not a whole .tflite"):
        read_back(edit(residual.content, change))
