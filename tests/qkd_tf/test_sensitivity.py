import dataclasses
import json
import shutil

import pytest

from qkd_tf import sensitivity
from qkd_tf.evaluate import top1
from qkd_tf.experiment import (
    DataSpec,
    Experiment,
    ExperimentError,
    NetworkSpec,
    PixelNormalization,
    QuantizationSpec,
    TrainingSpec,
)
from qkd_tf.outcome import handoff
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.sensitivity import Sensitivity
from qkd_tf.storage.run_folder import RunFolder
from tests.saved_flags import saved_flags


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_quantized_student, make_splits):
    """(experiment, splits, student) of a finished run at W3A4."""
    path = tmp_path_factory.mktemp("sensitivity") / "run"
    folder = RunFolder(str(path), ["--student=residual"])
    folder.claim()
    student, splits = make_quantized_student(), make_splits()
    handoff.write(student, splits, folder)
    experiment = Experiment(
        run_dir=str(path),
        seed=0,
        data=DataSpec(name="tiny"),
        student=NetworkSpec("residual", PixelNormalization((128.0,), (64.0,))),
        teacher=None,
        quantization=QuantizationSpec(weight_bits=3, activation_bits=4),
        training=TrainingSpec(phases=()),
    )
    return experiment, splits, student


def test_without_a_rule_it_is_the_student_that_was_trained(run):
    experiment, splits, student = run
    subject = sensitivity.Subject(experiment, splits)
    assert subject.layers == ["stem", "depthwise", "linear", "logits"]
    assert subject.top1() == top1(student.model, splits.validation) == subject.top1("stem=w8")
    shapes = {"stem": (3 * 3 * 3 * 4, 8), "depthwise": (3 * 3 * 4, 3), "linear": (4 * 4, 3), "logits": (4 * 5, 8)}
    assert subject.weight_bytes == sum(size * bits / 8 for size, bits in shapes.values())
    assert subject.saved_bytes("stem", 2) == 108 * 6 / 8


def by_the_student_that_trains(subject, splits, *rules):
    """The number again, by TFMOT's students, each quantized, calibrated and traced anew."""
    spec = dataclasses.replace(subject._spec, bits_rule=subject._spec.bits_rule + rules)
    student = quantize_student(subject.plain, spec)
    calibrate(student, subject._images, spec.interval_init, 0, only=subject._take_trained_intervals(student))
    subject._take_trained_intervals(student)
    return top1(student.model, splits.validation)


def test_every_number_is_that_of_a_student_that_could_train(run):
    experiment, splits, _ = run
    subject = sensitivity.Subject(experiment, splits)
    rules = [f"{layer}=w{bits}a{bits}" for layer in subject.layers for bits in (2, 5)]
    found = [subject.top1(rule) for rule in rules]
    assert found == [by_the_student_that_trains(subject, splits, rule) for rule in rules]
    assert len(set(found)) > 1


def test_every_layer_at_every_width_goes_on_where_it_was_stopped(run, tmp_path, monkeypatch):
    experiment, splits, _ = run
    subject, path = sensitivity.Subject(experiment, splits), tmp_path / "sensitivity.json"
    rules = []

    def told(*given):  # what the real one tells is looked at above
        return 90.0 - len("".join(given)) if given else 92.5

    def stop_after(number):
        def top1(*given):
            rules.append(given)
            if len(rules) > number:
                raise KeyboardInterrupt
            return told(*given)

        return top1

    monkeypatch.setattr(subject, "top1", stop_after(4))
    with pytest.raises(KeyboardInterrupt):
        sensitivity.measure(subject, [2, 4], path, {"seed": 0})
    assert rules == [(), ("stem=w2a2",), ("stem=w4a4",), ("depthwise=w2a2",), ("depthwise=w4a4",)]
    rules.clear()
    monkeypatch.setattr(subject, "top1", stop_after(100))
    found = sensitivity.measure(subject, [2, 4], path, {"seed": 0})
    assert rules[0] == ("depthwise=w4a4",) and len(rules) == 5
    assert [(row.layer, row.num_bits) for row in found][:3] == [("stem", 2), ("stem", 4), ("depthwise", 2)]
    assert all(row.top1 == told(row.rule) and row.loss == 92.5 - row.top1 for row in found)
    rules.clear()
    monkeypatch.setattr(subject, "top1", lambda *given: rules.append(given) or 50.0)
    assert sensitivity.measure(subject, [2], path, {"seed": 0}) == [row for row in found if row.num_bits == 2]
    assert rules == []
    sensitivity.measure(subject, [2], path, {"seed": 1})  # of another experiment: anew
    assert len(rules) == 5 and json.loads(path.read_text())["identity"] == {"seed": 1}


