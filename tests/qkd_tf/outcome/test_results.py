import importlib.metadata
import json

import pytest

from qkd_tf import __version__
from qkd_tf.evaluate import IntegerTop1, StudentAccuracy
from qkd_tf.experiment import (
    DataSpec,
    Experiment,
    NetworkSpec,
    PhaseSpec,
    PixelNormalization,
    QuantizationSpec,
    TrainingSpec,
)
from qkd_tf.outcome import results
from qkd_tf.outcome.handoff import HandedOver
from qkd_tf.storage import durable
from qkd_tf.storage.run_folder import RunFolder

PIXELS = PixelNormalization((128.0,), (64.0,))
EXPERIMENT = Experiment(
    "runs/x",
    17,
    DataSpec("digits"),
    NetworkSpec("convnet_small", PIXELS),
    NetworkSpec("convnet_large", PIXELS),
    QuantizationSpec(weight_bits=3),
    TrainingSpec((PhaseSpec("self_studying", 2, 0.01, bits=(8, 4)), PhaseSpec("tutoring", 1, 0.02))),
)
PHASES = [{"phase": "self_studying", "seconds": 1.5}, {"phase": "tutoring", "seconds": 2.25}]

ACCURACY = StudentAccuracy("tflm", 88.0, {"litert": IntegerTop1(90.0, 10), "tflm": IntegerTop1(87.5, 12)}, {"p": 0.5})


@pytest.fixture(scope="module")
def student(make_quantized_student):
    return make_quantized_student()


@pytest.fixture(scope="module")
def written(tmp_path_factory, student, make_splits):
    folder = RunFolder(str(tmp_path_factory.mktemp("results") / "run"), ["--seed=17"])
    folder.claim()
    folder.handoff.mkdir()
    durable.seal(folder.handoff)
    results.write(folder, EXPERIMENT, make_splits(), HandedOver(student, ACCURACY), PHASES)
    assert durable.read_json(folder.results)["handoff"] == durable.digest(folder.handoff / durable.MANIFEST)
    return json.loads(folder.results.read_text())


def test_outcome_and_phases_are_there_as_given(written):
    assert written["student_test_top1"] == 87.5
    assert written["student"] == {
        "judge": "tflm",
        "real_numbers_top1": 88.0,
        "integers": {"litert": {"top1": 90.0, "num_images": 10}, "tflm": {"top1": 87.5, "num_images": 12}},
        "paired": {"p": 0.5},
    }
    assert written["phases"] == PHASES
    assert written["seconds"] == 3.75


def test_experiment_can_be_read_back(written):
    assert written["seed"] == 17
    assert written["experiment"]["training"]["phases"][1] == {
        "name": "tutoring",
        "epochs": 1,
        "learning_rate": 0.02,
        "rate_is_default": False,
    }
    assert written["experiment"]["training"]["phases"][0]["bits"] == [8, 4]
    assert written["experiment"]["quantization"]["weight_bits"] == 3
    assert written["experiment"]["teacher"]["name"] == "convnet_large"


def test_data_are_told_by_their_fingerprint(written):
    assert written["data"] == {"name": "tiny", "num_test": 12}


def test_versions_are_those_installed(written):
    assert written["versions"].pop("qkd_tf") == __version__
    assert {"tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"} <= set(written["versions"])
    assert all(importlib.metadata.version(name) == version for name, version in written["versions"].items())


def test_coverage_lists_every_quantized_tensor_with_bits_and_interval(written, student):
    rows = {(row["layer"], row["tensor"]): row for row in written["coverage"]}
    kernels, outputs = {(n, "kernel") for n in student.weights}, {(n, "output") for n in student.outputs}
    assert len(rows) == len(written["coverage"])
    assert set(rows) == {("normalization", "input")} | kernels | outputs
    assert rows["linear", "kernel"]["num_bits"] == 3
    assert rows["linear", "kernel"]["interval"] == pytest.approx(float(student.weights["linear"].interval.numpy()))
