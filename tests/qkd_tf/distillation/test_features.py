"""Features of student and teacher: what is compared, and whom it moves."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.distillation.features import Features
from qkd_tf.distillation.phase_setup import Networks, PhaseSetup
from qkd_tf.distillation.phases import PHASES
from qkd_tf.experiment import PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import QuantizerImplementation, quantize_student, quantizer_implementation
from tests.qkd_tf.distillation.runs import values

WEIGHT = 0.5
QUANTIZATION = QuantizationSpec(weight_bits=3, activation_bits=3, residual_bits=3, interval_gradient_share=1.0)


@pytest.fixture
def network(chain, randomize):
    """network(seed, width): pixels to 3 logits, from a number of features."""

    def make(seed, width=4):
        made = chain(
            layers.Rescaling(1 / 64, -2.0, name="normalization"),
            layers.Conv2D(width, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="logits"),
        )
        return randomize(made, seed)

    return make


def nested(model):
    pixels = tf_keras.Input(model.input_shape[1:])
    return tf_keras.Model(pixels, tf_keras.layers.Activation("linear")(model(pixels)))


@pytest.fixture
def made(network, images):
    """made(**training): networks, and a function from the index of a phase to its step."""

    def make(wrap=nested, **training):
        spec = TrainingSpec(
            tuple(PhaseSpec(name, 1, 0.1) for name in PHASES), **{"feature_distillation_weight": WEIGHT} | training
        )
        student = quantize_student(network(1), QUANTIZATION, quantizer_implementation(spec))
        calibrate(student, [images], "minmax")
        student.copy_weights_from_plain()
        networks = Networks(student, wrap(network(2)))
        return networks, PhaseSetup(spec, networks, 1, None).distiller

    return make


def read(model, layer, images):
    """What a layer reads in inference, by a model of its own."""
    return tf_keras.Model(model.inputs, layer.input)(images, training=False).numpy()


def test_loss_is_that_of_the_definition(made, network, images):
    """The mean square of I * clip(round(t / I)) - s."""
    networks, distiller = made()
    student = networks.student
    step = distiller(list(PHASES).index("tutoring"))
    step.student(images, training=False), step.teacher(images, training=False)
    quantizer = student.features[1]
    own = network(2)
    grid, interval = quantizer.grid, float(quantizer.interval.numpy())
    of_teacher = read(own, own.get_layer("logits"), images).astype(np.float64)
    target = interval * np.clip(np.round(of_teacher / interval), grid.qmin, grid.qmax)
    of_student = tf_keras.Model(student.model.inputs, student.tensor("pool"))(images, training=False).numpy()
    steps = of_student / interval
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)  # the student's lie on its grid
    assert not np.allclose(target, of_teacher)
    expected = WEIGHT * np.mean((target - of_student) ** 2)
    np.testing.assert_allclose(step._student_penalty(), expected, rtol=1e-5)


def test_only_the_student_moves_and_only_where_a_phase_distills(made, images):
    networks, distiller = made(label_weight=0.0, distillation_weight=1e-30, weight_decay=0.0)
    kernels = [networks.student.weights[name].kernel for name in ("conv", "logits")]
    for index, phase in enumerate(PHASES.values()):
        step = distiller(index)
        assert (step._student_penalty is not None) == phase.distills
        if phase.name == "tutoring":
            before, of_teacher = [kernel.numpy() for kernel in kernels], values(networks.teacher)
            step.train_on_batch(images, np.array([0, 2, 1, 2]))
            assert all(map(np.array_equal, of_teacher, values(networks.teacher)))
            moved = [not np.array_equal(kernel, old) for kernel, old in zip(kernels, before, strict=True)]
            assert moved == [True, False]  # features know nothing of the layer that reads them


@pytest.mark.parametrize(
    "training",
    [
        {"gradient_accumulation_steps": 2},
        {"mixed_precision": "bfloat16"},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_step_has_the_loss(made, images, training):
    """A loss that is 1,000 times as large moves the first kernel by more."""
    ways = []
    for weight in (0.0, 1000.0):
        networks, distiller = made(feature_distillation_weight=weight, **training)
        kernel = networks.student.weights["conv"].kernel
        before = kernel.numpy()
        distiller(list(PHASES).index("co_studying")).train_on_batch(images, np.array([0, 2, 1, 2]))
        ways.append(np.abs(kernel.numpy() - before).max())
    assert ways[1] > 10 * ways[0]


def test_features_are_those_of_the_last_call(network, images):
    model = network(1)
    features = Features(model.get_layer("logits"))
    pool = tf_keras.Model(model.inputs, model.get_layer("pool").output)
    for batch in (images, images[:2]):
        model(batch)
        np.testing.assert_array_equal(features.last(), pool(batch))


def test_implementation_of_the_quantizer_does_not_matter(network, images):
    """The definition's quantizers keep the same features as the fused ones."""
    found = []
    for fused in (True, False):
        student = quantize_student(network(1), QUANTIZATION, QuantizerImplementation(fused, False))
        calibrate(student, [images], "minmax")
        student.copy_weights_from_plain()
        features = Features(student.features[0])
        student.model(tf.constant(images), training=False)
        found.append(features.last().numpy())
    np.testing.assert_allclose(*found, atol=1e-6)
