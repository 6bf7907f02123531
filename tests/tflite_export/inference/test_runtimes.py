import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_export.export_error import ExportError
from tflite_export.inference import runtimes
from tflite_export.inference.runtimes import RUNTIMES, absence, check_names, every_tensor, infer, input_codes, litert


@pytest.fixture(params=RUNTIMES)
def runtime(request) -> str:
    if reason := absence(request.param):
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("name", ["litert", "litert_reference"])
def test_litert_that_does_not_take_the_file_is_told_in_one_line(residual, name):
    for content in (b"TFL3 but nothing else", b"    TFL3" + bytes(64)):
        with pytest.raises(ExportError, match=f"{name} does not take the file") as caught:
            infer(name, residual.graph, content, residual.handoff.test_images)
        assert "\n" not in str(caught.value)


def test_tflm_that_does_not_take_the_file_prints_nothing_of_its_own(residual, edit, capfd):
    if reason := absence("tflm"):
        pytest.skip(reason)

    def mix_types(model):  # an operator's input that is no longer of its kernel's type
        graph = model.subgraphs[0]
        graph.tensors[graph.operators[-1].inputs[0]].type = schema.TensorType.INT32

    with pytest.raises(ExportError, match="^tflm does not take the file: .+$"):
        infer("tflm", residual.graph, edit(residual.content, mix_types), residual.handoff.test_images)
    assert capfd.readouterr() == ("", "")


def test_images_run_one_by_one_in_order(residual, runtime):
    images = residual.handoff.test_images
    together, facts = infer(runtime, residual.graph, residual.content, images)
    assert together.dtype == np.int8 and together.shape == (len(images), 5)
    assert facts["median_seconds"] > 0
    for i in (0, 7, 31):
        alone, _ = infer(runtime, residual.graph, residual.content, images[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])


def test_every_tensor_ends_in_the_logits(residual, runtime):
    images = residual.handoff.test_images[:5]
    codes = every_tensor(runtime, residual.graph, residual.content, images)
    assert list(codes) == [operator.output for operator in residual.graph.operators]
    logits, _ = infer(runtime, residual.graph, residual.content, images)
    np.testing.assert_array_equal(codes["logits"], logits)
    for name, values in codes.items():
        assert values.shape == (5, *residual.graph.tensors[name].shape[1:])


def test_codes_of_pixels_are_shifted_for_int8_alone(residual):
    images = np.array([[[[0, 128, 255]]]], np.uint8)
    assert next(input_codes(residual.graph, images)).ravel().tolist() == [-128, 0, 127]


@pytest.mark.parametrize("machine, row", [("x86_64", ""), ("AMD64", ""), ("aarch64", "_arm64"), ("arm64", "_arm64")])
def test_int4_convolutions_of_litert_are_those_of_the_processor_that_is_asked(machine, row):
    rows = litert(None, machine)
    assert {name: runtime.row for name, runtime in rows.items()} == {
        "litert": f"litert_int4{row}",
        "litert_reference": "litert_reference",
    }


def test_package_that_is_absent_is_a_reason_and_no_error(monkeypatch):
    monkeypatch.setattr(runtimes, "TFLM_MODULE", "no_such_package")
    assert "pip install -r requirements-micro.txt" in absence("tflm")
    assert absence("litert") is absence("litert_reference") is None


def test_unknown_runtime_is_refused_in_one_line():
    assert check_names(["tflm", "litert"]) == ["tflm", "litert"]
    with pytest.raises(ExportError, match="unknown runtime 'tfml' in --runtimes; did you mean tflm[?]$"):
        check_names(["litert", "tfml"])


def test_what_native_code_prints_is_caught_and_the_streams_are_put_back(capfd):
    import os

    assert runtimes._printed(lambda: (os.write(1, b"one "), os.write(2, b"two"))) == "one two"
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"
