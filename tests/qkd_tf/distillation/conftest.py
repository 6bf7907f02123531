"""A `Trainer` of two nets of a few hundred weights, and its whole run."""

import pytest
from tf_keras import layers

from qkd_tf.distillation.trainer import Trainer
from qkd_tf.experiment import PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student, quantizer_form
from qkd_tf.run_folder import RunFolder
from tests.qkd_tf.distillation.runs import PHASES, all_values


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
