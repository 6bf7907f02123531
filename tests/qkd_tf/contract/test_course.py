"""Advice on accuracy: first what costs no bytes, as a command that runs as it is."""

import dataclasses

import pytest

from qkd_tf.contract.course import Course, discarded_epochs
from qkd_tf.experiment import (
    DataSpec,
    Experiment,
    NetworkSpec,
    PhaseSpec,
    PixelNormalization,
    QuantizationSpec,
    TargetSpec,
    TrainingSpec,
)

COURSE = Course("runs/a", 4, 4, "microcontroller", is_trained=True, is_command=True)
AGAIN = "python -m qkd_tf.train --flagfile=runs/a/flags.txt"


@pytest.mark.parametrize(
    "changes, target, command",
    [
        ({}, "microcontroller", f"{AGAIN} --activation_bits=8 --run_dir=runs/a_w4a8"),
        (
            {"target": "phone", "activation_bits": 8},
            "microcontroller",
            f"{AGAIN} --target=microcontroller --run_dir=runs/a_w4a8_microcontroller",
        ),
        (
            {"is_trained": False},
            "microcontroller",
            f"{AGAIN} --phases=self_studying --activation_bits=8 --run_dir=runs/a_w4a8",
        ),
        ({"run_dir": "my runs/a/"}, "microcontroller", "--flagfile='my runs/a/flags.txt' --activation_bits=8"),
        ({"is_command": False}, "microcontroller", "qkd_tf.fit(activation_bits=8, run_dir=…)"),
    ],
)
def test_first_comes_what_costs_no_bytes(changes, target, command):
    told = dataclasses.replace(COURSE, **changes).more_accurate(target)
    assert command in told.partition("; if that is not enough, ")[0]
    assert "more epochs (--epochs), or with more --weight_bits" in told


@pytest.mark.parametrize("best, number", [([5, 0, 0], 20), ([5, 0, 3], 0), ([5], 0), ([0, 1, 0], 0)])
def test_epochs_are_discarded_where_no_quantized_one_was_kept(best, number):
    names = ("full_precision", "self_studying", "tutoring")
    phases = [{"phase": name, "best_epoch": epoch, "epochs": 10} for name, epoch in zip(names, best, strict=False)]
    assert discarded_epochs(phases) == number


def test_last_epoch_is_asked_for_in_a_folder_of_its_own():
    assert COURSE.with_last_epoch().endswith(f", {AGAIN} --keep_epoch=last --run_dir=runs/a_last")


def test_where_nothing_is_free_more_training_is_all_there_is():
    told = dataclasses.replace(COURSE, weight_bits=8, activation_bits=8).more_accurate("microcontroller")
    assert told == "train for more epochs (--epochs), or take a larger student"


@pytest.mark.parametrize("student, is_command", [("resnet8", True), ("in_memory:trained:x", False)])
def test_course_is_that_of_an_experiment(student, is_command):
    experiment = Experiment(
        "runs/b",
        0,
        DataSpec("digits"),
        NetworkSpec(student, PixelNormalization((0.0,), (1.0,))),
        None,
        QuantizationSpec(weight_bits=3, activation_bits=5),
        TrainingSpec((PhaseSpec("self_studying", 1, 0.1),)),
        TargetSpec("ethos_u"),
    )
    found = Course.of(dataclasses.asdict(experiment), "runs/c")
    assert found == Course("runs/c", 3, 5, "ethos_u", is_trained=True, is_command=is_command)
