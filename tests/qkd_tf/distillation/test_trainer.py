"""Time: order of phases, best epochs, kills and resumed runs, on a net of a few hundred weights."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from tf_keras import layers

from qkd_tf import durable, random_state
from qkd_tf.distillation import trainer as trainer_module
from qkd_tf.distillation.progress import DivergenceGuard, PhaseProgress
from qkd_tf.distillation.trainer import Trainer
from qkd_tf.experiment import ExperimentError, PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.batch_norm import BatchNormEstimator
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.oscillation import Freezing
from qkd_tf.quantization.scheme import quantize_student, quantizer_form
from qkd_tf.run_folder import RunFolder
from qkd_tf.stop_signals import Stopped

PHASES = (("full_precision", 1), ("co_studying", 2), ("tutoring", 1))  # 3 + 6 + 3 batches


class Killed(BaseException):
    """Stands for a signal: nothing in the product catches it."""


@pytest.fixture
def make_run(chain, randomize, make_splits):
    """make_run(folder, phases, ...): a `Trainer` with networks of its own, whose calibrations are counted."""

    def network(width, seed, dropout=0.0):
        return randomize(
            chain(
                layers.Rescaling(1 / 64, -2.0, name="normalization"),
                layers.Conv2D(width, 3, use_bias=False, name="conv"),
                layers.BatchNormalization(name="bn"),
                layers.ReLU(name="relu"),
                layers.GlobalAveragePooling2D(name="pool"),
                *([layers.Dropout(dropout, name="dropout")] if dropout else []),
                layers.Dense(5, name="logits"),
            ),
            seed,
        )

    def make(folder, phases=PHASES, seed=0, rate=0.05, pretrained=(), splits=None, dropout=0.0, **training):
        splits = splits or make_splits()
        specs = tuple(PhaseSpec(name, epochs, *rest or [rate]) for name, epochs, *rest in phases)
        spec = TrainingSpec(phases=specs, **training)
        quantization = QuantizationSpec(weight_bits=3, interval_gradient_share=1.0)
        student = quantize_student(network(3, seed), quantization, quantizer_form(spec))
        calibrations = []

        run_folder = RunFolder(str(folder), ["--student=tiny"])
        run_folder.claim()

        def calibrate_and_note():
            calibrate(student, [images for images, _ in splits.calibration], "minmax")
            calibrations.append([float(v.numpy()) for v in student.weight_intervals + student.activation_intervals])

        trainer = Trainer(
            spec,
            student,
            network(4, seed + 1, dropout),
            frozenset(pretrained),
            splits,
            run_folder,
            calibrate_and_note,
        )
        trainer.calibrations = calibrations
        return trainer

    return make


def values(model):
    return [v.numpy() for v in model.variables]


def all_values(trainer):
    return [
        value for net in (trainer._student.plain, trainer._student.model, trainer._teacher) for value in values(net)
    ]


def assert_same_bits(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def same_bits(got, expected):
    return [np.array_equal(a, b) for a, b in zip(got, expected, strict=True)]


def without_seconds(results):
    return [{**r, "seconds": 0, "history": [{**row, "seconds": 0} for row in r["history"]]} for r in results]


def kill_at_call(monkeypatch, owner, name, number):
    """Replaces `owner.name` by one that raises Killed at its call of that number."""
    original, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


def checkpoints(run_dir):
    return {folder.name for folder in (run_dir / "checkpoints").iterdir()}


def script_validation(monkeypatch, splits, scores, teacher=None):
    """Makes the student's top-1 on validation what `scores` says; returns the weights seen at each."""
    seen, left = [], list(scores)

    def scripted(model, batches):
        if batches is not splits.validation or model is teacher:
            return 12.5
        seen.append(values(model))
        return left.pop(0)

    monkeypatch.setattr(trainer_module, "top1", scripted)
    return seen


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Results and weights of a whole run, made once for each schedule."""
    kept = {}

    def get(make_run, one_cosine=True):
        if one_cosine not in kept:
            trainer = make_run(tmp_path_factory.mktemp("whole") / "run", one_cosine=one_cosine)
            kept[one_cosine] = trainer.run(), all_values(trainer)
        return kept[one_cosine]

    return get


@pytest.mark.parametrize(
    "owner, name, call",
    [
        (PhaseProgress, "on_train_batch_end", 8),  # co_studying, second batch of epoch 2
        (durable, "seal", 4),  # co_studying, epoch 2: the files of its checkpoint are written, their manifest is not
        (Trainer, "_restore_best_student", 2),  # co_studying is trained, its best epoch not yet restored
    ],
)
def test_killed_run_goes_on_to_the_bits_of_the_uninterrupted_one(
    tmp_path, monkeypatch, make_run, uninterrupted, owner, name, call
):
    results, expected = uninterrupted(make_run)
    with monkeypatch.context() as patch:
        kill_at_call(patch, owner, name, call)
        with pytest.raises(Killed):
            make_run(tmp_path / "run").run()
    resumed = make_run(tmp_path / "run", seed=50)  # its first weights are others: all must come from the checkpoint
    assert without_seconds(resumed.run()) == without_seconds(results)
    assert_same_bits(all_values(resumed), expected)


# Dropout in the teacher: its masks too have to be those of the uninterrupted run.
DROPPED, DROPOUT = (("co_studying", 2),), {"dropout": 0.5}


@pytest.fixture(scope="module")
def dropped(tmp_path_factory):
    """A whole run with Dropout, made once, and its results."""
    kept = []

    def get(make_run):
        if not kept:
            random_state.seed_everything(3, deterministic=False)
            trainer = make_run(tmp_path_factory.mktemp("dropped") / "run", DROPPED, **DROPOUT)
            kept.extend((trainer, trainer.run()))
        return kept

    return get


def assert_goes_on_to_the_same_bits(run_dir, make_run, dropped, **options):
    random_state.seed_everything(4, deterministic=False)
    resumed = make_run(run_dir, DROPPED, seed=50, **DROPOUT, **options)
    whole, results = dropped(make_run)
    assert without_seconds(resumed.run()) == without_seconds(results)
    assert_same_bits(all_values(resumed), all_values(whole))


def test_dropout_is_at_work(tmp_path, make_run, dropped):
    dry = make_run(tmp_path / "dry", DROPPED)
    dry.run()
    whole, _ = dropped(make_run)
    assert not any(same_bits(values(dry._teacher), values(whole._teacher)))


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}], ids=["a step", "two steps an execution"])
def test_killed_run_goes_on_from_the_middle_of_an_epoch(tmp_path, capsys, monkeypatch, make_run, dropped, options):
    """Running losses too: the history of the epoch is the uninterrupted one's. A damaged checkpoint is passed over."""
    dropped(make_run)
    options = {"checkpoint_every_steps": 2, **options}
    with monkeypatch.context() as patch:
        kill_at_call(patch, DivergenceGuard, "on_train_batch_end", 4 if "steps_per_execution" in options else 6)
        with pytest.raises(Killed):
            random_state.seed_everything(3, deterministic=False)
            make_run(tmp_path / "run", DROPPED, **DROPOUT, **options).run()
    assert checkpoints(tmp_path / "run") == {"phase0_epoch1_step0", "phase0_epoch1_step2"}
    if "steps_per_execution" in options:
        path = tmp_path / "run" / "checkpoints" / "phase0_epoch1_step2" / "state.index"
        path.write_bytes(path.read_bytes()[:-9])
    assert_goes_on_to_the_same_bits(tmp_path / "run", make_run, dropped, **options)
    told = "state.index was changed after it was written: its SHA-256 is another; going on from phase0_epoch1_step0"
    assert (told in capsys.readouterr().out) == ("steps_per_execution" in options)


