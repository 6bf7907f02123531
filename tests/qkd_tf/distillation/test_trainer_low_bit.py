"""Freezing, dampening and BatchNorm estimates in a training, and behind a kill."""

import numpy as np
import pytest

from qkd_tf.distillation.trainer import Events, Trainer
from qkd_tf.quantization.batch_norm import BatchNormEstimator
from qkd_tf.quantization.oscillation import Freezing
from tests.qkd_tf.distillation.runs import (
    Killed,
    all_values,
    assert_same_bits,
    kill_at_call,
    same_bits,
    script_validation,
    values,
    without_seconds,
)

# A first turn has a frequency of 0.01, so that it freezes its weight at once; 9 steps are too few for more.
LOW_BIT = {"batch_norm_batches": 2, "dampening": 0.1, "freeze_threshold_start": 0.009, "freeze_threshold_end": 0.001}
RESTLESS = (("self_studying", 3, 0.5), ("tutoring", 1, 0.5))


def frozen(trainer):
    return [v.numpy() for v in trainer._freezing.variables]


def assert_frozen_weights_are_integers(trainer):
    for name, weight in trainer._student.weights.items():
        mask = trainer._freezing._states[name][-1].numpy()
        z = weight.kernel.numpy()[mask] / weight.interval.numpy()
        np.testing.assert_allclose(z, np.round(z), atol=1e-6)


@pytest.fixture(scope="module")
def restless(tmp_path_factory):
    """Results, weights and frozen weights of a whole run with the low-bit options, made once."""
    kept = []

    def get(make_run):
        if not kept:
            trainer = make_run(tmp_path_factory.mktemp("restless") / "run", RESTLESS, **LOW_BIT)
            kept.extend((trainer.run(), all_values(trainer), frozen(trainer)))
            assert kept[0][-1]["history"][-1]["frozen_weights"] > 0
        return kept

    return get


@pytest.mark.slow
@pytest.mark.parametrize(
    "owner, name, call",
    [
        (BatchNormEstimator, "estimate", 2),
        (Trainer, "_restore_best_student", 1),
    ],
)
def test_killed_run_with_the_low_bit_options_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, make_run, restless, owner, name, call
):
    results, weights, frozen_weights = restless(make_run)
    with monkeypatch.context() as patch:
        kill_at_call(patch, owner, name, call)
        with pytest.raises(Killed):
            make_run(tmp_path / "run", RESTLESS, **LOW_BIT).run()
    resumed = make_run(tmp_path / "run", RESTLESS, seed=50, **LOW_BIT)
    assert without_seconds(resumed.run()) == without_seconds(results)
    assert_same_bits(all_values(resumed), weights)
    assert_same_bits(frozen(resumed), frozen_weights)


@pytest.mark.slow
def test_several_steps_an_execution_freeze_the_same_weights(tmp_path, make_run, restless):
    _, weights, frozen_weights = restless(make_run)
    two = make_run(tmp_path / "run", RESTLESS, steps_per_execution=2, **LOW_BIT)
    two.run()
    assert_same_bits(all_values(two), weights)
    assert_same_bits(frozen(two), frozen_weights)


@pytest.mark.slow
def test_frozen_weights_are_on_their_integers_after_every_epoch(tmp_path, monkeypatch, make_run):
    """Compiled by XLA: other tests have frozen weights without."""
    trainer = make_run(tmp_path / "run", RESTLESS, **LOW_BIT, jit_compile=True)
    original, shares = Trainer._save, []

    def save(self, *args):
        assert_frozen_weights_are_integers(self)
        shares.append(self._freezing.share())
        return original(self, *args)

    monkeypatch.setattr(Trainer, "_save", save)
    results = trainer.run()
    history = [row["frozen_weights"] for result in results for row in result["history"]]
    assert set(history) <= set(shares) and history[-1] > 0
    assert history[:3] == sorted(history[:3])


@pytest.mark.slow
def test_student_of_the_best_epoch_goes_on_with_what_was_frozen_then(tmp_path, monkeypatch, make_run, make_splits):
    splits = make_splits()
    trainer = make_run(tmp_path / "run", RESTLESS[:1], splits=splits, **LOW_BIT)
    script_validation(monkeypatch, splits, [50.0, 90.0, 40.0])
    at_epochs, original = [], Trainer._save

    def save(self, *args):
        at_epochs.append(frozen(self))
        return original(self, *args)

    monkeypatch.setattr(Trainer, "_save", save)
    trainer.run()
    assert_same_bits(frozen(trainer), at_epochs[1])
    assert not all(same_bits(at_epochs[2], at_epochs[1]))


