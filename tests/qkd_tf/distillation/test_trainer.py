"""Time: order of phases, best epochs, learning rates, divergence, precision, on a net of a few hundred weights."""

import contextlib
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.distillation import trainer as trainer_module
from qkd_tf.distillation.phase_setup import Networks
from qkd_tf.distillation.progress import PhaseProgress
from qkd_tf.distillation.relative_adam import RelativeAdam
from qkd_tf.distillation.trainer import Events, Place, Trainer
from qkd_tf.experiment import ExperimentError, PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.batch_norm import BatchNormEstimator
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import QuantizedStudent, quantize_student, quantizer_implementation
from qkd_tf.storage.run_folder import RunFolder
from tests.qkd_tf.distillation.runs import (
    all_values,
    assert_same_bits,
    checkpoints,
    same_bits,
    script_validation,
    values,
)


@pytest.mark.slow
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


@pytest.mark.slow
def test_float_phase_starts_from_what_the_quantized_one_learnt(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 2), ("full_precision", 1, 1e-12)))
    first = trainer._student.plain.get_layer("conv").kernel.numpy()
    trainer.run()
    learnt = trainer._student.weights["conv"].kernel.numpy()
    np.testing.assert_allclose(trainer._student.plain.get_layer("conv").kernel.numpy(), learnt, atol=1e-6)
    assert np.abs(learnt - first).max() > 1e-3


@pytest.mark.slow
def test_quantized_phase_starts_from_what_the_float_one_learnt(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("full_precision", 2), ("self_studying", 1, 1e-12)))
    first = trainer._student.plain.get_layer("conv").kernel.numpy()
    trainer.run()
    learnt = trainer._student.plain.get_layer("conv").kernel.numpy()
    np.testing.assert_allclose(trainer._student.weights["conv"].kernel.numpy(), learnt, atol=1e-6)
    assert np.abs(learnt - first).max() > 1e-3
    assert len(trainer.calibrations) == 1


@pytest.mark.slow
def test_student_of_the_best_epoch_goes_on_and_the_teacher_of_the_last(tmp_path, monkeypatch, make_run, make_splits):
    splits = make_splits()
    trainer = make_run(tmp_path / "run", (("co_studying", 4),), splits=splits)
    seen = script_validation(monkeypatch, splits, [50.0, 90.0, 90.0, 40.0])  # of two equals, the later
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "needs_training, more_wrong, best",
    [(False, 0, 0), (False, -1, 2), (True, 0, 2), (True, 2, 2), (True, 3, 0)],
    ids=["8 bits, no better", "8 bits, better", "as good", "worse by chance", "worse"],
)
def test_few_pictures_have_to_make_a_pretrained_student_better(
    tmp_path, monkeypatch, capsys, make_run, make_splits, needs_training, more_wrong, best
):
    """At few bits they only must not make it worse beyond chance."""
    monkeypatch.setattr(QuantizedStudent, "needs_training", needs_training)
    splits = make_splits()
    trainer = make_run(tmp_path / "run", (("self_studying", 2),), splits=splits, pretrained=("student",))
    last = 80.0 - 100 * more_wrong / sum(len(labels) for _, labels in splits.validation)
    seen = script_validation(monkeypatch, splits, [80.0, 30.0, last])  # what the phase begins with comes first
    (result,) = trainer.run()
    assert (result["best_epoch"], result["best_validation_top1"]) == (best, last if best else 80.0)
    assert_same_bits(values(trainer._student.model), seen[best])
    told = "none of 2 epochs was better than the student before the phase (validation 80.00 %), which is kept"
    printed = capsys.readouterr().out
    assert (told in printed) == (best == 0)
    note = "note: the first epoch cost the student 50.00 points of validation, 80.00 % before it, 30.00 % now; "
    assert printed.count(note) == printed.count("note: the first epoch") == 1