@pytest.mark.parametrize("batch", [1, 6], ids=["first", "last of an epoch"])
def test_signal_is_obeyed_at_the_end_of_the_step_and_the_run_goes_on_from_there(
    tmp_path, monkeypatch, make_run, dropped, batch
):
    dropped(make_run)
    random_state.seed_everything(3, deterministic=False)
    stopped = make_run(tmp_path / "run", DROPPED, **DROPOUT)
    original, batches = PhaseProgress.on_train_batch_end, []

    def signal_at(self, *args):
        original(self, *args)
        batches.append(args)
        if len(batches) == batch:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PhaseProgress, "on_train_batch_end", signal_at)
        with pytest.raises(Stopped, match="SIGTERM"), stopped._stop:
            stopped.run()
    assert len(batches) == batch
    epoch, step = divmod(batch - 1, 3)
    assert max(checkpoints(tmp_path / "run")) == f"phase0_epoch{epoch}_step{step + 1}"
    assert_goes_on_to_the_same_bits(tmp_path / "run", make_run, dropped)


def test_signal_during_validation_waits_until_the_epoch_is_saved(tmp_path, monkeypatch, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 2),))

    def top1(*_):
        os.kill(os.getpid(), signal.SIGINT)
        return 50.0

    monkeypatch.setattr(trainer_module, "top1", top1)
    with pytest.raises(Stopped, match="SIGINT"), trainer._stop:
        trainer.run()
    assert checkpoints(tmp_path / "run") == {"phase0_epoch1_step0"}