@pytest.mark.slow
def test_freezing_starts_anew_when_float_weights_become_quantized(tmp_path, make_run):
    phases = (RESTLESS[0], ("full_precision", 1), ("self_studying", 1), ("tutoring", 1))
    trainer = make_run(tmp_path / "run", phases, **LOW_BIT)
    original, shares = trainer._enter, []

    def enter(*args):
        before = trainer._freezing.share()
        original(*args)
        shares.append((before, trainer._freezing.share()))

    trainer._enter = enter
    trainer.run()
    assert shares[0] == (0.0, 0.0)
    assert shares[1][0] > 0 and shares[1][1] == shares[1][0]  # a float phase leaves it alone
    assert shares[2] == (shares[1][0], 0.0)
    assert shares[3][0] == shares[3][1]


def test_dampening_and_threshold_go_by_the_steps_of_all_quantized_phases(tmp_path, monkeypatch, make_run):
    """3 float steps, which do not count, then 3 and 6 quantized ones."""
    phases = (("full_precision", 1), ("self_studying", 1), ("tutoring", 2))
    options = {"dampening": 0.1, "freeze_threshold_start": 0.2, "freeze_threshold_end": 0.02}
    trainer = make_run(tmp_path / "run", phases, **options)
    trainer._events.calibrate()
    thresholds = []
    monkeypatch.setattr(Freezing, "update", lambda self, weights, threshold: thresholds.append(float(threshold)))
    way = 0.0
    for weight in trainer._student.weights.values():
        w, interval, grid = weight.kernel.numpy().astype(np.float64), float(weight.interval.numpy()), weight.grid
        z = np.clip(w / interval, grid.qmin, grid.qmax)
        way += np.sum((interval * (np.round(z) - z)) ** 2)
    for index, step, done in ((1, 0, 0), (1, 2, 2), (2, 0, 3), (2, 4, 7), (2, 6, 9)):
        distiller = trainer._setup.distiller(index)
        distiller.student_groups[0].optimizer.iterations.assign(step)
        risen = (1 - np.cos(np.pi * done / 9)) / 2
        np.testing.assert_allclose(distiller._student_penalty(), 0.1 * risen * way, rtol=1e-4, atol=1e-9)
        distiller._after_student_step()
        np.testing.assert_allclose(thresholds[-1], 0.2 - 0.18 * risen, rtol=1e-5)
    assert (
        trainer._setup.distiller(0)._student_penalty is None and trainer._setup.distiller(0)._after_student_step is None
    )


@pytest.mark.parametrize("one_cosine", [True, False])
def test_distillation_weight_goes_by_the_cosine_of_the_learning_rate(tmp_path, make_run, one_cosine):
    """3 float steps, which do not count, then 3, 6 and 3 quantized ones; a cosine over 12, or one in each phase."""
    phases = (("full_precision", 1), ("self_studying", 1), ("co_studying", 2), ("tutoring", 1))
    options = {"distillation_weight": 2.0, "distillation_weight_end": 0.5, "one_cosine": one_cosine}
    trainer = make_run(tmp_path / "run", phases, **options)
    for index, step, share in ((2, 0, 3 / 12), (2, 4, 7 / 12), (3, 0, 9 / 12), (3, 3, 1.0)):
        distiller = trainer._setup.distiller(index)
        optimizer = distiller.student_groups[0].optimizer
        optimizer.iterations.assign(step)
        share = share if one_cosine else step / {2: 6, 3: 3}[index]
        np.testing.assert_allclose(distiller._distillation_weight(), 1.25 + 0.75 * np.cos(np.pi * share), rtol=1e-6)
        fallen = (distiller._distillation_weight() - 0.5) / 1.5
        np.testing.assert_allclose(optimizer._learning_rate(step), 0.05 * fallen, atol=1e-8)
    constant = make_run(tmp_path / "other", phases)._setup.distiller(2)
    assert constant._distillation_weight() == 1.0


@pytest.mark.slow
def test_dampened_weights_end_nearer_to_their_integers(tmp_path, make_run):
    def mean_way(name, **options):
        trainer = make_run(tmp_path / name, (("self_studying", 3),), **options)
        trainer.run()
        ways = []
        for weight in trainer._student.weights.values():
            z = np.clip(weight.kernel.numpy() / weight.interval.numpy(), weight.grid.qmin, weight.grid.qmax)
            ways.append(np.mean(np.abs(z - np.round(z))))
        return ways

    assert all(np.array(mean_way("dampened", dampening=10.0)) < np.array(mean_way("plain")))


