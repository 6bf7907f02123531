"""Students that are quantized in many ways, measured one after the other."""

import itertools
import json

import pytest

from qkd_tf.evaluate import top1
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.search.subject import Examples, Sensitivity, Subject, measure, of_kernel, table

ROWS = [Sensitivity("robust", 4, 92.0, -1.0, 40.0), Sensitivity("wide", 2, 71.0, 20.0, 150.0, 0.5)]


@pytest.fixture
def subject(make_residual_student, make_splits):
    splits = make_splits()
    examples = Examples([images for images, _ in splits.calibration], splits.validation)
    return Subject(make_residual_student(), QuantizationSpec(weight_bits=8, activation_bits=8), examples, 0)


@pytest.mark.slow
def test_a_calibrated_student_keeps_its_intervals_and_gets_those_of_other_widths(subject):
    known, student = subject.calibrated(), quantize_student(subject.plain, subject.spec)
    calibrate(student, subject._examples.calibration, "mse", 0)
    assert known.judge() == (top1(student.model, subject._examples.validation), 0.0)
    divergences = [known.judge(f"linear=w{bits}")[1] for bits in (8, 4, 2)]
    assert divergences[0] == 0 < divergences[1] < divergences[2]
    assert known.take_known_intervals(student) == set()
    other = QuantizationSpec(weight_bits=8, activation_bits=8, bits_rule=("linear=w3",))
    assert known.take_known_intervals(quantize_student(subject.plain, other)) == {"linear"}


def test_every_layer_at_every_width_goes_on_where_it_was_stopped(subject, tmp_path, monkeypatch):
    path, cells = tmp_path / "sensitivity.json", list(itertools.product(subject.layers, [2, 4]))
    rules = []

    def told(*given):  # what the real one tells is looked at above
        return (90.0 - len("".join(given)), 0.25) if given else (92.5, 0.0)

    def stop_after(number):
        def judge(*given):
            rules.append(given)
            if len(rules) > number:
                raise KeyboardInterrupt
            return told(*given)

        return judge

    monkeypatch.setattr(subject, "judge", stop_after(4))
    with pytest.raises(KeyboardInterrupt):
        measure(subject, cells, path, {"seed": 0})
    assert rules == [(), ("stem=w2a2",), ("stem=w4a4",), ("depthwise=w2a2",), ("depthwise=w4a4",)]
    rules.clear()
    monkeypatch.setattr(subject, "judge", stop_after(100))
    found = measure(subject, cells, path, {"seed": 0})
    assert rules[0] == ("depthwise=w4a4",) and len(rules) == 5
    assert [(row.layer, row.num_bits) for row in found][:3] == [("stem", 2), ("stem", 4), ("depthwise", 2)]
    assert all((row.top1, row.divergence) == told(row.rule) and row.loss == 92.5 - row.top1 for row in found)
    rules.clear()
    monkeypatch.setattr(subject, "judge", lambda *given: rules.append(given) or (50.0, 0.0))
    assert measure(subject, cells[::2], path, {"seed": 0}) == [row for row in found if row.num_bits == 2]
    assert rules == []
    measure(subject, cells[::2], path, {"seed": 1})  # of another experiment: anew
    assert len(rules) == 5 and json.loads(path.read_text())["identity"]["seed"] == 1


def test_rules_are_of_the_layer_and_no_other():
    assert Sensitivity("block.1/conv", 3, 0.0, 0.0, 0.0).rule == r"block\.1/conv=w3a3"
    assert of_kernel("block.1/conv", 3) == r"block\.1/conv=w3"


def test_table_has_the_most_sensitive_layer_on_top():
    stored = {4: 200, 2: 200, 8: 400}
    lines = table(ROWS, lambda layer, bits: stored[bits], dict.fromkeys(("wide", "robust"), 8)).splitlines()
    assert lines[2] == "| wide | 2 | 71.00 | +20.00 | 0.5000 | 150 | 200 |"
    assert lines[-1].startswith("| robust | 4 | 92.00 | -1.00")
