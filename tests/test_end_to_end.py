"""The whole job as a user starts it: configs/demo.flags through both commands."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from tf_keras import layers

import tflite_export
from qkd_tf import ablation, fit
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import ExperimentError

ROOT = pathlib.Path(__file__).parents[1]


def run_module(*arguments):
    return subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run folder of the demo, trained and exported."""
    run_dir = tmp_path_factory.mktemp("runs") / "demo"
    for command in (
        ("qkd_tf.train", "--flagfile=configs/demo.flags", f"--run_dir={run_dir}"),
        ("tflite_export", f"--run_dir={run_dir}"),
    ):
        done = run_module(*command)
        assert done.returncode == 0, done.stderr[-3000:]
    return run_dir


def test_file_reaches_97_percent_and_is_what_was_trained(demo):
    verification = json.loads((demo / "export" / "verification.json").read_text())
    assert verification["passed"] and verification["failures"] == []
    assert verification["num_images"] == 360
    litert = verification["runtimes"]["litert"]
    assert litert["top1"] >= 97.0
    assert litert["student"]["top1_agreement"] >= 99.5


def test_every_runtime_computes_what_keras_predicts(demo):
    verification = json.loads((demo / "export" / "verification.json").read_text())
    assert set(verification["runtimes"]) == {"litert", "litert_reference", "tflm"}
    for row in (row for row in verification["runtimes"].values() if "not_run" not in row):
        assert row["operators"]["equal_codes"] == row["codes"]["equal_codes"] == 100
        assert row["integer_student"]["equal_logits"] == 100


def test_file_is_integer_on_four_bit_grids(demo):
    verification = json.loads((demo / "export" / "verification.json").read_text())
    assert {row["type"] for row in verification["tensors"]} == {"int8", "uint8", "int32"}
    assert set(verification["operators"]) == {"QUANTIZE", "CONV_2D", "MEAN", "FULLY_CONNECTED"}
    rows = {row["name"]: row for row in verification["tensors"]}
    for kernel in ("conv2/kernel", "conv3/kernel", "conv4/kernel"):
        assert rows[kernel]["num_bits"] == 4 and rows[kernel]["num_levels"] <= 15
    for tensor in ("relu1", "relu2", "relu3"):  # 0..15 at the top of int8
        assert (rows[tensor]["num_bits"], rows[tensor]["zero_point"]) == (4, 112)
    assert rows["conv1/kernel"]["num_bits"] == rows["logits/kernel"]["num_bits"] == 8


def test_camera_bytes_give_the_right_digit_through_the_signature(demo):
    labels = (demo / "export" / "labels.txt").read_text().split()
    images, truth = (np.load(demo / "handoff" / f"test_{what}.npy") for what in ("images", "labels"))
    runner = Interpreter(str(demo / "export" / "model.tflite")).get_signature_runner("serving_default")
    hits = [
        labels[int(runner(pixels=image[np.newaxis])["logits"].argmax())] == str(t)
        for image, t in zip(images[:50], truth, strict=False)
    ]
    assert np.mean(hits) >= 0.9


def test_results_name_phases_versions_seed_and_data(demo):
    results = json.loads((demo / "results.json").read_text())
    assert [phase["phase"] for phase in results["phases"]] == [
        "full_precision",
        "self_studying",
        "co_studying",
        "tutoring",
    ]
    assert results["seed"] == 0 and len(results["data"]["test_sha256"]) == 64
    assert "tensorflow" in results["versions"]
    assert (demo / "report.html").stat().st_size > 10_000
    assert any((demo / "logs").iterdir())


@pytest.mark.slow
def test_finished_run_started_again_from_its_flags_trains_nothing_and_gives_the_same_file(demo):
    """By the ablation's own hand, whose cells are ordinary runs."""
    before = (demo / "export" / "model.tflite").read_bytes()
    verification = json.loads((demo / "export" / "verification.json").read_text())
    trained = contents(demo / "checkpoints")
    cell = ablation.run_cell([f"--flagfile={demo / 'flags.txt'}"], demo)
    assert contents(demo / "checkpoints") == trained
    assert (demo / "export" / "model.tflite").read_bytes() == before
    assert cell["passed"] and cell["tflite_top1"] == verification["runtimes"]["litert"]["top1"]
    assert (cell["num_images"], cell["bytes"]) == (360, len(before))
    results = json.loads((demo / "results.json").read_text())  # BatchNorm is estimated anew before quantization
    assert cell["full_precision_top1"] == results["full_precision"]["test_top1"]
    assert [phase["phase"] for phase in cell["phases"]] == ["full_precision", *ablation.PLAN]
    assert all(len(phase["validation_top1"]) == phase["epochs"] for phase in cell["phases"])
    assert "history" not in cell["phases"][0] and cell["seconds"] > 0


def test_a_cell_that_cannot_be_trained_tells_the_last_line(tmp_path):
    with pytest.raises(ExperimentError, match="python -m qkd_tf.train --run_dir=.*: error: .*--phases"):
        ablation.run_cell([f"--run_dir={tmp_path / 'run'}", "--phases=none"], tmp_path / "run")


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A run of two steps, of a network with groups, depth multipliers, and pooling that standard_form writes anew.

    Kernels before a BatchNormalization are normalized before they are rounded.
    """
    tf_keras.utils.set_random_seed(0)
    pixels = tf_keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(pixels))
    for layer in (
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False),
        layers.Conv2D(24, 3, groups=4, padding="same", use_bias=False),
    ):
        x = layers.ReLU()(layers.BatchNormalization()(layer(x)))
    x = layers.AveragePooling2D(2, padding="same")(x)
    x = layers.SeparableConv2D(12, 3, depth_multiplier=2, activation="relu")(x)
    x = layers.Conv2D(12, 3, groups=12, padding="same", activation="relu")(x)
    model = tf_keras.Model(pixels, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (96, 12, 12, 3)).astype(np.uint8), rng.integers(0, 4, 96)
    phases = {"full_precision": 1, "self_studying": 1}
    run_dir = tmp_path_factory.mktemp("runs") / "grouped"
    options = {"bits": "w3a4", "normalize_weights": "channel", "batch_size": 32, "max_steps": 2}
    return fit(model, pictures, pictures, run_dir=run_dir, phases=phases, **options)


@pytest.mark.parametrize(
    "target, storage", [*((target, "auto") for target in TARGETS), ("phone", "int4"), ("phone", "int4_all")]
)
def test_groups_and_depth_multipliers_are_on_every_target_what_was_trained(grouped, target, storage):
    verification = tflite_export.export(grouped, target=target, weight_storage=storage)
    assert verification["passed"] and verification["failures"] == []
    kinds = verification["operators"]
    single = storage == "int4"  # pixels of the separable convolution are a Dense layer then
    assert (kinds["CONV_2D"], kinds["FULLY_CONNECTED"]) == (3 - single, 1 + single)
    assert (kinds["DEPTHWISE_CONV_2D"], kinds["MAX_POOL_2D"]) == (4, 1)
    assert any(row["type"] == "int4" for row in verification["tensors"]) == ("int4" in storage or target[0] == "m")
    for row in (row for row in verification["runtimes"].values() if "not_run" not in row):
        assert row["operators"]["equal_codes"] == row["codes"]["equal_codes"] == 100
        assert row["integer_student"]["equal_logits"] == 100
