"""`qkd_tf.fit`: the same job as the command's, on what is in memory."""

import json
import os
import re
import signal

import numpy as np
import pytest
import tf_keras
from sklearn.datasets import load_digits
from tf_keras import layers

import qkd_tf
import tflite_export
from qkd_tf import api, flags, train
from qkd_tf.distillation.progress import PhaseProgress
from qkd_tf.experiment import ExperimentError
from tests.saved_flags import saved_flags

DIGITS = load_digits()
IMAGES = np.round(DIGITS.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
SETS = (IMAGES[:300], DIGITS.target[:300]), (IMAGES[300:400], DIGITS.target[300:400])
SHORT = {"batch_size": 64, "max_steps": 2, "crop_padding": 0, "horizontal_flip": False}


def network(width=4, rescaling=True, seed=0):
    tf_keras.utils.set_random_seed(seed)
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            *([layers.Rescaling(1 / 255)] if rescaling else []),
            layers.Conv2D(width, 3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def fit(run_dir, student=None, sets=SETS, **changes):
    options = {"run_dir": run_dir, "phases": {"self_studying": 1}} | SHORT | changes
    return qkd_tf.fit(student or network(), *sets, **options)


def kernels(run):
    return list(np.load(run.path / "handoff" / "weights.npz").values())  # by the order of the layers


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Student and teacher from scratch."""
    phases = {"full_precision": 1, "tutoring": 1}
    student, teacher = network(), network(8)
    before = [model.get_weights() for model in (student, teacher)]
    made = fit(
        tmp_path_factory.mktemp("api") / "run", student, phases=phases, teacher=teacher, pretrained=(), bits="w3a5"
    )
    for model, weights in zip((student, teacher), before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))
    return made


@pytest.fixture(scope="module")
def run_of_one_phase(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("api") / "run")


def test_run_is_an_ordinary_run_folder(run):
    lines = (run.path / "flags.txt").read_text().splitlines()
    assert {"--weight_bits=3", "--activation_bits=5", "--batch_size=64"} <= set(lines)
    assert "--phases=full_precision,tutoring" in lines
    assert [phase["phase"] for phase in run.results["phases"]][0] == "full_precision"
    assert run.student_top1 == run.results["student_test_top1"]
    assert "teacher_loss" in run.results["phases"][0]["history"][0]  # it was not taken for pretrained
    assert (run.path / "handoff" / "labels.txt").read_text().split() == [str(n) for n in range(10)]


def test_run_is_exported_and_verified(run, capsys):
    verification = tflite_export.export(run, runtimes=())
    assert verification["passed"] and verification["num_images"] == 100
    assert f"{run.path}/export/model.tflite: " in capsys.readouterr().out


def test_equal_call_goes_on_although_keras_counts_layers_on(run_of_one_phase, monkeypatch):
    trained = kernels(run_of_one_phase)
    monkeypatch.setattr(PhaseProgress, "on_train_batch_end", None)  # nothing is left to train
    again = fit(run_of_one_phase.path, network())
    assert all(np.array_equal(a, b) for a, b in zip(kernels(again), trained, strict=True))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"student": network(seed=1)}, "changed since: the student's first weights;"),
        ({"student": network(5)}, "changed since: the student's layers or their wiring, the student's first weights;"),
        ({"sets": (SETS[0], SETS[0])}, "another experiment, which differs in --dataset;"),
        ({"bits": "w8a8"}, "another experiment, which differs in --activation_bits, --weight_bits;"),
    ],
    ids=["weights", "layers", "images", "bits"],
)
def test_folder_of_another_call_is_left_alone(run_of_one_phase, changes, told):
    with pytest.raises(ExperimentError, match=told):
        fit(run_of_one_phase.path, **changes)


def test_names_make_the_experiment_of_the_command(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(api, "train", lambda *call: calls.append(call))
    rates = {"learning_rates": [0.1, 0.05], "bits_rule": ["a.*=w8", "b,c=a3"], "horizontal_flip": False}
    phases = {"self_studying": 3, "tutoring": 2}
    qkd_tf.fit("resnet8", "cifar10", run_dir=tmp_path, bits="w2a3", phases=phases, teacher="resnet20", seed=5, **rates)
    ((experiment, lines, given),) = calls
    command = (
        *("--student=resnet8", "--dataset=cifar10", f"--run_dir={tmp_path}", "--weight_bits=2", "--activation_bits=3"),
        *("--phases=self_studying,tutoring", "--epochs=3,2", "--teacher=resnet20", "--seed=5"),
        *("--learning_rates=0.1,0.05", "--bits_rule=a.*=w8", "--bits_rule=b,c=a3", "--nohorizontal_flip"),
    )
    with saved_flags():
        flags.FLAGS(["train", *command])
        assert flags.experiment_from_flags() == experiment
        assert flags.flag_lines() == lines
    assert given == train.Given()


def test_signal_stops_with_keyboard_interrupt_and_a_checkpoint(tmp_path, monkeypatch):
    original = PhaseProgress.on_train_batch_end

    def interrupt(self, batch, logs=None):
        original(self, batch, logs)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(PhaseProgress, "on_train_batch_end", interrupt)
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT; the same call goes on"):
        fit(tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["phase0_epoch0_step1"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"bits": 4}, "bits=4: widths are written as w4a4"),
        ({"phases": ["self_studying"]}, "phases=.*: epochs by phase are expected"),
        ({"weight_bits": 2}, "weight_bits is told by the argument bits; leave the option out"),
        (
            {"student": tf_keras.Sequential([layers.Dense(10)])},
            "is a Sequential whose layers cannot be seen; .* begins with tf_keras.Input",
        ),
        ({"bits": "4"}, "bits=4: widths are written as w4a4"),
        ({"phases": {"studying": 3}}, "unknown phase in --phases 'studying'; known are "),
        ({"phases": {"tutoring": 1}}, "phase tutoring in --phases needs a teacher"),
        ({"learning_rate": 0.1}, "there is no option learning_rate; .* did you mean learning_rates?"),
        ({"batch_size": "many"}, "flag --batch_size=many: invalid literal"),
        ({"optimizer": "lion"}, "flag --optimizer=lion: value should be one of <sgd|adam>"),
        ({"student": network(rescaling=False)}, "normalis"),
        ({"sets": (SETS[0],)}, "there is no test set"),
        ({"student": "resnet9"}, "unknown --student 'resnet9'"),
        ({"student": object()}, "student is a object; a model of tf_keras is expected"),
        ({"sets": ("digits", SETS[1])}, "digits has its own test and validation images"),
        ({"student": tf_keras.Sequential([layers.Input((9, 9, 1)), layers.Flatten(), layers.Dense(10)])}, "reads pict"),
    ],
)
def test_mistake_is_one_line(tmp_path, changes, message):
    with pytest.raises(ExperimentError, match=message) as caught:
        fit(tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_run_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ExperimentError, match=re.escape(f"{tmp_path} is no finished run")):
        _ = qkd_tf.Run(tmp_path).results


def test_images_that_were_in_memory_are_not_opened_by_name(run_of_one_phase):
    with saved_flags():
        flags.FLAGS(["train", *(run_of_one_phase.path / "flags.txt").read_text().splitlines(), "--run_dir=elsewhere"])
        with pytest.raises(SystemExit, match="were handed over in Python and are not kept; call qkd_tf.fit"):
            train.main(["train"])


def test_results_file_is_json_that_people_read(run_of_one_phase):
    results = json.loads((run_of_one_phase.path / "results.json").read_text())
    told = results["experiment"]
    assert told["student"]["name"] == "in_memory:trained:sequential"
    assert re.fullmatch(r"in_memory:[0-9a-f]{16}", told["data"]["name"])
    proof = results["as_given"]["student"]
    assert proof["num_images"] == 32 and proof["head"] == "softmax"
    assert 0 <= proof["difference"] < proof["tolerance"] == 1e-3
    assert results["start_top1"].keys() == {"student", "quantized"}
    assert results["start_top1"] == json.loads((run_of_one_phase.path / "start.json").read_text())["top1"]
