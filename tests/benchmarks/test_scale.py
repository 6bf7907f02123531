"""Each step of the measurement on a small network; what is measured is too large for a test."""

import json

import pytest
from tf_keras import layers

from benchmarks import scale
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.scheme import quantize_student


@pytest.fixture
def small(monkeypatch, chain):
    monkeypatch.setattr(scale, "NETWORKS", {"small": 8})
    monkeypatch.setattr(scale, "NUM_CLASSES", 5)

    def make(network):
        model = chain(layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(5, name="logits"))
        return quantize_student(model, QuantizationSpec())

    monkeypatch.setattr(scale, "make_student", make)


def test_every_step_runs_and_the_file_has_every_integer_that_was_predicted(small, tmp_path):
    for step in scale.STEPS.values():
        step("small", 4, tmp_path / "small")()


def test_child_tells_what_it_had_before_the_step_and_how_long_that_took(small, tmp_path, capsys):
    scale.main(["--network=small", "--step=calibration", "--batch=4", f"--folder={tmp_path}"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["before"] > 50e6 and told["seconds"] > 0


def test_step_that_failed_is_told_as_failed(tmp_path, monkeypatch):
    monkeypatch.setitem(scale.NETWORKS, "NoNetwork", 8)  # of which the child knows nothing
    assert scale.measure("NoNetwork", "calibration", 4, tmp_path) == "| NoNetwork, 8 | calibration | failed: 2 | | |"
