import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tflite_export.convert import convert
from tflite_export.rebuild import rebuild


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
    assert versions == {"dense": [4], "dense_batch_norm": [4, 12]}.get(exported.name, [])


def test_operator_without_a_row_is_refused(residual):
    operators = [dataclasses.replace(residual.graph.operators[0], kind="SOFTMAX"), *residual.graph.operators[1:]]
    with pytest.raises(KeyError, match="SOFTMAX"):
        convert(dataclasses.replace(residual.graph, operators=operators), "")