def test_checkpoint_with_numbers_that_are_not_finite_is_never_written(tmp_path, monkeypatch, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 2),), checkpoint_every_steps=1)
    original = PhaseProgress.on_train_batch_end

    def spoil(self, batch, logs=None):
        original(self, batch, logs)
        if batch == 1:
            variable = trainer._student.model.trainable_variables[0]
            variable.assign(variable * np.nan)

    monkeypatch.setattr(PhaseProgress, "on_train_batch_end", spoil)
    with pytest.raises(ExperimentError, match="is no longer finite in phase self_studying, epoch 1, step 2;"):
        trainer.run()
    assert checkpoints(tmp_path / "run") == {"phase0_epoch0_step1"}


def test_error_is_the_last_that_is_said(tmp_path, monkeypatch, capsys, make_run):
    """A bar that is left open would be drawn again behind it."""
    trainer = make_run(tmp_path / "run", (("self_studying", 1),))
    kill_at_call(monkeypatch, DivergenceGuard, "on_train_batch_end", 2)
    with pytest.raises(Killed):
        trainer.run()
    assert capsys.readouterr().err.endswith("\n")


def test_disk_that_refuses_tensorboard_is_told_with_the_folder(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 1),))
    trainer._folder.logs.write_text("no folder")
    with pytest.raises(OSError, match=f"{trainer._folder.logs} cannot be written: "):
        trainer.run()


def test_finished_run_is_not_trained_again(tmp_path, monkeypatch, make_run):
    phases = (("self_studying", 1), ("tutoring", 1))
    first = make_run(tmp_path / "run", phases)
    results = first.run()
    monkeypatch.setattr(Trainer, "_run_phase", None)
    again = make_run(tmp_path / "run", phases, seed=50)
    assert again.run() == results
    assert_same_bits(all_values(again), all_values(first))


def test_killed_run_goes_on_in_a_folder_that_was_moved(tmp_path, monkeypatch, make_run):
    phases = (("self_studying", 3),)
    whole = make_run(tmp_path / "whole", phases)
    whole.run()
    with monkeypatch.context() as patch:
        kill_at_call(patch, PhaseProgress, "on_train_batch_end", 8)
        with pytest.raises(Killed):
            make_run(tmp_path / "run", phases).run()
    (tmp_path / "run").rename(tmp_path / "moved")
    resumed = make_run(tmp_path / "moved", phases, seed=50)
    resumed.run()
    assert_same_bits(all_values(resumed), all_values(whole))