@pytest.mark.parametrize("lost, told", [(10.0, False), (10.1, True)])
def test_a_first_epoch_far_below_the_start_is_told(tmp_path, make_run, lost, told):
    trainer = make_run(tmp_path / "run", (("self_studying", 2),), pretrained=("student",))
    progress = {"epoch": 0, "best": {"epoch": 0, "validation_top1": 80.0}}
    notes = trainer._loss_notes(progress, 80.0 - lost, 1_000)
    assert len(notes) == told and all(f"cost the student {lost:.2f} points" in note for note in notes)
    assert trainer._loss_notes(progress, 30.0, 10) == []  # five images
    assert trainer._loss_notes({**progress, "epoch": 1}, 30.0, 1_000) == []
    assert trainer._loss_notes({"epoch": 0, "best": None}, 30.0, 1_000) == []


def test_student_of_the_last_epoch_goes_on_where_that_is_asked_for(tmp_path, monkeypatch, make_run, make_splits):
    splits = make_splits()
    trainer = make_run(tmp_path / "run", (("self_studying", 3),), splits=splits, keep_epoch="last")
    seen = script_validation(monkeypatch, splits, [50.0, 90.0, 40.0])
    (result,) = trainer.run()
    assert (result["best_epoch"], result["best_validation_top1"]) == (3, 40.0)
    assert_same_bits(values(trainer._student.model), seen[2])


@pytest.mark.slow
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


@pytest.mark.slow
def test_pretrained_teacher_still_learns_in_co_studying(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("co_studying", 1),), pretrained=("teacher",))
    told, before = [], values(trainer._teacher)
    trainer._events = dataclasses.replace(trainer._events, after_phase=lambda *phase: told.append(phase))
    (result,) = trainer.run()
    assert not any(same_bits(values(trainer._teacher), before))
    last = result["history"][-1]
    assert told == [("co_studying", {"student": last["validation_top1"], "teacher": last["teacher_validation_top1"]})]


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


@pytest.mark.slow
def test_teacher_has_its_own_learning_rate_in_co_studying_only(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("full_precision", 1), ("co_studying", 1)), teacher_lr_ratio=0.0)
    first = trainer._teacher.get_layer("conv").kernel.numpy()
    full_precision = []
    original = trainer._enter

    def enter(*args):
        full_precision.append(trainer._teacher.get_layer("conv").kernel.numpy())
        original(*args)

    trainer._enter = enter
    trainer.run()
    assert not np.array_equal(full_precision[1], first)
    np.testing.assert_array_equal(trainer._teacher.get_layer("conv").kernel.numpy(), full_precision[1])


def nan_at(make_splits, epoch, step):
    """Splits whose training batch of that epoch and step, both from 1, is all NaN."""
    splits = make_splits()

    def train(number, first_step=0, share=(0, 1)):
        def spoil(index, batch):
            images = tf.cast(batch[0], tf.float32)
            broken = tf.logical_and(index == step - 1, number == epoch - 1)
            return tf.where(broken, np.nan, images), batch[1]

        return splits.train(number, first_step).enumerate(first_step).map(spoil)

    return dataclasses.replace(splits, train=train)


@pytest.mark.slow
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


@pytest.mark.slow
def test_intervals_are_kept_from_calibration_to_the_last_epoch(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("full_precision", 1), ("self_studying", 2)))
    full_precision, self_studying = trainer.run()
    assert "first_intervals" not in full_precision and "intervals" not in full_precision["history"][0]
    (calibrated,) = trainer.calibrations
    assert sorted(calibrated) == sorted(self_studying["first_intervals"])
    first, last = (row["intervals"] for row in self_studying["history"])
    assert len(first) == len(last) == len(calibrated) and first != last and first != calibrated
    assert trainer._student.intervals() == self_studying["history"][self_studying["best_epoch"] - 1]["intervals"]


@pytest.mark.slow
def test_results_tell_of_every_epoch_and_two_checkpoints_are_kept(tmp_path, make_run, make_splits):
    whole, asked = make_splits(), []

    def train(epoch, first_step=0, share=(0, 1)):
        asked.append(epoch)
        return whole.train(epoch, first_step)

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
    distiller = trainer._setup.distiller(1)
    for groups, rate in ((distiller.student_groups, 0.05), (distiller.teacher_groups, 0.025)):
        for group in groups:
            schedule = group.optimizer._learning_rate  # 2 epochs of 3 batches
            np.testing.assert_allclose([schedule(0), schedule(3), schedule(6)], [rate, rate / 2, 0.0], atol=1e-8)


