"""A test split too large for a copy: read again, proven, and as good as the copy for all who ask for pixels."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from qkd_tf import data
from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import TARGETS
from qkd_tf.data.rereading import Rereading
from qkd_tf.experiment import DataSpec, Experiment, NetworkSpec, PixelNormalization, QuantizationSpec, TrainingSpec
from qkd_tf.outcome import handed_split, handoff, results
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.storage import durable
from qkd_tf.storage.run_folder import RunFolder
from tflite_export import split
from tflite_export.export_error import ExportError
from tflite_export.exporter import export
from tflite_export.flatbuffer.convert import convert
from tflite_export.load import load_handoff
from tflite_export.proof.verification import examine
from tflite_export.rebuilding.rebuild import rebuild
from tflite_export.split import Reread, UnreadableError

PHONE = TARGETS["phone"]
LOW = QuantizationSpec(weight_bits=3, activation_bits=4)
NUM_TEST = 35


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 5 classes, 8 x 8 pixels: 10 pictures for training, 35 for the test."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, number in (("train", 10), ("test", NUM_TEST)):
        for index in range(number):
            folder = root / part / f"class {index % 5}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{index}.png")
    return root


def write(run_dir, root, student):
    """Run folder of a student that was calibrated on these pictures."""
    spec = DataSpec(f"folder:{os.path.relpath(root)}", batch_size=4, validation_fraction=0.3)
    splits, folder = data.load(spec), RunFolder(str(run_dir), [])
    folder.claim()
    quantized = quantize_student(student, LOW)
    calibrate(quantized, [images for images, _ in splits.calibration], "minmax")
    handed_over = handoff.write(quantized, splits, folder)
    experiment = Experiment(
        run_dir=str(run_dir),
        seed=0,
        data=spec,
        student=NetworkSpec("residual", PixelNormalization((128.0,), (64.0,))),
        teacher=None,
        quantization=LOW,
        training=TrainingSpec(phases=()),
    )
    results.write(folder, experiment, splits, handed_over, [])
    return folder


@pytest.fixture(scope="module")
def runs(pictures, tmp_path_factory, make_residual_student):
    """The same run twice: with a copy of its test split, and without."""
    with pytest.MonkeyPatch.context() as patch:
        copied = write(tmp_path_factory.mktemp("copied") / "run", pictures, make_residual_student())
        patch.setattr(handed_split, "MAX_COPY_BYTES", NUM_TEST * 8 * 8 * 3 - 1)
        return copied, write(tmp_path_factory.mktemp("reread") / "run", pictures, make_residual_student())


@pytest.fixture
def moved(runs, pictures, tmp_path):
    """(pictures, handoff) of one's own, to spoil."""
    root, folder = shutil.copytree(pictures, tmp_path / "pictures"), shutil.copytree(runs[1].handoff, tmp_path / "h")
    change_record(folder, data=recorded(folder)["data"] | {"name": f"folder:{root}"})
    return root, folder


def recorded(folder):
    return durable.read_json(folder / split.RECORD)


def change_record(folder, **changes):
    durable.write_json(folder / split.RECORD, recorded(folder) | changes)
    durable.seal(folder)


def test_both_handoffs_have_the_same_files_but_for_the_pictures(runs):
    copied, reread = ({path.name: path for path in run.handoff.iterdir()} for run in runs)
    assert copied.keys() - reread.keys() == {"test_images.npy"} and reread.keys() - copied.keys() == {"test_split.json"}
    for name in copied.keys() & reread.keys() - {"manifest.json", "student.keras"}:  # a .keras has the time in it
        assert copied[name].read_bytes() == reread[name].read_bytes(), name
    assert set(recorded(runs[1].handoff)) == {"shape", "content_sha256", "data"}


def test_record_from_before_large_jpegs_were_scaled_reads_them_whole():
    record = {"data": dataclasses.asdict(DataSpec("folder:x", image_size=28))}
    assert split._spec(record).scales_jpegs
    del record["data"]["scales_jpegs"]
    assert not split._spec(record).scales_jpegs


@pytest.mark.slow
def test_pictures_are_those_of_the_copy_to_the_pixel(runs):
    copied, reread = (load_handoff(run.handoff).test_images for run in runs)
    assert isinstance(copied, np.memmap) and isinstance(reread, Reread)
    assert (reread.shape, reread.dtype, len(reread)) == (copied.shape, copied.dtype, len(copied))
    np.testing.assert_array_equal(np.stack(list(reread)), copied)
    np.testing.assert_array_equal(np.stack(list(reread[:7])), copied[:7])
    assert len(reread[:1000]) == NUM_TEST and reread[30:][:3].shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(np.stack(list(reread[30:][1:3])), copied[31:33])
    for number in (0, 17, -1):
        np.testing.assert_array_equal(reread[number], copied[number])
    np.testing.assert_array_equal(reread[30:][2], copied[32])
    with pytest.raises(IndexError):
        reread[NUM_TEST]