def test_best_epoch_survives_a_kill_although_the_folder_is_named_another_way(
    tmp_path, monkeypatch, make_run, make_splits
):
    phases, splits = (("self_studying", 3),), make_splits()
    monkeypatch.chdir(tmp_path)
    seen = script_validation(monkeypatch, splits, [90.0, 50.0, 50.0])
    with monkeypatch.context() as patch:
        kill_at_call(patch, PhaseProgress, "on_train_batch_end", 5)
        with pytest.raises(Killed):
            make_run("run", phases, splits=splits).run()
    resumed = make_run(tmp_path / "run", phases, splits=splits)
    (result,) = resumed.run()
    assert result["best_epoch"] == 1
    assert_same_bits(values(resumed._student.model), seen[0])


def test_phases_run_in_any_order_and_calibrate_whenever_float_weights_become_quantized(tmp_path, make_run):
    phases = (("self_studying", 1), ("full_precision", 1, 1e-12), ("self_studying", 1, 1e-12), ("tutoring", 1, 1e-12))
    trainer = make_run(tmp_path / "run", phases)
    results = trainer.run()
    assert [r["phase"] for r in results] == [name for name, *_ in phases]
    # On entry to the first and to the third phase, and not between the two quantized ones.
    first, second = trainer.calibrations
    assert first != second
    got = [float(v.numpy()) for v in trainer._student.weight_intervals + trainer._student.activation_intervals]
    np.testing.assert_allclose(got, second, rtol=1e-4)


def test_float_phase_starts_from_what_the_quantized_one_learnt(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 2), ("full_precision", 1, 1e-12)))
    first = trainer._student.plain.get_layer("conv").kernel.numpy()
    trainer.run()
    learnt = trainer._student.weights["conv"].kernel.numpy()
    np.testing.assert_allclose(trainer._student.plain.get_layer("conv").kernel.numpy(), learnt, atol=1e-6)
    assert np.abs(learnt - first).max() > 1e-3


def test_quantized_phase_starts_from_what_the_float_one_learnt(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("full_precision", 2), ("self_studying", 1, 1e-12)))
    first = trainer._student.plain.get_layer("conv").kernel.numpy()
    trainer.run()
    learnt = trainer._student.plain.get_layer("conv").kernel.numpy()
    np.testing.assert_allclose(trainer._student.weights["conv"].kernel.numpy(), learnt, atol=1e-6)
    assert np.abs(learnt - first).max() > 1e-3
    assert len(trainer.calibrations) == 1


def test_student_of_the_best_epoch_goes_on_and_the_teacher_of_the_last(tmp_path, monkeypatch, make_run, make_splits):
    splits = make_splits()
    trainer = make_run(tmp_path / "run", (("co_studying", 4),), splits=splits)
    seen = script_validation(
        monkeypatch, splits, [50.0, 90.0, 90.0, 40.0], trainer._teacher
    )  # of two equals, the later
    teacher_at_epochs = []
    original = Trainer._save

    def save(self, *args):
        teacher_at_epochs.append(values(self._teacher))
        return original(self, *args)

    monkeypatch.setattr(Trainer, "_save", save)
    (result,) = trainer.run()
    assert (result["best_epoch"], result["best_validation_top1"]) == (3, 90.0)
    assert [row["validation_top1"] for row in result["history"]] == [50.0, 90.0, 90.0, 40.0]
    assert_same_bits(values(trainer._student.model), seen[2])
    assert_same_bits(values(trainer._teacher), teacher_at_epochs[3])
    assert not all(same_bits(teacher_at_epochs[2], teacher_at_epochs[3]))


def test_student_of_the_last_epoch_goes_on_where_that_is_asked_for(tmp_path, monkeypatch, make_run, make_splits):
    splits = make_splits()
    trainer = make_run(tmp_path / "run", (("self_studying", 3),), splits=splits, keep_epoch="last")
    seen = script_validation(monkeypatch, splits, [50.0, 90.0, 40.0], trainer._teacher)
    (result,) = trainer.run()
    assert (result["best_epoch"], result["best_validation_top1"]) == (3, 40.0)
    assert_same_bits(values(trainer._student.model), seen[2])


def test_phases_without_a_trained_teacher_leave_every_bit_of_it(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 1), ("tutoring", 2)), weight_decay=0.1)
    before = values(trainer._teacher)
    trainer.run()
    assert_same_bits(values(trainer._teacher), before)