def test_one_cosine_goes_over_all_quantized_phases_and_leaves_float_ones_their_own(tmp_path, make_run):
    phases = (("full_precision", 2), ("self_studying", 1), ("co_studying", 2), ("tutoring", 1))
    trainer = make_run(tmp_path / "run", phases, one_cosine=True, teacher_lr_ratio=0.5)
    rates = [d.student_groups[0].optimizer._learning_rate for d in map(trainer._setup.distiller, range(4))]
    np.testing.assert_allclose([rates[0](0), rates[0](3), rates[0](6)], [0.05, 0.025, 0.0], atol=1e-8)
    share = np.arange(5) * 3 / 12  # of 4 epochs of 3 batches, at the bounds of epochs
    whole = 0.05 * 0.5 * (1 + np.cos(np.pi * share))
    np.testing.assert_allclose([rates[1](0), rates[1](3)], whole[:2], atol=1e-8)
    np.testing.assert_allclose([rates[2](0), rates[2](3), rates[2](6)], whole[1:4], atol=1e-8)
    np.testing.assert_allclose([rates[3](0), rates[3](3)], whole[3:], atol=1e-8)
    of_teacher = trainer._setup.distiller(2).teacher_groups[0].optimizer._learning_rate
    np.testing.assert_allclose([of_teacher(0), of_teacher(6)], [whole[1] / 2, whole[3] / 2], atol=1e-8)


def test_intervals_may_have_an_optimizer_of_their_own_whose_steps_are_shares(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 1),), interval_optimizer="relative_adam")
    weights, *intervals = trainer._setup.distiller(0).student_groups
    assert type(weights.optimizer) is tf_keras.optimizers.SGD
    assert [type(group.optimizer) for group in intervals] == [RelativeAdam] * 2
    trainer.run()
    (calibrated,) = trainer.calibrations
    got = [float(variable) for variable in trainer._student.weight_intervals + trainer._student.activation_intervals]
    moved = np.abs(np.array(got) / calibrated - 1)
    assert 0.001 < moved.max() < 0.06  # three steps, each bounded by 0.02


@pytest.mark.slow
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


@pytest.mark.slow
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
    note(trainer_module, "predict_each", "evaluation")
    note(BatchNormEstimator, "estimate", "evaluation")
    trainer = make_run(tmp_path / "run", mixed_precision="bfloat16", batch_norm_batches=1)
    trainer.run()
    assert seen["training"] == [True] * 4  # an epoch each
    assert seen["evaluation"] and not any(seen["evaluation"])
    assert {v.dtype for v in trainer._student.model.variables} <= {tf.float32, tf.int32}


@pytest.mark.slow
def test_after_an_epoch_a_note_tells_of_intervals_that_left_and_of_one_class_for_all(tmp_path, make_run, capsys):
    bound = {"interval_max_change": 0.0, "momentum": 0.0}
    trainer = make_run(tmp_path / "run", (("self_studying", 2, 1e-12),), **bound)
    trainer.run()
    assert "changed more than tenfold" not in "".join(capsys.readouterr())
    trainer = make_run(tmp_path / "far", (("self_studying", 2, 100.0),), weight_interval_lr_ratio=100.0, **bound)
    with contextlib.suppress(ExperimentError):  # of a loss that is no longer finite, later
        trainer.run()
    told = "".join(capsys.readouterr())
    assert (
        "note: intervals changed more than tenfold: " in told or "note: every validation image is given class" in told
    )


