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


def test_progress_bar_names_the_phase_and_shows_the_losses(capsys):
    bar = PhaseProgress("tutoring", epoch=1, epochs=4, steps=2)
    bar.on_train_begin()
    bar.on_train_batch_end(0, {"student_loss": 0.12345})
    bar.on_train_batch_end(1, {"student_loss": 2.0})
    bar.on_train_end()
    shown = capsys.readouterr().err
    assert "tutoring 2/4" in shown
    assert "2/2" in shown
    assert "student_loss=2.000" in shown
