import dataclasses
import shutil

import pytest

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
from qkd_tf.flags import FLAGS, experiment_from_flags
from qkd_tf.outcome import handoff
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.search.byte_budget import ByteBudget
from qkd_tf.search.subject import Sensitivity, measure
from qkd_tf.sensitivity import __main__ as command
from qkd_tf.sensitivity.look import subject_of, suggest
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


@pytest.mark.slow
def test_without_a_rule_it_is_the_student_that_was_trained(run):
    experiment, splits, student = run
    subject = subject_of(experiment, splits)
    assert subject.layers == ["stem", "depthwise", "linear", "logits"]
    assert subject.judge()[0] == top1(student.model, splits.validation) == subject.judge("stem=w8")[0]
    shapes = {"stem": (3 * 3 * 3 * 4, 8), "depthwise": (3 * 3 * 4, 3), "linear": (4 * 4, 3), "logits": (4 * 5, 8)}
    assert {layer: (subject.true_bytes(layer, 8), bits) for layer, bits in subject.bits.items()} == shapes
    assert subject.saved_bytes("stem", 2) == 108 * 6 / 8


def by_the_student_that_trains(subject, splits, *rules):
    """The number again, by TFMOT's students, each quantized, calibrated and traced anew."""
    spec = dataclasses.replace(subject.spec, bits_rule=subject.spec.bits_rule + rules)
    student = quantize_student(subject.plain, spec)
    images = subject._examples.calibration
    calibrate(student, images, spec.interval_init, 0, only=subject.take_known_intervals(student))
    subject.take_known_intervals(student)
    return top1(student.model, splits.validation)


@pytest.mark.slow
def test_every_number_is_that_of_a_student_that_could_train(run):
    experiment, splits, _ = run
    subject = subject_of(experiment, splits)
    rules = [f"{layer}=w{bits}a{bits}" for layer in subject.layers for bits in (2, 5)]
    found = [subject.judge(rule)[0] for rule in rules]
    assert found == [by_the_student_that_trains(subject, splits, rule) for rule in rules]
    assert len(set(found)) > 1


def test_a_file_or_a_handoff_that_was_changed_is_named(run, tmp_path):
    experiment, splits, _ = run
    subject, path = subject_of(experiment, splits), tmp_path / "sensitivity.json"
    path.write_text('{"identity": {}, "rows": []}')
    with pytest.raises(ExperimentError, match="sensitivity.json was changed after it was written.*move it away"):
        measure(subject, [("stem", 2)], path, {})
    copy = shutil.copytree(experiment.run_dir, tmp_path / "run")
    (copy / "handoff" / "labels.txt").write_text("other")
    remedy = "qkd_tf.train --flagfile=.*flags.txt to its end"
    with pytest.raises(ExperimentError, match=f"labels.txt was changed after it was written.*{remedy}"):
        command.require_finished(str(copy))


ROWS = [
    Sensitivity("wide", 4, 90.0, 1.0, 100.0),
    Sensitivity("wide", 2, 71.0, 20.0, 150.0),
    Sensitivity("small", 4, 90.9, 0.1, 5.0),
    Sensitivity("small", 2, 90.0, 1.0, 8.0),
    Sensitivity("robust", 4, 92.0, -1.0, 40.0),
    Sensitivity("robust", 2, 91.0, 0.0, 60.0),
]


TRAINED = {"wide": 8, "small": 8, "robust": 8}
SAVED = {(row.layer, row.num_bits): row.saved_bytes for row in ROWS}


def budget(num_bytes):
    """Of kernels that have 1000 bytes together as they were trained."""
    sizes = {"wide": 700, "small": 100, "robust": 200}
    return ByteBudget("max_weight_bytes", num_bytes, lambda layer, bits: sizes[layer] - SAVED.get((layer, bits), 0.0))


@pytest.mark.parametrize(
    "num_bytes, expected",
    [
        (1000, {}),
        (960, {"robust": 4}),  # a gain counts as no loss, and of equals the one that keeps more bits is taken
        (940, {"robust": 2}),
        (935, {"small": 4, "robust": 2}),
        (900, {"wide": 4}),
        (838, {"wide": 4, "small": 4, "robust": 2}),
        (832, {"wide": 4, "small": 2, "robust": 2}),
        (790, {"wide": 2, "robust": 2}),  # the least loss a byte first would take small down, too
    ],
)
def test_suggestion_is_the_least_loss_that_has_room(num_bytes, expected):
    found = suggest(ROWS, TRAINED, budget(num_bytes))
    assert {row.layer: row.num_bits for row in found} == expected
    assert all(row in ROWS for row in found)