@pytest.mark.parametrize("pretrained", [("student",), ("teacher",), ("student", "teacher"), ()])
def test_full_precision_leaves_a_pretrained_network_alone(tmp_path, make_run, pretrained):
    trainer = make_run(tmp_path / "run", (("full_precision", 1),), pretrained=pretrained)
    networks = {"student": trainer._student.plain, "teacher": trainer._teacher}
    before = {name: values(network) for name, network in networks.items()}
    (result,) = trainer.run()
    for name, network in networks.items():
        assert set(same_bits(values(network), before[name])) == {name in pretrained}
        assert (f"{name}_loss" in result["history"][0]) == (name not in pretrained)


def test_pretrained_teacher_still_learns_in_co_studying(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("co_studying", 1),), pretrained=("teacher",))
    before = values(trainer._teacher)
    trainer.run()
    assert not any(same_bits(values(trainer._teacher), before))


@pytest.mark.parametrize("kind", ["weight", "activation"])
def test_intervals_of_each_kind_have_their_own_learning_rate(tmp_path, make_run, kind):
    trainer = make_run(tmp_path / "run", (("self_studying", 1),), **{f"{kind}_interval_lr_ratio": 0.0})
    trainer.run()
    student = trainer._student
    got = [float(v.numpy()) for v in student.weight_intervals + student.activation_intervals]
    num_weights = len(student.weight_intervals)
    still = [a == b for a, b in zip(got, trainer.calibrations[0], strict=True)]
    weights_still, activations_still = set(still[:num_weights]), set(still[num_weights:])
    assert (weights_still, activations_still) == (({True}, {False}) if kind == "weight" else ({False}, {True}))


def test_teacher_has_its_own_learning_rate_in_co_studying_only(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("full_precision", 1), ("co_studying", 1)), teacher_lr_ratio=0.0)
    first = trainer._teacher.get_layer("conv").kernel.numpy()
    full_precision = []
    original = trainer._enter

    def enter(phase, previous):
        full_precision.append(trainer._teacher.get_layer("conv").kernel.numpy())
        original(phase, previous)

    trainer._enter = enter
    trainer.run()
    assert not np.array_equal(full_precision[1], first)
    np.testing.assert_array_equal(trainer._teacher.get_layer("conv").kernel.numpy(), full_precision[1])


def nan_at(make_splits, epoch, step):
    """Splits whose training batch of that epoch and step, both from 1, is all NaN."""
    splits = make_splits()

    def train(number):
        def spoil(index, batch):
            images = tf.cast(batch[0], tf.float32)
            broken = tf.logical_and(index == step - 1, number == epoch - 1)
            return tf.where(broken, np.nan, images), batch[1]

        return splits.train(number).enumerate().map(spoil)

    return dataclasses.replace(splits, train=train)


def test_diverged_run_stops_with_phase_and_step_and_keeps_the_last_whole_epoch(tmp_path, make_run, make_splits):
    trainer = make_run(tmp_path / "run", (("self_studying", 3),), splits=nan_at(make_splits, epoch=2, step=3))
    with pytest.raises(ExperimentError, match="student_loss became nan in phase self_studying, epoch 2, step 3;"):
        trainer.run()
    assert checkpoints(tmp_path / "run") == {"phase0_epoch1_step0"}
    # Good enough to go on from, with data that are whole again.
    resumed = make_run(tmp_path / "run", (("self_studying", 3),), seed=50)
    whole = make_run(tmp_path / "whole", (("self_studying", 3),))
    resumed.run()
    whole.run()
    assert_same_bits(all_values(resumed), all_values(whole))


def test_intervals_are_kept_from_calibration_to_the_last_epoch(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("full_precision", 1), ("self_studying", 2)))
    full_precision, self_studying = trainer.run()
    assert "first_intervals" not in full_precision and "intervals" not in full_precision["history"][0]
    (calibrated,) = trainer.calibrations
    assert sorted(calibrated) == sorted(self_studying["first_intervals"])
    first, last = (row["intervals"] for row in self_studying["history"])
    assert len(first) == len(last) == len(calibrated) and first != last and first != calibrated
    assert trainer._student.intervals() == self_studying["history"][self_studying["best_epoch"] - 1]["intervals"]


