"""Students that no file can hold; that the limits are those of the file is shown in test_ratios.py of the exporter."""

import numpy as np
import pytest
from tf_keras import layers

from qkd_tf.contract.ratio_limits import LIMITS
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS, Arithmetic
from qkd_tf.experiment import ExperimentError, QuantizationSpec
from qkd_tf.quantization.integer_limits import RATIOS, require_within_limits
from qkd_tf.quantization.integer_steps import put_on_integer_steps
from qkd_tf.quantization.integer_student import IntegerStudent
from qkd_tf.quantization.scheme import quantize_student


@pytest.fixture(scope="module")
def student(chain):
    """A convolution between two others, whose BatchNormalization is set below."""
    body = [
        layers.Conv2D(2, 1, activation="relu", kernel_initializer="ones", name="first"),
        layers.Conv2D(2, 1, use_bias=False, kernel_initializer="ones", name="conv"),
        layers.BatchNormalization(epsilon=0.0, name="bn"),
        layers.Conv2D(2, 1, name="last"),
    ]
    return quantize_student(chain(*body, input_shape=(1, 1, 1)), QuantizationSpec())


def in_integers(student, gamma, beta, interval) -> IntegerStudent:
    """Steps of 1 in all other tensors and kernels: of products, `gamma`."""
    for tensor in (*student.outputs.values(), *student.weights.values()):
        tensor.interval.assign(1.0)
    student.outputs["bn"].interval.assign(interval)
    batch_norm = student.plain.get_layer("bn")
    batch_norm.gamma.assign(gamma)
    batch_norm.beta.assign(beta)
    student.copy_weights_from_plain()
    put_on_integer_steps(student)
    return IntegerStudent(student)


@pytest.mark.parametrize(
    "gamma, beta, interval, complaint",
    [
        ([1, 1], [0, 0], 1 / 255, ""),
        ([1, 1], [0, 0], 1 / 256, "layer bn: one step of its inputs is 256 of its own steps, and LiteRT's CONV_2D"),
        ([1, -300], [0, 0], 1, "layer bn: one step of its inputs is 300 of"),
        ([1, 1], [0, 1e30], 1e-20, "layer conv: the bias of channels [1] does"),
        ([1, 1e10], [0, 0], 1e-10, "layer bn: one step of its inputs is 1e+20 of"),
        ([1, 1], [0, 2.0**27], 1, ""),
        ([1, 1], [0, 2.0**31], 1, "layer conv: the bias of channels [1] does not fit int32 steps of input scale"),
        ([1, 1e-9], [0, 3.0], 1, ""),  # a constant, and a file holds it as one
        ([0, 0], [5.0, 3.0], 1e-9, ""),
    ],
)
def test_student_that_no_file_holds_is_refused_by_its_layer(student, gamma, beta, interval, complaint):
    made = in_integers(student, gamma, beta, interval)
    if not complaint:
        require_within_limits(made)
        made.predict(np.full((1, 1, 1, 1), 3, np.uint8), ARITHMETICS["tflm"])
        return
    with pytest.raises(ExperimentError) as caught:
        require_within_limits(made)
    assert str(caught.value).startswith(f"no file can hold the student: {complaint}")
    assert "train longer or at a lower rate" in str(caught.value) and "\n" not in str(caught.value)


def test_every_way_to_round_has_a_row():
    assert {*RATIOS} == {*Arithmetic.__dataclass_fields__} - {"int4"}
    assert {kind for kind, _ in RATIOS.values() if kind} <= {*LIMITS, "RESHAPE"}
