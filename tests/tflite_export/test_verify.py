"""python -m tflite_export.verify, in processes of its own."""

import json

import pytest

from qkd_tf.contract.targets import TARGETS
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import RUNTIMES, absence
from tflite_export.rebuilding.rebuild import rebuild


@pytest.fixture(scope="module")
def files(residual, edit, tmp_path_factory):
    """Files to check, by what they are."""

    def spoil(model):
        (kernel,) = [t for t in model.subgraphs[0].tensors if t.name == b"depthwise/kernel"]
        model.buffers[kernel.buffer].data[3] ^= 2

    folder = tmp_path_factory.mktemp("files")
    contents = {
        "honest": residual.content,
        "uint8": convert(rebuild(residual.handoff, "uint8"), "of a camera"),
        "int4": convert(store(rebuild(residual.handoff, "int8", "MAXIMUM"), "int4", TARGETS["microcontroller"]), ""),
        "spoiled": edit(residual.content, spoil),
        "text": b"no file of TensorFlow's",
        "tables": b"... TFLM_DECODE ...",
    }
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def ends(files, run_folder, end_of) -> dict:
    """How calls of the command end."""
    handoff = f"--handoff={run_folder.handoff}"
    files_of = {name: [f"--tflite={files}/{name}.tflite", handoff] for name in ("honest", "uint8", "spoiled", "text")}
    calls = {
        **files_of,
        "int4": [f"--tflite={files}/int4.tflite", handoff, "--target=microcontroller", "--runtimes="],
        "written": [*files_of["honest"], f"--json={files}/v.json", "--runtimes="],
        "no_flag": [],
        "no_handoff": [f"--tflite={files}/honest.tflite"],
        "no_file": [f"--tflite={files}/none.tflite", handoff],
        "no_folder": [f"--tflite={files}/honest.tflite", f"--handoff={files}"],
        "exchanged": [f"--tflite={run_folder.handoff}", f"--handoff={files}/honest.tflite"],
        "tables": [f"--tflite={files}/tables.tflite", handoff],
        "typo": [*files_of["honest"], "--runtimes=tfml"],
        "no_place": [*files_of["honest"], f"--json={files}/no/v.json"],
    }
    return end_of("tflite_export.verify", calls)


@pytest.mark.parametrize("name", ["honest", "uint8", "int4"])
def test_honest_file_passes_whatever_its_input_and_storage(ends, files, name):
    assert ends[name]["code"] in (0, None), ends[name]
    assert f"{files}/{name}.tflite: " in ends[name]["out"]


def test_every_runtime_is_told_of(ends):
    asked = [name for name in RUNTIMES if absence(name) is None]
    assert [
        line.split(":")[0] for line in ends["honest"]["out"].splitlines() if " of the integers are as predicted" in line
    ] == asked


def test_verification_is_written_where_it_was_asked_for(ends, files):
    assert ends["written"]["code"] in (0, None), ends["written"]
    verification = json.loads((files / "v.json").read_text())
    assert verification["passed"] is True and list(verification["runtimes"]) == ["litert"]


@pytest.mark.parametrize(
    "name, failure",
    [
        ("spoiled", "FAILED: tensor depthwise/kernel has 1 other integers than expected"),
        ("text", "FAILED: not a .tflite"),
    ],
)
def test_damaged_file_is_refused_with_a_failing_exit(ends, files, name, failure):
    assert failure in ends[name]["err"]
    assert ends[name]["code"] == f"error: {files}/{name}.tflite was refused"
    assert "top-1" not in ends[name]["out"]


@pytest.mark.parametrize(
    "name, words",
    [
        ("no_flag", "--tflite is missing; give --tflite=FILE and --handoff=DIR"),
        ("no_handoff", "--handoff is missing"),
        ("no_file", "none.tflite is not a file; give a file such as"),
        ("no_folder", "lacks student.keras"),
        ("exchanged", "a file; swap them"),
        ("tables", "tables.tflite has lookup tables; its export compared it with model.tflite"),
        ("typo", "unknown runtime 'tfml' in --runtimes; did you mean tflm?"),
        ("no_place", ": there is no folder "),
    ],
)
def test_mistake_is_one_line_and_a_failing_exit(ends, name, words):
    code = ends[name]["code"]
    assert isinstance(code, str)  # sys.exit of a text prints it to stderr and exits with 1
    assert code.startswith("error: ") and words in code
    assert "\n" not in code
    assert ends[name]["out"] == ""