def test_results_tell_of_every_epoch_and_two_checkpoints_are_kept(tmp_path, make_run, make_splits):
    whole, asked = make_splits(), []

    def train(epoch):
        asked.append(epoch)
        return whole.train(epoch)

    splits = dataclasses.replace(whole, train=train)
    phases = (("self_studying", 2), ("co_studying", 1))
    self_studying, co_studying = make_run(tmp_path / "run", phases, splits=splits, batch_norm_batches=0).run()
    assert asked == [0, 1, 2]  # no phase sees the batches of an earlier one again
    student = {"student_loss", "student_top1"}
    teacher = {"teacher_loss", "teacher_top1", "teacher_validation_top1"}
    every_epoch = {"validation_top1", "seconds", "intervals"}
    assert [set(row) for row in self_studying["history"]] == [student | every_epoch] * 2
    assert [set(row) for row in co_studying["history"]] == [student | teacher | every_epoch]
    assert "teacher_test_top1" not in self_studying
    assert 0 <= co_studying["teacher_test_top1"] <= 100
    assert checkpoints(tmp_path / "run") == {"phase1_epoch1_step0", "phase2_epoch0_step0"}
    assert list((tmp_path / "run/logs").glob("events*"))


def test_learning_rate_falls_to_zero_by_a_cosine_over_each_phase(tmp_path, make_run):
    phases = (("self_studying", 1), ("co_studying", 2))
    trainer = make_run(tmp_path / "run", phases, one_cosine=False, teacher_lr_ratio=0.5)
    distiller = trainer._distiller(1)
    for groups, rate in ((distiller.student_groups, 0.05), (distiller.teacher_groups, 0.025)):
        for group in groups:
            schedule = group.optimizer._learning_rate  # 2 epochs of 3 batches
            np.testing.assert_allclose([schedule(0), schedule(3), schedule(6)], [rate, rate / 2, 0.0], atol=1e-8)


def test_one_cosine_goes_over_all_quantized_phases_and_leaves_float_ones_their_own(tmp_path, make_run):
    phases = (("full_precision", 2), ("self_studying", 1), ("co_studying", 2), ("tutoring", 1))
    trainer = make_run(tmp_path / "run", phases, one_cosine=True, teacher_lr_ratio=0.5)
    rates = [d.student_groups[0].optimizer._learning_rate for d in map(trainer._distiller, range(4))]
    np.testing.assert_allclose([rates[0](0), rates[0](3), rates[0](6)], [0.05, 0.025, 0.0], atol=1e-8)
    share = np.arange(5) * 3 / 12  # of 4 epochs of 3 batches, at the bounds of epochs
    whole = 0.05 * 0.5 * (1 + np.cos(np.pi * share))
    np.testing.assert_allclose([rates[1](0), rates[1](3)], whole[:2], atol=1e-8)
    np.testing.assert_allclose([rates[2](0), rates[2](3), rates[2](6)], whole[1:4], atol=1e-8)
    np.testing.assert_allclose([rates[3](0), rates[3](3)], whole[3:], atol=1e-8)
    of_teacher = trainer._distiller(2).teacher_groups[0].optimizer._learning_rate
    np.testing.assert_allclose([of_teacher(0), of_teacher(6)], [whole[1] / 2, whole[3] / 2], atol=1e-8)