def test_a_budget_that_no_width_reaches_is_refused():
    with pytest.raises(
        ExperimentError, match="--max_weight_bytes=100 is too little: even the fewest of these bits need 782 bytes"
    ):
        suggest(ROWS, TRAINED, budget(100))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--run_dir is missing"),
        (["--run_dir=DIR/none"], "DIR/none is not a run: it has no flags.txt"),
        (["--run_dir=DIR", "--try_bits=4,x"], "--try_bits=4,x: give whole numbers"),
        (["--run_dir=DIR", "--try_bits=9"], "--try_bits=9 is out of range"),
        (["--run_dir=DIR"], "handoff has no manifest.json"),
        (["--run_dir=DIR", "--max_weight_bytes=9", "--max_flash_bytes=8"], "are two budgets; give one, and 0 for the"),
        (["--run_dir=DIR", "--output=DIR/small.flags"], "--output=DIR/small.flags needs a budget"),
        (["--run_dir=DIR", "--output=DIR/small.txt", "--max_weight_bytes=9"], "small.txt does not end in .flags"),
        (["--run_dir=DIR", "--output=DIR/no/a.flags", "--max_weight_bytes=9"], "there is no folder DIR/no"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    lines = ["--dataset=digits", "--student=convnet_small", "--phases=", "--run_dir=elsewhere"]
    (tmp_path / "flags.txt").write_text("\n".join(lines))
    argv = ["sensitivity", *(argument.replace("DIR", str(tmp_path)) for argument in arguments)]
    with saved_flags(command.FLAGS), pytest.raises(SystemExit) as end:
        command.main(command.FLAGS(argv))
    assert str(end.value).startswith("error: ") and message.replace("DIR", str(tmp_path)) in str(end.value)


def test_flags_of_the_command_line_go_before_those_of_the_run(tmp_path):
    lines = ["--dataset=digits", "--phases=", "--seed=3", "--bits_rule=a=w4", "--nohorizontal_flip", "--run_dir=moved"]
    (tmp_path / "flags.txt").write_text("\n".join(lines))
    given = [f"--run_dir={tmp_path}", "--seed=4", "--bits_rule=b=w2", "--bits_rule=c=w3", "--try_bits=2"]
    with saved_flags(command.FLAGS):
        command.FLAGS(["sensitivity", *given])
        command.flags_of_run()
        values = command.FLAGS.flag_values_dict()
    expected = {"run_dir": str(tmp_path), "seed": 4, "bits_rule": ["a=w4", "b=w2", "c=w3"], "try_bits": ["2"]}
    expected |= {"dataset": "digits", "phases": [], "horizontal_flip": False, "batch_size": None}
    assert {name: values[name] for name in expected} == expected


def test_flag_file_is_the_same_experiment_with_the_rules_behind_its_own_and_another_folder(tmp_path):
    lines = [
        "--dataset=digits",
        "--student=convnet_small",
        "--phases=",
        "--seed=3",
        "--bits_rule=a=w4",
        "--run_dir=old",
    ]
    with saved_flags(command.FLAGS):
        command.FLAGS(["sensitivity", *lines, "--try_bits=2", "--max_weight_bytes=9"])
        before = command.FLAGS.flag_values_dict()
        text = command.flag_file(command.FLAGS, ["a=w4", ROWS[0].rule, ROWS[3].rule], tmp_path / "small")
        assert command.FLAGS.flag_values_dict() == before
    assert "--try_bits" not in text and "--max_weight_bytes" not in text
    (tmp_path / "small.flags").write_text(text)
    with saved_flags():
        FLAGS(["train", f"--flagfile={tmp_path / 'small.flags'}"])
        found = experiment_from_flags(FLAGS)
        FLAGS.unparse_flags()
        FLAGS(["train", *lines])
        expected = experiment_from_flags(FLAGS)
    rules = ("a=w4", "wide=w4a4", "small=w2a2")
    assert found == dataclasses.replace(
        expected,
        run_dir=str(tmp_path / "small"),
        quantization=dataclasses.replace(expected.quantization, bits_rule=rules),
    )


def test_flag_file_of_a_run_that_found_its_widths_has_these_and_does_not_find_others(tmp_path):
    lines = ["--dataset=digits", "--bits=auto", "--max_flash_bytes=9000", "--run_dir=old"]
    with saved_flags(command.FLAGS):
        command.FLAGS(["sensitivity", *lines])
        text = command.flag_file(command.FLAGS, ["a=w4", ROWS[3].rule], tmp_path / "small")
    assert "--bits=" not in text
    with saved_flags():
        FLAGS(["train", *text.splitlines()])
        found = experiment_from_flags(FLAGS).quantization
    assert (found.finds_bits, found.weight_bits, found.activation_bits) == (False, 8, 8)
    assert found.bits_rule == ("a=w4", "small=w2a2")