@pytest.mark.slow
def test_statistics_are_estimated_before_each_validation_of_a_quantized_student(
    tmp_path, monkeypatch, make_run, make_splits
):
    """What validation, checkpoint and the next phase see are those of the epoch's first batches and of its weights."""
    splits, phases = make_splits(), (("full_precision", 1), ("self_studying", 2))
    trainer = make_run(tmp_path / "run", phases, splits=splits, batch_norm_batches=2)
    seen = script_validation(monkeypatch, splits, [30.0, 90.0, 50.0])
    calls, original = [], BatchNormEstimator.estimate

    def estimate(self, batches):
        calls.append([images.numpy() for images in batches])
        original(self, calls[-1])

    monkeypatch.setattr(BatchNormEstimator, "estimate", estimate)
    full_precision, self_studying = trainer.run()
    assert len(calls) == 3  # none in full_precision; the first is of the float student, before its calibration
    calls = calls[1:]
    assert "batch_norm_batches" not in full_precision and self_studying["batch_norm_batches"] == 2
    for epoch, got in enumerate(calls, start=1):
        assert_same_bits(got, [images.numpy() for images, _ in splits.train(epoch).take(2)])
    model = trainer._student.model
    assert_same_bits(values(model), seen[1])  # the best epoch's, statistics included
    original(BatchNormEstimator(model), calls[0])
    assert_same_bits(values(model), seen[1])


@pytest.mark.slow
def test_estimated_statistics_leave_every_other_bit_of_the_training(tmp_path, monkeypatch, make_run, make_splits):
    def trained(name, **options):
        splits = make_splits()
        trainer = make_run(tmp_path / name, (("self_studying", 2), ("co_studying", 1)), splits=splits, **options)
        with monkeypatch.context() as patch:
            script_validation(patch, splits, [1.0, 2.0, 3.0])
            results = trainer.run()
        model = trainer._student.model
        rest = [v.numpy() for v in model.variables if "moving" not in v.name] + values(trainer._teacher)
        losses = [row["student_loss"] for result in results for row in result["history"]]
        return rest, losses, [v.numpy() for v in model.variables if "moving" in v.name]

    plain, estimated = trained("plain", batch_norm_batches=0), trained("estimated", batch_norm_batches=3)
    assert_same_bits(estimated[0], plain[0])
    assert estimated[1] == plain[1]
    assert not any(same_bits(estimated[2], plain[2]))


@pytest.mark.parametrize("asked, estimated", [(-1, False), (0, False), (2, True)])
def test_without_phases_statistics_are_estimated_if_asked_for(tmp_path, make_run, asked, estimated):
    """The default is for what training leaves behind."""
    trainer = make_run(tmp_path / "run", (), batch_norm_batches=asked)
    before = [v.numpy() for v in trainer._student.plain.variables if "moving" in v.name]
    trainer.run()
    after = [v.numpy() for v in trainer._student.model.variables if "moving" in v.name]
    assert not any(same_bits(before, after)) if estimated else all(same_bits(before, after))


@pytest.mark.slow
@pytest.mark.parametrize("pretrained, estimated", [((), True), (("student",), False)])
def test_intervals_behind_a_float_phase_see_statistics_of_its_weights(tmp_path, make_run, pretrained, estimated):
    """A student that came with weights came with statistics, too."""
    phases = (("full_precision", 1), ("self_studying", 1))
    seen = []
    trainer = make_run(tmp_path / "run", phases, pretrained=pretrained, batch_norm_batches=2)
    original = trainer._events.calibrate

    def calibrate_and_look():
        seen.append([v.numpy() for v in trainer._student.plain.variables if "moving" in v.name])
        original()

    trainer._events = Events(calibrate_and_look)
    trainer.run()
    expected = make_run(tmp_path / "other", phases, pretrained=pretrained)._student.plain
    expected.set_weights(trainer._student.plain.get_weights())
    BatchNormEstimator(expected).estimate(images for images, _ in trainer._splits.train(1).take(2))
    now = [v.numpy() for v in expected.variables if "moving" in v.name]
    assert all(same_bits(seen[0], now)) == estimated