@pytest.mark.slow
def test_file_is_judged_by_the_pictures_as_by_their_copy(runs):
    rows = []
    for run in runs:
        found = load_handoff(run.handoff)
        graph = rebuild(found, "uint8")
        verification, classes = examine(convert(graph, ""), graph, found, Gate(0, 0), PHONE)
        assert verification["passed"], verification["failures"]
        assert verification["num_images"] == NUM_TEST
        for row in verification["runtimes"].values():
            row.pop("median_seconds", None)
        rows.append((verification["runtimes"], {name: answers.tolist() for name, answers in classes.items()}))
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_export_shows_the_pictures_that_were_lost(runs, tmp_path):
    pages = []
    for number, run in enumerate(runs):
        path = shutil.copytree(run.path, tmp_path / str(number) / "run")
        labels = np.load(path / "handoff" / "test_labels.npy").tolist()
        facts = {"origin": "weights", "test_top1": 100.0, "classes": labels}  # full precision is right on all of them
        diagnosis = {"format": 1, "full_precision": facts, "num_images": 0, "tensors": []}
        (path / "diagnosis.json").write_text(json.dumps(diagnosis))
        export(path, runtimes=["litert"])
        pages.append((path / "report.html").read_text())
    shown = [[line for line in page.splitlines() if "data:image/png" in line] for page in pages]
    assert shown[0] == shown[1] != []


def test_pictures_are_held_some_at_a_time(runs, monkeypatch):
    monkeypatch.setattr("qkd_tf.data.rereading.BATCH_BYTES", 3 * 8 * 8 * 3)
    sizes = [len(images) for images, _ in load_handoff(runs[1].handoff).test_images.batches()]
    assert sizes == [3] * 11 + [2]


def test_handoff_is_read_from_any_folder(runs, monkeypatch, tmp_path):
    """The run was told of its pictures by a path that began where it was started."""
    monkeypatch.chdir(tmp_path)
    assert len(load_handoff(runs[1].handoff).test_images) == NUM_TEST


def test_opening_reads_each_picture_once_and_none_of_the_training_set(runs, monkeypatch):
    seen, original = [], Rereading.batches

    def counting(self, *part):
        for images, labels in original(self, *part):
            seen.append(len(images))
            yield images, labels

    monkeypatch.setattr(Rereading, "batches", counting)
    monkeypatch.setattr("qkd_tf.data.folder.look", lambda *_: pytest.fail("the whole set is looked at"))
    load_handoff(runs[1].handoff)
    assert sum(seen) == NUM_TEST


def spoil_pixel(root):
    path = next((root / "test").glob("*/*.png"))
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)


def swap_labels(root):
    first, other = root / "test" / "class 0" / "0.png", root / "test" / "class 1" / "1.png"
    first.rename(root / "aside.png"), other.rename(first), (root / "aside.png").rename(other)


SPOILED = {
    "no folder": (shutil.rmtree, "it cannot be read again: --dataset=folder:.* is not a folder"),
    "a picture less": (lambda root: (root / "test" / "class 0" / "0.png").unlink(), r"\[35, 8, 8, 3\] has become \(34"),
    "a pixel": (spoil_pixel, "no longer what training read: a pixel, a label or their order has changed; put the"),
    "labels": (swap_labels, "no longer what training read: a pixel, a label or their order has changed; put the"),
    "no picture": (
        lambda root: (root / "test" / "class 0" / "0.png").write_bytes(b"\xff\xd8no picture"),
        "the test split cannot be read again: folder:.* cannot be read: .*; prepare the set again, or repair the file",
    ),
}


@pytest.mark.parametrize("spoil, message", SPOILED.values(), ids=SPOILED)
def test_pictures_that_are_not_those_of_the_training_are_told_in_a_line(moved, spoil, message):
    root, folder = moved
    assert len(load_handoff(folder).test_images) == NUM_TEST
    spoil(root)
    with pytest.raises(ExportError, match=message) as caught:
        load_handoff(folder)
    assert "\n" not in str(caught.value)


def test_pictures_that_go_while_a_file_is_judged_end_it_and_are_no_fault_of_the_file(moved):
    root, folder = moved
    found = load_handoff(folder)
    graph = rebuild(found, "uint8")
    shutil.rmtree(root)
    with pytest.raises(UnreadableError, match="the test split cannot be read again: folder:.* cannot be read: "):
        examine(convert(graph, ""), graph, found, Gate(), PHONE, ["litert"])


@pytest.mark.parametrize("name", ["huggingface:mnist", "kaggle:cats", "gs://bucket/set", ""])
def test_strangers_handoff_has_nothing_downloaded(moved, name):
    _, folder = moved
    change_record(folder, data=recorded(folder)["data"] | {"name": name})
    with pytest.raises(ExportError, match="which is not a data set on this machine"):
        load_handoff(folder)


@pytest.mark.parametrize("changes", [{"data": 5}, {"data": {"name": 5}}, {"data": {"nam": "digits"}}, {"shape": None}])
def test_record_of_nonsense_is_a_line(moved, changes):
    _, folder = moved
    change_record(folder, **changes)
    with pytest.raises(ExportError) as caught:
        load_handoff(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_split_that_only_python_has_is_copied_whatever_its_size(monkeypatch, make_splits, tmp_path):
    monkeypatch.setattr(handed_split, "MAX_COPY_BYTES", 0)
    splits = make_splits()
    assert splits.spec is None
    for _ in handed_split.passing(splits, tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["test_images.npy"]


def test_digest_is_of_pictures_whatever_the_batches(runs, pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(handed_split, "MAX_COPY_BYTES", 0)
    spec = DataSpec(f"folder:{pictures}", batch_size=7, validation_fraction=0.3)
    for _ in handed_split.passing(data.load(spec), tmp_path):
        pass
    expected = recorded(runs[1].handoff) | {"data": dataclasses.asdict(spec)}
    assert recorded(tmp_path) == expected
