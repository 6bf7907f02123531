import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import QuantizationSpec, TargetSpec
from qkd_tf.quantization.plan import QuantizationPlan
from qkd_tf.quantization.stored_bytes import StoredWidths
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, constant
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.rebuilding.rebuild import rebuild


def constants(content: bytes) -> list[tuple[int, int]]:
    """(position in the file, length) of the data of every buffer that has some."""
    model = schema.Model.GetRootAs(content)
    found = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            field = buffer._tab.Offset(4)  # `data` is the first field of a Buffer
            found.append((buffer._tab.Vector(field), buffer.DataLength()))
    return found


def test_file_has_the_identifier_and_version_that_runtimes_look_for(exported):
    assert exported.content[4:8] == b"TFL3"
    assert schema.Model.GetRootAs(exported.content).Version() == 3


def test_every_constant_starts_at_a_multiple_of_16_bytes(exported):
    found = constants(exported.content)
    assert len(found) == sum(tensor.data is not None for tensor in exported.graph.tensors.values())
    assert [position for position, _ in found if position % 16] == []


def test_constants_lie_in_the_file_byte_for_byte(exported):
    model = schema.Model.GetRootAs(exported.content)
    subgraph = model.Subgraphs(0)
    for i, tensor in enumerate(exported.graph.tensors.values()):
        buffer = subgraph.Tensors(i).Buffer()
        if tensor.data is None:
            assert buffer == 0  # the empty buffer, by TFLite's convention
        else:
            assert model.Buffers(buffer).DataAsNumpy().tobytes() == tensor.data.tobytes()
    assert model.Buffers(0).DataLength() == 0


@pytest.mark.slow
def test_training_knows_the_bytes_of_a_file_before_there_is_one(exported):
    """Each kernel's, and of the whole file a little more than it has."""
    model, kernels, tensors = (
        getattr(exported.handoff, what) for what in ("student", "weight_params", "tensor_params")
    )
    grids = ({name: params.grid for name, params in found.items()} for found in (kernels, tensors))
    plan = QuantizationPlan(*grids, {}, frozenset(), {}, {})
    spec = QuantizationSpec(narrow_range=all(grid.is_narrow for grid in plan.weight_grids.values()))
    for name, storage in (("phone", "int8"), ("phone", "int4"), ("phone", "int4_all"), ("microcontroller", "int4")):
        stored = StoredWidths(model, plan, TargetSpec(name, weight_storage=storage), spec)
        target = TARGETS[name]
        graph = store(rebuild(exported.handoff, target.input_type, target.clip), storage, target)
        kernels = {kernel.name.removesuffix("/kernel"): kernel.num_bytes for _, kernel in graph.kernels()}
        expected = {layer: -(-kernels[layer] // 16) * 16 for layer in stored.widest}
        assert {layer: stored.kernel_bytes(layer, bits) for layer, bits in stored.widest.items()} == expected
        size = len(convert(graph, "qkd_tf 1.23.4"))
        assert size <= stored.file_bytes <= 1.1 * size + 400


def test_same_graph_gives_the_same_bytes(exported):
    again = convert(rebuild(exported.handoff, "int8"), "test")
    assert again == exported.content


def test_no_tensor_is_float(exported):
    details = Interpreter(model_content=exported.content).get_tensor_details()
    assert {np.dtype(detail["dtype"]).name for detail in details} <= {"int8", "int32"}


def test_description_is_in_the_file(residual):
    assert schema.Model.GetRootAs(convert(residual.graph, "qkd 1, demo")).Description() == b"qkd 1, demo"


@pytest.mark.parametrize("input_type, shift", [("int8", 128), ("uint8", 0)])
def test_signature_takes_pixels_and_gives_logits(residual, input_type, shift):
    interpreter = Interpreter(model_content=convert(rebuild(residual.handoff, input_type), ""))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["pixels"], "outputs": ["logits"]}}
    assert interpreter.get_input_details()[0]["dtype"] == np.dtype(input_type)
    assert interpreter.get_output_details()[0]["dtype"] == np.int8
    run = interpreter.get_signature_runner()
    for image, expected in zip(residual.handoff.test_images[:8], residual.handoff.student_logits, strict=False):
        (logits,) = run(pixels=(image[np.newaxis].astype(int) - shift).astype(input_type))["logits"]
        assert np.corrcoef(logits, expected)[0, 1] > 0.9  # which integers exactly, test_rebuild.py says


def test_interpreter_reads_the_parameters_that_the_graph_has(residual):
    details = {d["name"]: d for d in Interpreter(model_content=residual.content).get_tensor_details()}
    for name, tensor in residual.graph.tensors.items():
        parameters = details[name]["quantization_parameters"]
        np.testing.assert_array_equal(parameters["scales"], tensor.scales)
        np.testing.assert_array_equal(parameters["zero_points"], np.full(tensor.scales.size, tensor.zero_point))
        assert parameters["quantized_dimension"] == (tensor.axis or 0)
        assert tuple(details[name]["shape"]) == tensor.shape


def test_per_channel_dense_layer_asks_for_the_version_that_knows_it(exported):
    model = schema.Model.GetRootAs(exported.content)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    versions = sorted(c.Version() for c in codes if c.BuiltinCode() == schema.BuiltinOperator.FULLY_CONNECTED)
    assert versions == {"dense": [4], "dense_batch_norm": [4, 12], "prelu": [4]}.get(exported.name, [])


