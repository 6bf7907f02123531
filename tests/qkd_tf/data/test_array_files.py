import os

import numpy as np
import pytest

from qkd_tf import data
from qkd_tf.data.memory_set import source_of
from qkd_tf.data.sources import lasting
from qkd_tf.experiment import DataSpec, ExperimentError

LABELS = np.arange(20) % 4
SERIES = np.random.default_rng(0).normal(0, 1, (20, 12, 3)).astype(np.float32)
ARRAYS = {"x_train": SERIES, "y_train": LABELS, "x_test": SERIES[:8, ::-1], "y_test": LABELS[:8]}


def save_npz(path, arrays):
    np.savez(path / "set.npz", **arrays)
    return f"npz:{path / 'set.npz'}"


def save_npy(path, arrays):
    for name, values in arrays.items():
        np.save(path / f"{name}.npy", values)
    return f"npy:{path}"


SAVES = pytest.mark.parametrize("save", [save_npz, save_npy])


def open_source(name, **changes):
    return data.open_source(DataSpec(name, batch_size=4, validation_fraction=0.25, **changes))


@SAVES
def test_arrays_of_files_are_those_of_python(tmp_path, save):
    name = save(tmp_path, ARRAYS)
    expected = source_of(
        (SERIES, LABELS), (SERIES[:8, ::-1], LABELS[:8]), None, DataSpec("x", validation_fraction=0.25), None
    )
    source = open_source(name)
    assert source.content_sha256 == expected.content_sha256 and source.notes == expected.notes
    assert data.describe(DataSpec(name)) == ((12, 3), list("0123"))
    assert source.input_params == expected.input_params
    assert data.Rereading(DataSpec(name)).shape == (8, 12, 3)


@SAVES
def test_a_validation_set_other_splits_and_names_of_classes_are_taken(tmp_path, save):
    arrays = ARRAYS | {
        "x_validation": SERIES[8:14, ::-1],
        "y_validation": LABELS[8:14],
        "label_names": np.array(list("abcd")),
    }
    source = open_source(save(tmp_path, arrays))
    assert source.validation.num_examples == 6 and source.train.num_examples == 20
    assert source.label_names == list("abcd") and len(source.notes) == 1
    other = open_source(save(tmp_path, arrays | {"z": LABELS}), test_split="validation")
    assert (other.test.num_examples, other.validation.num_examples) == (6, 5)
    assert other.notes[1].endswith(": x_test, y_test, z")


def test_a_folder_may_name_classes_as_folders_of_pictures_do(tmp_path):
    (tmp_path / "labels.txt").write_text("yes\nno\nup\ndown\n")
    assert open_source(save_npy(tmp_path, ARRAYS)).label_names == ["yes", "no", "up", "down"]


def test_a_file_of_keras_datasets_holds_grey_pictures(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (20, 28, 28)).astype(np.uint8)
    name = save_npz(tmp_path, ARRAYS | {"x_train": pictures, "x_test": 255 - pictures[:8]})
    source = open_source(name)
    assert source.image_shape == (28, 28, 1) and source.input_params is None
    assert source.notes == ("note: arrays of shape (20, 28, 28) are read as grey pictures; for signals give --signals",)
    assert open_source(name, image_size=14, image_channels=3).image_shape == (14, 14, 3)
    series = open_source(name, signals=True)
    assert series.image_shape == (28, 28) and series.input_params.scale == 1.0


@SAVES
@pytest.mark.parametrize(
    "changed, message",
    [
        ({"y_train": None}, "lacks the arrays y_train; it has .*; x_train, y_train, x_test, y_test are needed"),
        ({"x_test": None, "y_test": None}, "lacks the arrays x_test, y_test"),
        ({"x_train": SERIES[:19]}, "train has 19 examples and 20 labels; one label for each"),
        ({"x_train": np.float32(1)}, "x_train is one number"),
        ({"x_train": SERIES.astype(object)}, "cannot be read"),
        ({"y_test": LABELS[:8] - 1}, "test has the label -1"),
        ({"y_train": LABELS.astype(str)}, "train has labels of <U21"),
    ],
)
def test_arrays_that_do_not_do_are_told_in_one_line(tmp_path, save, changed, message):
    arrays = {name: values for name, values in (ARRAYS | changed).items() if values is not None}
    with pytest.raises(ExperimentError, match=message) as caught:
        open_source(save(tmp_path, arrays))
    assert "\n" not in str(caught.value)


def test_paths_that_lead_nowhere_are_told(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    for name, message in (
        (f"npz:{tmp_path}/set.npz", "set.npz is not a file"),
        (f"npz:{tmp_path}/text.npz", "text.npz cannot be read as arrays: File is not a zip file"),
        (f"npy:{tmp_path}/none", "none is not a folder"),
        (f"npy:{tmp_path}", "lacks the arrays x_train, y_train, x_test, y_test; it has none"),
        (f"{tmp_path}/set.npz", "if it is a file of arrays: --dataset=npz:"),
        ("set.npz", "if it is a file of arrays: --dataset=npz:set.npz"),
    ):
        with pytest.raises(ExperimentError, match=message):
            open_source(name)
    with pytest.raises(ExperimentError, match="--data_dir=d is only for TFDS data sets"):
        open_source(save_npz(tmp_path, ARRAYS), data_dir="d")


@pytest.mark.parametrize("name", ["digits", "folder:pictures"])
def test_flags_of_signals_are_told_where_there_are_pictures(name):
    for changes, flag in (({"signals": True}, "signals"), ({"input_zero_point": 0}, "input_zero_point")):
        with pytest.raises(ExperimentError, match=f"--{flag}: only for signals, and --dataset={name} has pictures"):
            open_source(name, **changes)


def test_another_process_finds_the_files_from_another_folder():
    for kind in ("npz", "npy"):
        assert lasting(DataSpec(f"{kind}:set")).name == f"{kind}:{os.getcwd()}/set"