def test_a_file_or_a_handoff_that_was_changed_is_named(run, tmp_path):
    experiment, splits, _ = run
    subject, path = sensitivity.Subject(experiment, splits), tmp_path / "sensitivity.json"
    path.write_text('{"identity": {}, "rows": []}')
    with pytest.raises(ExperimentError, match="sensitivity.json was changed after it was written.*move it away"):
        sensitivity.measure(subject, [2], path, {})
    copy = shutil.copytree(experiment.run_dir, tmp_path / "run")
    (copy / "handoff" / "labels.txt").write_text("other")
    with pytest.raises(ExperimentError, match="labels.txt was changed after it was written.*qkd_tf.train to its end"):
        sensitivity.Subject(dataclasses.replace(experiment, run_dir=str(copy)), splits)


ROWS = [
    Sensitivity("wide", 4, 90.0, 1.0, 100.0),
    Sensitivity("wide", 2, 71.0, 20.0, 150.0),
    Sensitivity("small", 4, 90.9, 0.1, 5.0),
    Sensitivity("small", 2, 90.0, 1.0, 8.0),
    Sensitivity("robust", 4, 92.0, -1.0, 40.0),
    Sensitivity("robust", 2, 91.0, 0.0, 60.0),
]


@pytest.mark.parametrize(
    "budget, expected",
    [
        (1000, {}),
        (960, {"robust": 2}),  # a gain counts as no loss, and of equals the one that saves more comes first
        (900, {"robust": 2, "wide": 4}),
        (838, {"robust": 2, "wide": 4, "small": 4}),
        (832, {"robust": 2, "wide": 4, "small": 2}),
        (790, {"robust": 2, "wide": 2, "small": 2}),
    ],
)
def test_suggestion_takes_the_least_loss_a_byte_first(budget, expected):
    assert {row.layer: row.num_bits for row in sensitivity.suggest(ROWS, 1000, budget)} == expected


def test_a_budget_that_no_width_reaches_is_refused():
    with pytest.raises(
        ExperimentError, match="--max_weight_bytes=100: at the fewest of these bits .* still have 782 bytes"
    ):
        sensitivity.suggest(ROWS, 1000, 100)


def test_rules_are_of_the_layer_and_no_other():
    assert Sensitivity("block.1/conv", 3, 0.0, 0.0, 0.0).rule == r"block\.1/conv=w3a3"


def test_table_has_the_most_sensitive_layer_on_top():
    lines = sensitivity.table(ROWS).splitlines()
    assert lines[2] == "| wide | 2 | 71.00 | +20.00 | 150 |" and lines[-1].startswith("| robust | 4 | 92.00 | -1.00")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--run_dir is missing"),
        (["--run_dir=DIR/none"], "DIR/none is no run: it has no flags.txt"),
        (["--run_dir=DIR", "--try_bits=4,x"], "--try_bits=4,x: whole numbers"),
        (["--run_dir=DIR", "--try_bits=9"], "--try_bits=9 is out of range"),
        (["--run_dir=DIR"], "handoff has no manifest.json"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    lines = ["--dataset=digits", "--student=convnet_small", "--phases=", "--run_dir=elsewhere"]
    (tmp_path / "flags.txt").write_text("\n".join(lines))
    argv = ["sensitivity", *(argument.replace("DIR", str(tmp_path)) for argument in arguments)]
    with saved_flags(sensitivity.FLAGS), pytest.raises(SystemExit) as end:
        sensitivity.main(sensitivity.FLAGS(argv))
    assert str(end.value).startswith("error: ") and message.replace("DIR", str(tmp_path)) in str(end.value)


def test_flags_of_the_command_line_go_before_those_of_the_run(tmp_path):
    lines = ["--dataset=digits", "--phases=", "--seed=3", "--bits_rule=a=w4", "--nohorizontal_flip", "--run_dir=moved"]
    (tmp_path / "flags.txt").write_text("\n".join(lines))
    given = [f"--run_dir={tmp_path}", "--seed=4", "--bits_rule=b=w2", "--bits_rule=c=w3", "--try_bits=2"]
    with saved_flags(sensitivity.FLAGS):
        sensitivity.FLAGS(["sensitivity", *given])
        sensitivity.flags_of_run()
        values = sensitivity.FLAGS.flag_values_dict()
    expected = {"run_dir": str(tmp_path), "seed": 4, "bits_rule": ["a=w4", "b=w2", "c=w3"], "try_bits": ["2"]}
    expected |= {"dataset": "digits", "phases": [], "horizontal_flip": False, "batch_size": 128}
    assert {name: values[name] for name in expected} == expected
