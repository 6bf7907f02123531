"""A student whose own BatchNorm statistics leave it at chance starts with those of training pictures."""

import types

import numpy as np
import pytest
import tensorflow as tf
from tf_keras import layers

from qkd_tf.experiment import PhaseSpec, TrainingSpec
from qkd_tf.outcome import start
from qkd_tf.train import job

LABELS = np.arange(60) % 2  # of dark and bright pictures


@pytest.fixture
def student(chain):
    """Tells dark from bright, if BatchNormalization takes the mean off."""
    model = chain(
        layers.Conv2D(2, 1, use_bias=False, name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(name="relu"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(2, use_bias=False, name="logits"),
    )
    model.get_layer("conv").set_weights([np.full((1, 1, 3, 2), [-1.0, 1.0], np.float32)])
    model.get_layer("logits").set_weights([np.eye(2, dtype=np.float32)])
    return model


@pytest.fixture
def splits(make_splits):
    noise = np.random.default_rng(0).normal(0, 5, (60, 8, 8, 3))
    pictures = (80 + 80 * LABELS[:, None, None, None] + noise).astype(np.uint8)
    batches = tf.data.Dataset.from_tensor_slices((pictures, LABELS)).batch(20)
    return make_splits(train=lambda epoch, step=0, share=(0, 1): batches, validation=batches, batch_size=20)


@pytest.mark.parametrize(
    "statistics, batches, fits, top1",
    [
        ([[-360.0, 360.0], [1.4e4, 1.4e4]], -1, True, 100.0),  # those of the pictures
        ([[0.0, 0.0], [1.0, 1.0]], -1, False, 100.0),  # the first ones
        ([[0.0, 0.0], [1.0, 1.0]], 0, True, 50.0),  # none are measured
    ],
)
def test_statistics_are_measured_only_where_that_tells_classes_apart(
    student, splits, tmp_path, capsys, statistics, batches, fits, top1
):
    student.get_layer("bn").set_weights([*student.get_layer("bn").get_weights()[:2], *map(np.array, statistics)])
    before = student.get_weights()
    look = start.Look(splits, tmp_path / "start.json")
    look.at("student", student)
    prepared = types.SimpleNamespace(student=types.SimpleNamespace(plain=student), splits=splits)
    training = TrainingSpec((PhaseSpec("self_studying", 1, 0.1),), batch_norm_batches=batches)
    assert job._has_fitting_statistics(prepared, look, training) == fits
    assert all(map(np.array_equal, before, student.get_weights())) == fits
    right = student(np.concatenate([images for images, _ in splits.validation])).numpy().argmax(-1) == LABELS
    assert 100 * right.mean() == top1
    if not fits:
        assert "50.00 % of 60 validation images, with statistics of training pictures on 100.00 %" in (
            look.note_on_statistics()
        )
        again = start.Look(splits, tmp_path / "start.json")
        again.found |= look.found  # as a run that was killed finds it
        student.set_weights(before)
        capsys.readouterr()
        assert not job._has_fitting_statistics(prepared, again, training) and capsys.readouterr().out == ""
        assert not all(map(np.array_equal, before, student.get_weights()))


def test_a_student_that_knows_nothing_keeps_its_statistics(student, splits, tmp_path):
    student.get_layer("logits").set_weights([np.zeros((2, 2), np.float32)])
    before = student.get_weights()
    look = start.Look(splits, tmp_path / "start.json")
    look.at("student", student)
    prepared = types.SimpleNamespace(student=types.SimpleNamespace(plain=student), splits=splits)
    assert job._has_fitting_statistics(prepared, look, TrainingSpec((PhaseSpec("self_studying", 1, 0.1),)))
    assert all(map(np.array_equal, before, student.get_weights()))
