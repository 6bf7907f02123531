import json
import shutil

import numpy as np
import pytest

from qkd_tf.contract.grid import unsigned_grid, weight_grid
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS
from qkd_tf.storage import durable
from tflite_export.export_error import ExportError
from tflite_export.load import load_handoff

FILES = (
    "student.keras",
    "weights.npz",
    "weight_params.json",
    "tensor_params.json",
    "labels.txt",
    "test_images.npy",
    "test_labels.npy",
    "student_logits.npy",
    "integer_logits.npz",
    "integer_codes.npz",
)


@pytest.fixture
def folder(run_folder, tmp_path):
    """A handoff of one's own, to spoil."""
    return shutil.copytree(run_folder.handoff, tmp_path / "handoff")


def test_handoff_holds_exactly_the_files_that_export_asks_for(run_folder):
    assert sorted(path.name for path in run_folder.handoff.iterdir()) == sorted([*FILES, durable.MANIFEST])


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named_with_the_command_that_writes_it(folder, name):
    (folder / name).unlink()
    with pytest.raises(ExportError) as caught:
        load_handoff(folder)
    assert (
        str(caught.value)
        == f"{folder} lacks {name}, which the end of training writes; run python -m qkd_tf.train to its end first"
    )


def test_all_missing_files_are_listed_at_once(tmp_path):
    with pytest.raises(ExportError) as caught:
        load_handoff(tmp_path / "handoff")
    assert all(name in str(caught.value) for name in FILES)
    assert "\n" not in str(caught.value)


def test_parts_come_back_as_they_were_written(run_folder):
    handoff = load_handoff(run_folder.handoff)
    assert handoff.weights.keys() == handoff.weight_params.keys() == {"stem", "depthwise", "linear", "logits"}
    assert {codes.dtype.name for codes in handoff.weights.values()} == {"int8"}
    assert handoff.weights["stem"].shape == (3, 3, 3, 4)
    assert handoff.weight_params["linear"].grid == weight_grid(3)
    assert handoff.tensor_params["depthwise_relu"].grid == unsigned_grid(4)
    assert handoff.label_names == [f"class {i}" for i in range(5)]
    assert (handoff.test_images.shape, handoff.test_images.dtype.name) == ((32, 8, 8, 3), "uint8")
    assert (handoff.test_labels.shape, handoff.student_logits.shape) == ((32,), (32, 5))
    assert handoff.student_logits.dtype.name == "int8"


def test_predictions_are_sorted_by_runtime_and_tensor(run_folder):
    handoff = load_handoff(run_folder.handoff)
    assert handoff.integer_logits.keys() == handoff.integer_codes.keys() == ARITHMETICS.keys()
    for runtime, codes in handoff.integer_codes.items():
        assert codes.keys() >= handoff.tensor_params.keys()
        assert {values.dtype.name for values in codes.values()} == {"int8"}
        num_images = len(codes["logits"])
        assert 0 < num_images <= len(handoff.test_images)
        np.testing.assert_array_equal(codes["logits"], handoff.integer_logits[runtime][:num_images])
        assert handoff.integer_logits[runtime].shape == handoff.student_logits.shape


def test_kernels_of_the_student_are_its_integers_times_their_scale(run_folder):
    handoff = load_handoff(run_folder.handoff)
    for name, codes in handoff.weights.items():
        kernel = handoff.student.get_layer(name).get_weights()[0]
        np.testing.assert_array_equal(kernel, codes * np.float32(handoff.weight_params[name].scale))


def test_integers_that_are_not_the_students_are_refused_by_layer(folder):
    with np.load(folder / "weights.npz") as arrays:
        integers = {name: arrays[name] for name in arrays.files}
    integers["linear"].flat[3] += 1
    np.savez(folder / "weights.npz", **integers)
    durable.seal(folder)
    with pytest.raises(ExportError, match="the integers of layer linear in weights.npz are not those of student.keras"):
        load_handoff(folder)


def test_predictions_of_another_version_are_refused(folder):
    with np.load(folder / "integer_logits.npz") as arrays:
        np.savez(folder / "integer_logits.npz", litert=arrays["litert"])
    durable.seal(folder)
    with pytest.raises(ExportError, match="was written by another version; run python -m qkd_tf.train to its end"):
        load_handoff(folder)


def cut(content):
    return content[: len(content) // 3]


def flip(content):
    return content[:-7] + bytes([content[-7] ^ 4]) + content[-6:]


@pytest.mark.parametrize("spoil", [cut, flip, lambda content: b"", lambda content: b"something else\n"])
@pytest.mark.parametrize("name", [*FILES, durable.MANIFEST])
def test_changed_file_is_named_in_one_line(folder, name, spoil):
    (folder / name).write_bytes(spoil((folder / name).read_bytes()))
    with pytest.raises(ExportError) as caught:
        load_handoff(folder)
    assert str(caught.value).startswith(str(folder / name)) and "\n" not in str(caught.value)


def test_handoff_without_a_manifest_is_refused(folder):
    (folder / durable.MANIFEST).unlink()
    told = "has no manifest.json: it was never finished, or another version of qkd_tf wrote it; run"
    with pytest.raises(ExportError, match=told):
        load_handoff(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name != "labels.txt"])
def test_file_that_was_broken_when_it_was_sealed_is_one_line(folder, name):
    (folder / name).write_bytes(cut((folder / name).read_bytes()))
    durable.seal(folder)
    with pytest.raises(ExportError) as caught:
        load_handoff(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_images_stay_on_disk(run_folder):
    assert isinstance(load_handoff(run_folder.handoff).test_images, np.memmap)


def test_scales_keep_every_bit_of_float32(run_folder):
    rows = json.loads((run_folder.handoff / "weight_params.json").read_text())
    for name, params in load_handoff(run_folder.handoff).weight_params.items():
        assert params.scale == rows[name]["scale"] == float(np.float32(rows[name]["scale"]))


def test_integers_in_a_pickle_are_not_executed(folder):
    np.savez(folder / "weights.npz", stem=np.array([{"a": 1}], dtype=object))
    durable.seal(folder)
    with pytest.raises(ExportError, match="holds object, not numbers"):
        load_handoff(folder)
