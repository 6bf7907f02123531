"""The forward pass without TFMOT: every logit as the student that trains has it."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.forward import quantized_forward
from qkd_tf.quantization.roles import LAYERS, has_kernel
from qkd_tf.quantization.scheme import quantize_student

PICTURES = np.random.default_rng(7).integers(0, 256, (9, 9, 8, 3)).astype(np.uint8)


def kernels(x):
    """Clipping by grids and by ReLU6, a depthwise and a grouped kernel, what is another in training."""
    x = layers.Conv2D(6, 3, 2, "same", use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(9, 3, groups=3, padding="same", activation="relu6", name="grouped")(x)
    x = layers.Dropout(0.9)(layers.Flatten()(layers.MaxPooling2D(2, padding="same")(x)))
    return layers.Dense(5, name="logits")(x)


def joined(x):
    """A residual that kernels and an addition read, a swish, a gate, tensors side by side, both averages."""
    x = stem = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    x = layers.Conv2D(4, 3, padding="same", name="branch")(layers.ReLU()(x))
    x = layers.Concatenate()([layers.Add()([stem, x]), stem])
    x = layers.Conv2D(4, 1, name="point")(layers.ZeroPadding2D(1)(x))
    x = layers.Multiply()([x, layers.Activation("sigmoid")(x)])
    gate = layers.Conv2D(4, 1, name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Activation("sigmoid")(gate)])
    x = layers.Conv2D(6, 1, name="last")(layers.AveragePooling2D((3, 2), (2, 1))(x))
    return layers.GlobalAveragePooling2D()(x)


LOW = {"weight_bits": 3, "activation_bits": 4}
SPECS = {
    "low": QuantizationSpec(**LOW),
    "high": QuantizationSpec(weight_bits=8, activation_bits=8),
    "full range": QuantizationSpec(weight_bits=2, activation_bits=2, narrow_range=False),
    "requantized": QuantizationSpec(**LOW, bits_rule=("stem=w2a8", ".*=w2a2")),
    "the definition": QuantizationSpec(**LOW, ewgs_scale=0.001),
    "normalized": QuantizationSpec(**LOW, normalize_weights="channel"),
    "lsq": QuantizationSpec(**LOW, interval_gradient_scale="lsq"),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("body", [kernels, joined])
def test_logits_and_intervals_are_those_of_the_student_that_trains(randomize, body, spec):
    inputs = tf_keras.Input((9, 8, 3), name="pixels")
    model = randomize(tf_keras.Model(inputs, body(layers.Rescaling(1 / 64, -2.0, name="normalization")(inputs))))
    expected, found = quantize_student(model, spec), quantized_forward(model, spec)
    assert found.pixels == expected.pixels
    for student in (expected, found):
        calibrate(student, [PICTURES.astype(np.float32)], "mse")
    for tensors, others in ((expected.weights, found.weights), (expected.outputs, found.outputs)):
        assert {name: t.params() for name, t in tensors.items()} == {name: t.params() for name, t in others.items()}
        assert {name: t.interval.trainable for name, t in tensors.items()} == {
            name: t.interval.trainable for name, t in others.items()
        }
    for factor in (1.0, 0.5):  # intervals are variables
        for tensor in (*expected.outputs.values(), *found.outputs.values()):
            tensor.interval.assign(tensor.interval * factor)
        logits = expected.model.predict_on_batch(PICTURES)
        assert len(np.unique(logits)) > 10
        np.testing.assert_array_equal(found.logits(PICTURES), logits)
        np.testing.assert_array_equal(found.logits(PICTURES[:4]), logits[:4])


def test_layers_keep_their_own_kernels(make_residual_student):
    model = make_residual_student()
    found = quantized_forward(model, SPECS["low"])
    found.logits(PICTURES[:, :8])
    for layer in found.plain.layers:
        if has_kernel(layer):
            assert getattr(layer, LAYERS[type(layer)].kernel) is layer.weights[0] is found.weights[layer.name].kernel
    for ours, theirs in zip(found.plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