def test_no_phases_calibrate_and_train_nothing(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", ())
    before = values(trainer._student.plain)
    assert trainer.run() == []
    assert_same_bits(values(trainer._student.plain), before)
    assert all(float(interval.numpy()) != 1.0 for interval in trainer._student.weight_intervals)


@pytest.fixture
def run_with(chain, randomize, make_splits, tmp_path):
    """run_with(phases, student, teacher): a `Trainer` of networks that these functions freeze a part of."""

    def network(width, freeze):
        model = randomize(
            chain(
                layers.Rescaling(1 / 64, -2.0, name="normalization"),
                layers.Conv2D(width, 3, use_bias=False, name="conv"),
                layers.BatchNormalization(name="bn"),
                layers.ReLU(name="relu"),
                layers.GlobalAveragePooling2D(name="pool"),
                layers.Dense(5, name="logits"),
            )
        )
        freeze(model)
        return model

    def make(phases, student, teacher=lambda model: None, **training):
        splits = make_splits()
        spec = TrainingSpec(phases=tuple(PhaseSpec(name, 1, 0.05) for name in phases), **training)
        quantized = quantize_student(network(3, student), QuantizationSpec(), quantizer_implementation(spec))
        folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
        folder.claim()
        images = [images for images, _ in splits.calibration]
        return Trainer(
            spec,
            Networks(quantized, network(4, teacher)),
            splits,
            Place(folder),
            Events(lambda: calibrate(quantized, images, "mse")),
        )

    return make


def freeze_all(model):
    model.trainable = False


def freeze_base(model):
    for name in ("conv", "bn"):
        model.get_layer(name).trainable = False


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"batch_norm_batches": 3}, {"dampening": 0.1, "freeze_threshold_start": 0.1}])
def test_student_whose_layers_are_all_frozen_learns_its_intervals_alone(run_with, options):
    """At 6352718 TFMOT's wrappers had every kernel trained, a frozen layer's too, and frozen statistics became 0."""
    trainer = run_with(("co_studying",), freeze_all, **options)
    student = trainer._student
    before = values(student.plain)
    (first,) = trainer.run()
    for layer in student.plain.layers:
        if layer.name in student.weights:
            np.testing.assert_array_equal(student.weights[layer.name].kernel, layer.kernel)
    for old, now in zip(before, values(student.plain), strict=True):
        np.testing.assert_array_equal(old, now)
    assert np.mean(~np.isclose(student.intervals(), first["first_intervals"], rtol=1e-6)) > 0.8


@pytest.mark.slow
def test_frozen_base_stays_as_it_is_while_the_head_learns(run_with):
    trainer = run_with(("self_studying",), freeze_base, batch_norm_batches=3)
    student = trainer._student
    before = {layer.name: layer.get_weights() for layer in student.plain.layers}
    trainer.run()
    student.copy_weights_to_plain()
    after = {layer.name: layer.get_weights() for layer in student.plain.layers}
    for name in ("conv", "bn"):
        for old, now in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(old, now)
    assert np.abs(before["logits"][0] - after["logits"][0]).max() > 1e-3


@pytest.mark.slow
def test_frozen_base_of_a_teacher_stays_while_its_head_learns_in_co_studying(run_with):
    trainer = run_with(("co_studying",), lambda model: None, freeze_base)
    before = {layer.name: layer.get_weights() for layer in trainer._teacher.layers}
    trainer.run()
    after = {layer.name: layer.get_weights() for layer in trainer._teacher.layers}
    changed = {name for name in before if not all(map(np.array_equal, before[name], after[name]))}
    assert changed == {"logits"}


@pytest.mark.slow
def test_frozen_teacher_teaches_as_it_is(run_with):
    trainer = run_with(("tutoring",), lambda model: None, freeze_all)
    before = values(trainer._teacher)
    (result,) = trainer.run()
    assert_same_bits(values(trainer._teacher), before)
    assert "teacher_loss" not in result["history"][0]


@pytest.mark.parametrize("epochs, told", [(1, "its one epoch was not better"), (2, "none of 2 epochs was better")])
def test_phase_of_which_no_epoch_is_kept_is_told_by_their_number(epochs, told):
    result = {"phase": "tutoring", "best_epoch": 0, "epochs": epochs}
    result |= {"best_validation_top1": 80.0, "student_test_top1": 70.0}
    line = (
        f"tutoring: {told} than the student before the phase (validation 80.00 %), which is kept; test: student 70.00 %"
    )
    assert trainer_module._line(result) == line
