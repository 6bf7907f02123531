"""The running average against the weighted mean of all steps, in NumPy; and what a training makes of it."""

import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.distillation.progress import DivergenceGuard, PhaseProgress
from qkd_tf.distillation.weights_average import WeightsAverage
from qkd_tf.quantization.batch_norm import BatchNormEstimator
from tests.qkd_tf.distillation.runs import (
    Killed,
    all_values,
    assert_same_bits,
    kill_at_call,
    script_validation,
    values,
    without_seconds,
)

DECAY = 0.7


def weighted_mean(steps, decay):
    """Of the values of all steps, of which the last weighs most."""
    weights = decay ** np.arange(len(steps))[::-1]
    return [np.average(each, axis=0, weights=weights) for each in zip(*steps, strict=True)]


def numbers(variables):
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("decay", [1e-3, 0.5, 0.9, 0.9999])
def test_average_is_the_weighted_mean_of_all_steps_and_begins_at_the_first(decay):
    rng = np.random.default_rng(0)
    variables = [tf.Variable(rng.normal(size=shape), dtype=tf.float32) for shape in ((3, 2), ())]
    average, steps = WeightsAverage(variables, decay), []
    average.reset([variable + 100.0 for variable in variables])
    for step in range(1, 8):
        for variable in variables:
            variable.assign(rng.normal(size=variable.shape))
        steps.append(numbers(variables))
        average.update(variables, tf.constant(step, tf.int64))
        with average.in_place(variables):
            found = numbers(variables)
            if step == 1:
                assert_same_bits(found, steps[0])
            for got, expected in zip(found, weighted_mean(steps, decay), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        assert_same_bits(numbers(variables), steps[-1])


def test_before_the_first_step_the_average_is_what_a_phase_began_with_and_an_error_leaves_variables_as_they_were():
    variable = tf.Variable([1.0, 2.0])
    average = WeightsAverage([variable], 0.9)
    average.reset([variable])
    variable.assign([3.0, 4.0])
    with pytest.raises(Killed), average.in_place([variable]):
        assert list(variable.numpy()) == [1.0, 2.0]
        raise Killed
    assert list(variable.numpy()) == [3.0, 4.0]


def run_scripted(monkeypatch, run, splits, scores):
    """Runs it; returns its results, the student's variables after each step, and its weights at each validation."""
    steps, original = [], PhaseProgress.on_train_batch_end

    def note(self, *args):
        steps.append(numbers(run._student.trained_variables))
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(PhaseProgress, "on_train_batch_end", note)
        seen = script_validation(patch, splits, scores)
        return run.run(), steps, seen


@pytest.mark.slow
@pytest.mark.parametrize("keep_epoch, kept", [("best", 1), ("last", 2)])
def test_average_is_validated_and_handed_on_while_the_weights_train_on(
    tmp_path, monkeypatch, make_run, make_splits, keep_epoch, kept
):
    """Epochs of 3 steps. BatchNorm statistics are those of the averaged weights."""
    splits, phases, scores = make_splits(), (("self_studying", 3), ("tutoring", 1)), [30.0, 90.0, 50.0, 60.0]
    options = {"splits": splits, "keep_epoch": keep_epoch, "batch_norm_batches": 2, "one_cosine": False}
    averaged = make_run(tmp_path / "averaged", phases, weights_ema=DECAY, **options)
    starts, reset = [], averaged._average.reset
    averaged._average.reset = lambda variables: (starts.append(numbers(variables)), reset(variables))
    results, steps, seen = run_scripted(monkeypatch, averaged, splits, scores)
    student = averaged._student
    names = [variable.name for variable in student.model.variables]
    trained = [names.index(variable.name) for variable in student.trained_variables]
    for epoch, found in enumerate(seen):
        since = steps[: 3 * epoch + 3] if epoch < 3 else steps[9:]
        for index, expected in zip(trained, weighted_mean(since, DECAY), strict=True):
            np.testing.assert_allclose(found[index], expected, rtol=1e-5, atol=1e-6, err_msg=names[index])
    assert results[0]["best_epoch"] == kept + 1
    assert_same_bits(starts[1], [seen[kept][index] for index in trained])
    assert results[1]["first_intervals"] == results[0]["history"][kept]["intervals"]
    assert_same_bits(values(student.model), seen[3])
    BatchNormEstimator(student.model).estimate(images for images, _ in splits.train(3).take(2))
    assert_same_bits(values(student.model), seen[3])

    other = make_run(tmp_path / "other", phases[:1], **options)
    plain, others_steps, _ = run_scripted(monkeypatch, other, splits, scores[:3])
    for ours, theirs in zip(steps, others_steps, strict=False):
        assert_same_bits(ours, theirs)
    for ours, theirs in zip(results[0]["history"], plain[0]["history"], strict=True):
        assert ours["student_loss"] == theirs["student_loss"] and ours["intervals"] != theirs["intervals"]


@pytest.mark.slow
def test_killed_run_goes_on_to_the_same_bits_and_frozen_weights_are_integers(tmp_path, monkeypatch, make_run):
    """In the middle of the third epoch, with a distillation weight that falls, and labels of less weight."""
    phases = (("tutoring", 3, 0.5),)
    options = {"weights_ema": DECAY, "batch_norm_batches": 2, "checkpoint_every_steps": 2, "label_weight": 0.5}
    options |= {"distillation_weight_end": 0.1, "freeze_threshold_start": 0.009, "freeze_threshold_end": 0.001}
    whole = make_run(tmp_path / "whole", phases, **options)
    results = whole.run()
    assert results[-1]["history"][-1]["frozen_weights"] > 0
    for name, weight in whole._student.weights.items():
        z = weight.kernel.numpy()[whole._freezing._states[name][-1].numpy()] / weight.interval.numpy()
        np.testing.assert_allclose(z, np.round(z), atol=1e-6)
    with monkeypatch.context() as patch:
        kill_at_call(patch, DivergenceGuard, "on_train_batch_end", 9)
        with pytest.raises(Killed):
            make_run(tmp_path / "run", phases, **options).run()
    resumed = make_run(tmp_path / "run", phases, seed=50, **options)
    assert without_seconds(resumed.run()) == without_seconds(results)
    assert_same_bits(all_values(resumed), all_values(whole))
    assert_same_bits(numbers(resumed._average.variables), numbers(whole._average.variables))
