"""A `Trainer` of two nets of a few hundred weights, and its whole run."""

import collections

import pytest
from tf_keras import layers

from qkd_tf.distillation.phase_setup import Networks
from qkd_tf.distillation.trainer import Events, Place, Trainer
from qkd_tf.experiment import PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student, quantizer_implementation
from qkd_tf.storage.run_folder import RunFolder
from tests.qkd_tf.distillation.runs import PHASES, all_values, values

QUANTIZATION = QuantizationSpec(weight_bits=3, interval_gradient_share=1.0)


@pytest.fixture(scope="module")
def spare():
    """Networks that tests of this file are done with, by what they were built as, and the first student's values."""
    return collections.defaultdict(list)


@pytest.fixture
def make_networks(chain, randomize, spare):
    """make_networks(seed, implementation, dropout): student and teacher for one `Trainer`, by that seed alone.

    To build them takes longer than to train them, so those that earlier tests have left are taken first.
    """
    lent = []

    def network(width, dropout=0.0):
        return chain(
            layers.Rescaling(1 / 64, -2.0, name="normalization"),
            layers.Conv2D(width, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            *([layers.Dropout(dropout, name="dropout")] if dropout else []),
            layers.Dense(5, name="logits"),
        )

    def make(seed, implementation, dropout):
        if not spare[implementation, dropout]:
            student = quantize_student(network(3), QUANTIZATION, implementation)
            spare[implementation, dropout].append((student, network(4, dropout), values(student.model)))
        student, teacher, first = spare[implementation, dropout].pop()
        if not dropout:  # its generator was made of the seed that TensorFlow had then, and has gone on since
            lent.append(((implementation, dropout), (student, teacher, first)))
        randomize(student.plain, seed)
        randomize(teacher, seed + 1)
        for variable, value in zip(student.model.variables, first, strict=True):
            variable.assign(value)
        student.copy_weights_from_plain()
        return student, teacher

    yield make
    for built_as, networks in lent:
        spare[built_as].append(networks)


@pytest.fixture
def make_run(make_networks, make_splits):
    """make_run(folder, phases, ...): a `Trainer` with networks of its own, whose calibrations are counted."""

    def make(folder, phases=PHASES, seed=0, rate=0.05, pretrained=(), splits=None, dropout=0.0, **training):
        splits = splits or make_splits()
        specs = tuple(PhaseSpec(name, epochs, *rest or [rate]) for name, epochs, *rest in phases)
        spec = TrainingSpec(phases=specs, **training)
        student, teacher = make_networks(seed, quantizer_implementation(spec), dropout)
        calibrations = []

        run_folder = RunFolder(str(folder), ["--student=tiny"])
        run_folder.claim()

        def calibrate_and_note():
            calibrate(student, [images for images, _ in splits.calibration], "minmax")
            calibrations.append([float(v.numpy()) for v in student.weight_intervals + student.activation_intervals])

        trainer = Trainer(
            spec,
            Networks(student, teacher, frozenset(pretrained)),
            splits,
            Place(run_folder),
            Events(calibrate_and_note),
        )
        trainer.calibrations = calibrations
        return trainer

    return make


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