@pytest.mark.parametrize(
    "options, tolerance",
    [
        ({"steps_per_execution": 2}, 0.0),  # two and one batch of the three: the same steps
        ({"jit_compile": True}, 1e-3),  # XLA sums in another order, and takes the quantizers' definition
        ({"mixed_precision": "bfloat16"}, 0.1),  # 8 bits of mantissa, after 12 steps
    ],
    ids=["steps_per_execution", "jit_compile", "bfloat16"],
)
def test_accelerator_options_train_to_the_same_weights(make_run, uninterrupted, tmp_path, options, tolerance):
    # Phases that end at rate 0: under one cosine an interval near 0 is yet in motion, and carries a last digit far.
    results, plain = uninterrupted(make_run, one_cosine=False)
    other = make_run(tmp_path / "other", one_cosine=False, **options)
    results = results, other.run()
    for ours, expected in zip(all_values(other), plain, strict=True):
        np.testing.assert_allclose(ours, expected, atol=tolerance * max(1.0, np.abs(expected).max()), rtol=0)
    losses = [[row["student_loss"] for row in result[1]["history"]] for result in results]
    np.testing.assert_allclose(losses[1], losses[0], rtol=max(tolerance, 1e-6))


def test_mixed_precision_is_for_training_alone(make_run, tmp_path, monkeypatch):
    """The rewrite is on when an epoch begins and off when the networks are evaluated."""
    seen = {"training": [], "evaluation": []}

    def note(owner, name, where):
        original = getattr(owner, name)

        def noting(*args, **kwargs):
            seen[where].append(
                tf.config.optimizer.get_experimental_options().get("auto_mixed_precision_onednn_bfloat16")
            )
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noting)

    note(PhaseProgress, "begin", "training")
    note(trainer_module, "top1", "evaluation")
    note(BatchNormEstimator, "estimate", "evaluation")
    trainer = make_run(tmp_path / "run", mixed_precision="bfloat16", batch_norm_batches=1)
    trainer.run()
    assert seen["training"] == [True] * 4  # an epoch each
    assert seen["evaluation"] and not any(seen["evaluation"])
    assert {v.dtype for v in trainer._student.model.variables} <= {tf.float32, tf.int32}


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
    """A whole run with the low-bit options, made once, and its results."""
    kept = []

    def get(make_run):
        if not kept:
            trainer = make_run(tmp_path_factory.mktemp("restless") / "run", RESTLESS, **LOW_BIT)
            kept.extend((trainer, trainer.run()))
            assert kept[1][-1]["history"][-1]["frozen_weights"] > 0
        return kept

    return get


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
    whole, results = restless(make_run)
    with monkeypatch.context() as patch:
        kill_at_call(patch, owner, name, call)
        with pytest.raises(Killed):
            make_run(tmp_path / "run", RESTLESS, **LOW_BIT).run()
    resumed = make_run(tmp_path / "run", RESTLESS, seed=50, **LOW_BIT)
    assert without_seconds(resumed.run()) == without_seconds(results)
    assert_same_bits(all_values(resumed), all_values(whole))
    assert_same_bits(frozen(resumed), frozen(whole))


def test_several_steps_an_execution_freeze_the_same_weights(tmp_path, make_run, restless):
    one, _ = restless(make_run)
    two = make_run(tmp_path / "run", RESTLESS, steps_per_execution=2, **LOW_BIT)
    two.run()
    assert_same_bits(all_values(two), all_values(one))
    assert_same_bits(frozen(two), frozen(one))


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


def test_freezing_starts_anew_when_float_weights_become_quantized(tmp_path, make_run):
    phases = (RESTLESS[0], ("full_precision", 1), ("self_studying", 1), ("tutoring", 1))
    trainer = make_run(tmp_path / "run", phases, **LOW_BIT)
    original, shares = trainer._enter, []

    def enter(phase, previous):
        before = trainer._freezing.share()
        original(phase, previous)
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
    trainer._calibrate()
    thresholds = []
    monkeypatch.setattr(Freezing, "update", lambda self, weights, threshold: thresholds.append(float(threshold)))
    way = 0.0
    for weight in trainer._student.weights.values():
        w, interval, grid = weight.kernel.numpy().astype(np.float64), float(weight.interval.numpy()), weight.grid
        z = np.clip(w / interval, grid.qmin, grid.qmax)
        way += np.sum((interval * (np.round(z) - z)) ** 2)
    for index, step, done in ((1, 0, 0), (1, 2, 2), (2, 0, 3), (2, 4, 7), (2, 6, 9)):
        distiller = trainer._distiller(index)
        distiller.student_groups[0].optimizer.iterations.assign(step)
        risen = (1 - np.cos(np.pi * done / 9)) / 2
        np.testing.assert_allclose(distiller._student_penalty(), 0.1 * risen * way, rtol=1e-4, atol=1e-9)
        distiller._after_student_step()
        np.testing.assert_allclose(thresholds[-1], 0.2 - 0.18 * risen, rtol=1e-5)
    assert trainer._distiller(0)._student_penalty is None and trainer._distiller(0)._after_student_step is None


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


