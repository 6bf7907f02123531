import math

import pytest

from qkd_tf.distillation.progress import DivergenceGuard, PhaseProgress
from qkd_tf.experiment import ExperimentError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["student_loss", "teacher_loss"])
def test_guard_stops_at_a_loss_that_is_not_finite_and_says_where(name, value):
    guard = DivergenceGuard("co_studying", epoch=2)
    logs = {"student_loss": 1.0, "teacher_loss": 1.0, name: value}
    with pytest.raises(ExperimentError, match=f"{name} became .* in phase co_studying, epoch 3, step 8;"):
        guard.on_train_batch_end(7, logs)


def test_guard_lets_finite_losses_pass():
    DivergenceGuard("tutoring", 0).on_train_batch_end(0, {"student_loss": 1e30, "student_top1": 0.0})


def test_one_line_a_phase_tells_epoch_time_left_losses_and_top1_of_both_networks(capsys):
    progress = PhaseProgress("co_studying", epochs=4, steps=2, done=2)
    for epoch in (1, 2):
        callback = progress.begin(epoch)
        callback.on_train_batch_end(0, {"student_loss": 0.12345, "student_top1": 0.5})
        callback.on_train_batch_end(1, {"student_loss": 2.0, "student_top1": 0.875, "teacher_loss": 0.5})
        progress.validated({"student": 91.237, "teacher": 95.0})
    progress.close()
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    last = shown.splitlines()[-1].split("\r")[-1]
    assert last.startswith("co_studying, epoch 3/4  75% [00:00<00:00, ")
    assert "student loss 2.000, student top1 87.5 %, teacher loss 0.500" in last
    assert last.rstrip().endswith("validation: student 91.24 %, teacher 95.00 %")


def test_time_left_is_that_of_the_steps_behind_the_first_one(capsys):
    progress = PhaseProgress("tutoring", epochs=1, steps=20)
    seconds, told = [0.0], {}
    progress._bar._time = lambda: seconds[-1]
    progress._bar.start_t = 0.0
    for step in range(5):
        seconds.append(60.0 + step)
        progress.begin(0).on_train_batch_end(step, {"student_loss": 1.0})
        told[step] = str(progress._bar).partition("[")[2]
    assert all(told[step].startswith(f"01:0{step}<?, ?batch/s]") for step in range(3))
    assert told[3].startswith("01:03<00:16, ") and told[4].startswith("01:04<00:15, ")
    progress.close()


def test_progress_of_an_epoch_that_goes_on_in_its_middle(capsys):
    progress = PhaseProgress("tutoring", epochs=2, steps=10, done=13)
    progress.begin(1, done=3).on_train_batch_end(1, {"student_loss": 1.0})
    progress.close()
    assert "tutoring, epoch 2/2  75% " in capsys.readouterr().err
