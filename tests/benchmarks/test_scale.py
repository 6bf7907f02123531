"""Each step of the measurement on a small network; what is measured is too large for a test."""

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


def test_row_tells_the_peak_and_what_was_there_before_the_step(small, tmp_path, capsys):
    scale.main(["--network=small", "--step=calibration", "--batch=4", f"--folder={tmp_path}"])
    *_, network, step, peak, before, _, _ = capsys.readouterr().out.splitlines()[-1].split("|")
    assert (network.strip(), step.strip()) == ("small, 8", "calibration")
    assert 0 < float(before) <= float(peak)


def test_step_that_failed_is_told_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setitem(scale.NETWORKS, "NoNetwork", 8)  # of which the child knows nothing
    line = scale.in_child("NoNetwork", "calibration", 4, tmp_path)
    assert line.startswith("| NoNetwork, 8 | calibration | ") and "invalid choice: 'NoNetwork'" in line