def test_statistics_are_estimated_before_each_validation_of_a_quantized_student(
    tmp_path, monkeypatch, make_run, make_splits
):
    """What validation, checkpoint and the next phase see are those of the epoch's first batches and of its weights."""
    splits, phases = make_splits(), (("full_precision", 1), ("self_studying", 2))
    trainer = make_run(tmp_path / "run", phases, splits=splits, batch_norm_batches=2)
    seen = script_validation(monkeypatch, splits, [30.0, 90.0, 50.0], trainer._teacher)
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


def test_estimated_statistics_leave_every_other_bit_of_the_training(tmp_path, monkeypatch, make_run, make_splits):
    def trained(name, **options):
        splits = make_splits()
        trainer = make_run(tmp_path / name, (("self_studying", 2), ("co_studying", 1)), splits=splits, **options)
        with monkeypatch.context() as patch:
            script_validation(patch, splits, [1.0, 2.0, 3.0], trainer._teacher)
            results = trainer.run()
        model = trainer._student.model
        rest = [v.numpy() for v in model.variables if "moving" not in v.name] + values(trainer._teacher)
        losses = [row["student_loss"] for result in results for row in result["history"]]
        return rest, losses, [v.numpy() for v in model.variables if "moving" in v.name]

    plain, estimated = trained("plain", batch_norm_batches=0), trained("estimated", batch_norm_batches=3)
    assert_same_bits(estimated[0], plain[0])
    assert estimated[1] == plain[1]
    assert not any(same_bits(estimated[2], plain[2]))


def test_no_phases_calibrate_and_train_nothing(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", ())
    before = values(trainer._student.plain)
    assert trainer.run() == []
    assert_same_bits(values(trainer._student.plain), before)
    assert all(float(interval.numpy()) != 1.0 for interval in trainer._student.weight_intervals)


@pytest.mark.parametrize("asked, estimated", [(-1, False), (0, False), (2, True)])
def test_without_phases_statistics_are_estimated_if_asked_for(tmp_path, make_run, asked, estimated):
    """The default is for what training leaves behind."""
    trainer = make_run(tmp_path / "run", (), batch_norm_batches=asked)
    before = [v.numpy() for v in trainer._student.plain.variables if "moving" in v.name]
    trainer.run()
    after = [v.numpy() for v in trainer._student.model.variables if "moving" in v.name]
    assert not any(same_bits(before, after)) if estimated else all(same_bits(before, after))


@pytest.mark.parametrize("pretrained, estimated", [((), True), (("student",), False)])
def test_intervals_behind_a_float_phase_see_statistics_of_its_weights(tmp_path, make_run, pretrained, estimated):
    """A student that came with weights came with statistics, too."""
    phases = (("full_precision", 1), ("self_studying", 1))
    seen = []
    trainer = make_run(tmp_path / "run", phases, pretrained=pretrained, batch_norm_batches=2)
    original = trainer._calibrate

    def calibrate_and_look():
        seen.append([v.numpy() for v in trainer._student.plain.variables if "moving" in v.name])
        original()

    trainer._calibrate = calibrate_and_look
    trainer.run()
    expected = make_run(tmp_path / "other", phases, pretrained=pretrained)._student.plain
    expected.set_weights(trainer._student.plain.get_weights())
    BatchNormEstimator(expected).estimate(images for images, _ in trainer._splits.train(1).take(2))
    now = [v.numpy() for v in expected.variables if "moving" in v.name]
    assert all(same_bits(seen[0], now)) == estimated