# Kernels that fit INT4: those of inner layers, and of first or last ones where the case makes them narrow.
NUM_INT4 = dict.fromkeys(
    ("add", "add_relu", "max_pool", "pads", "requantize_unsigned", "requantize_signed", "relu6", "relu6_half_a_step"), 1
)
NUM_INT4 |= {
    "pointwise": 4,
    "relu6_then_relu": 1,
    "depth_multiplier": 2,
    "groups": 1,  # those in groups are never INT4
    "relu6_half_a_step_narrow": 3,
    "bits_rule": 1,
    "swish_low_bit": 1,
    "hard_swish": 1,
    "leaky_relu": 1,
    "prelu": 1,
    "squeeze_excite": 1,
    "relu_alone": 1,
    "relu6_alone": 2,
    "maximum": 2,
    "concatenation": 2,
    "concatenation_low_bit": 3,
}


def test_int4_kernels_lie_aligned_in_half_the_bytes_and_come_back_as_they_were(exported):
    graph = store(exported.graph, "int4_all", TARGETS["phone"])
    content = convert(graph, "")
    model, found = schema.Model.GetRootAs(content), read_back(content)
    num_int4 = 0
    for i, (name, tensor) in enumerate(graph.tensors.items()):
        np.testing.assert_array_equal(found.tensors[name].data, exported.graph.tensors[name].data)
        np.testing.assert_array_equal(found.tensors[name].scales, exported.graph.tensors[name].scales)
        assert found.tensors[name].dtype == tensor.dtype
        if tensor.dtype == "int4":
            num_int4 += 1
            written = model.Subgraphs(0).Tensors(i)
            assert written.Type() == schema.TensorType.INT4
            assert model.Buffers(written.Buffer()).DataLength() == (tensor.data.size + 1) // 2
    assert num_int4 == NUM_INT4.get(exported.name, 0)
    assert [position for position, _ in constants(content) if position % 16] == []


@pytest.mark.parametrize(
    "kind, shape, axis, version",
    [
        ("CONV_2D", (5, 1, 1, 1), 0, 7),
        ("DEPTHWISE_CONV_2D", (1, 1, 1, 5), 3, 7),
        ("FULLY_CONNECTED", (5, 1), None, 10),
        ("FULLY_CONNECTED", (5, 1), 0, 12),
    ],
)
def test_int4_kernel_byte_for_byte_and_the_version_that_knows_it(kind, shape, axis, version):
    codes = np.array([-7, 7, 3, -1, 1], np.int8).reshape(shape)
    graph = IntegerGraph("kernel", "kernel")
    graph.add_tensor(constant("kernel", codes, [0.5] * (1 if axis is None else 5), axis=axis))
    graph.operators.append(Operator(kind, ("kernel", "kernel"), "kernel"))
    graph.tensors["kernel"] = dataclasses.replace(graph.tensors["kernel"], dtype="int4")
    model = schema.Model.GetRootAs(convert(graph, ""))
    # The first of two integers is the lower half; the odd one out is beside a 0.
    assert model.Buffers(1).DataAsNumpy().tobytes() == bytes([0x79, 0xF3, 0x01])
    assert model.Subgraphs(0).Tensors(0).Type() == schema.TensorType.INT4
    assert model.OperatorCodes(0).Version() == version


@pytest.mark.parametrize(
    "storage, depthwise, linear",
    [("int4_all", 7, ("CONV_2D", 7)), ("int4", 3, ("FULLY_CONNECTED", 12))],  # 12: a scale for each channel
)
def test_int8_and_int4_operators_of_one_file_have_versions_of_their_own(residual, storage, depthwise, linear):
    model = schema.Model.GetRootAs(convert(store(residual.graph, storage, TARGETS["phone"]), ""))
    subgraph = model.Subgraphs(0)
    codes = [model.OperatorCodes(subgraph.Operators(i).OpcodeIndex()) for i in range(subgraph.OperatorsLength())]
    builtin = schema.BuiltinOperator
    assert [(code.BuiltinCode(), code.Version()) for code in codes] == [
        (builtin.CONV_2D, 3),  # the stem has 8 bits
        (builtin.QUANTIZE, 2),
        (builtin.DEPTHWISE_CONV_2D, depthwise),
        (getattr(builtin, linear[0]), linear[1]),
        (builtin.ADD, 2),
        (builtin.MEAN, 2),
        (builtin.FULLY_CONNECTED, 4),
    ]


def test_outputs_are_the_tensors_that_are_asked_for_in_that_order(residual):
    names = ["pool", "logits", "stem_relu"]
    details = Interpreter(model_content=convert(residual.graph, "", outputs=names)).get_output_details()
    assert [detail["name"] for detail in details] == names


def test_operator_without_a_row_is_refused(residual):
    operators = [dataclasses.replace(residual.graph.operators[0], kind="SOFTMAX"), *residual.graph.operators[1:]]
    with pytest.raises(KeyError, match="SOFTMAX"):
        convert(dataclasses.replace(residual.graph, operators=operators), "")
