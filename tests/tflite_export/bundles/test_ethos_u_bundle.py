"""export/ethos_u/: what Vela makes of a file, its estimates, and the 8-bit twin that they are compared with."""

import copy
import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.bundles.verifications import VERIFICATION
from tflite_export.bundles import ethos_u_bundle, vela
from tflite_export.bundles.bundle import Delivery
from tflite_export.bundles.ethos_u_bundle import at_8_bits
from tflite_export.bundles.vela import Vela
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.rebuilding.rebuild import rebuild

needs_vela = pytest.mark.skipif(vela.absence() is not None, reason=str(vela.absence()))


@pytest.fixture(scope="module")
def content(residual) -> bytes:
    return convert(rebuild(residual.handoff, "int8"), "")


@pytest.fixture(scope="module")
def delivered(residual, content):
    """A bundle and the verification beside it."""
    verification = copy.deepcopy(VERIFICATION)
    files = ethos_u_bundle.files(Delivery("run", content, None, residual.handoff, verification, 0))
    return files, verification


@needs_vela
def test_bundle_has_what_the_npu_runs(delivered):
    files, verification = delivered
    assert sorted(files) == ["ethos_u/README.md", "ethos_u/model_vela.tflite"]
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(files["ethos_u/model_vela.tflite"]))
    assert [code.customCode for code in model.operatorCodes] == [b"ethos-u"]  # nothing is left to the CPU
    figures = verification["vela"]
    assert figures["cpu_operators"] == 0 < figures["npu_operators"] and figures["accelerator"] == "Ethos_U55_128"
    assert 0 < figures["cycles"] and 0 < figures["sram_bytes"] and 0 < figures["off_chip_flash_bytes"]


@needs_vela
def test_readme_has_every_estimate_beside_that_of_8_bits(delivered):
    files, verification = delivered
    text = files["ethos_u/README.md"].decode()
    figures = verification["vela"]
    assert f"| cycles per inference | {figures['cycles']:,} | {figures['at_8_bits']['cycles']:,} |" in text
    assert "was **not** verified" in text and "{{" not in text


@needs_vela
def test_another_npu_has_other_estimates(content, delivered):
    _, figures = Vela("ethos-u85-256", "Ethos_U85_SYS_DRAM_High").compile(content)
    assert figures["system_config"] == "Ethos_U85_SYS_DRAM_High" and figures["dram_bytes"] > 0
    assert figures["cycles"] != delivered[1]["vela"]["cycles"]


@needs_vela
def test_configuration_that_vela_does_not_know_is_refused_in_one_line(content):
    with pytest.raises(ExportError, match="--vela_system_config=Nonsense: .*Nonsense.*list-configs") as caught:
        Vela(system_config="Nonsense").compile(content)
    assert "\n" not in str(caught.value)


def test_without_vela_a_note_says_how_to_have_it(residual, content, monkeypatch):
    monkeypatch.setattr(vela, "absence", lambda: "ethos-u-vela is not installed")
    verification = copy.deepcopy(VERIFICATION)
    assert ethos_u_bundle.files(Delivery("run", content, None, residual.handoff, verification, 0)) == {}
    assert verification["notes"] == ["ethos_u/ was not written: ethos-u-vela is not installed"]


def test_twin_has_8_bit_integers_that_lie_around_the_narrow_ones(content):
    graph = read_back(content)
    wide = at_8_bits(graph)
    for (_, kernel), (_, twin) in zip(graph.kernels(), wide.kernels(), strict=True):
        highest = max(7, np.abs(kernel.data).max())
        if highest > 7:  # 8 bits already
            np.testing.assert_array_equal(twin.data, kernel.data)
            continue
        assert np.abs(twin.data / (127 / 7) - kernel.data).max() <= 0.5 + 0.5 * 7 / 127
        assert len(np.unique(twin.data)) > len(np.unique(kernel.data))
    assert {name for name, t in wide.tensors.items() if t is not graph.tensors[name]} == {
        kernel.name for _, kernel in graph.kernels()
    }
    assert dataclasses.replace(wide, tensors={}) == dataclasses.replace(graph, tensors={})
