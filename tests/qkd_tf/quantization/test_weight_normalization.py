"""Normalized weights: the definition in NumPy, its laws, and a student that is the file it was trained as."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tf_keras import layers

from qkd_tf.contract.grid import quantize, weight_grid
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.batch_norm import BatchNormShift
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.equalization import equalize_deviations
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.quantization.weight_normalization import is_normalizable, normalized

RNG = np.random.default_rng(3)
PICTURES = RNG.integers(0, 256, (64, 8, 8, 3)).astype(np.float32)


def test_golden_values_of_a_channel():
    """1, 2, 3, 6 have the mean 3 and the deviation sqrt(14 / 4); four weights make an output."""
    kernel = tf.constant([[1.0], [2.0], [3.0], [6.0]])
    expected = np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(3.5) / 2.0
    for by_channel in (False, True):
        found = normalized(kernel, 1, by_channel)
        np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-6)


@pytest.mark.parametrize("shape, num_channel_axes", [((3, 3, 4, 6), 1), ((3, 3, 5, 2), 2), ((7, 4), 1)])
@pytest.mark.parametrize("by_channel", [False, True], ids=["layer", "channel"])
def test_the_definition_in_numpy(shape, num_channel_axes, by_channel):
    kernel = RNG.normal(0.3, 2.0, shape)
    channels = kernel.reshape(-1, np.prod(shape[-num_channel_axes:]))
    axis = 0 if by_channel else None
    expected = (channels - channels.mean(axis)) / channels.std(axis) / np.sqrt(len(channels))
    found = normalized(tf.constant(kernel, tf.float32), num_channel_axes, by_channel)
    np.testing.assert_allclose(found, expected.reshape(shape), rtol=2e-5, atol=1e-6)


weights = hnp.arrays(np.float32, (5, 3), elements=st.floats(-4, 4, width=16))


@given(weights, st.booleans(), st.floats(0.25, 8.0, width=16), st.floats(-2.0, 2.0, width=16))
def test_scale_and_mean_do_not_count_and_twice_is_once(kernel, by_channel, factor, shift):
    found = normalized(tf.constant(kernel), 1, by_channel)
    spread = kernel.std(0 if by_channel else None)
    if np.all(spread > 0.01):
        other = normalized(tf.constant(factor * kernel + np.float32(shift)), 1, by_channel)
        np.testing.assert_allclose(other, found, atol=1e-3)
        np.testing.assert_allclose(normalized(found, 1, by_channel), found, atol=1e-5)
    assert np.all(np.isfinite(found))


def test_a_constant_channel_is_zero_and_gets_no_gradient():
    kernel = tf.Variable([[2.0, 1.0], [2.0, 3.0]])
    with tf.GradientTape() as tape:
        result = normalized(kernel, 1, True)
        loss = tf.reduce_sum(result * [[5.0, 1.0], [7.0, 2.0]])
    assert result[:, 0].numpy().tolist() == [0.0, 0.0]
    assert tape.gradient(loss, kernel)[:, 0].numpy().tolist() == [0.0, 0.0]


def test_gradients_pass_through_mean_and_deviation():
    """By differences; neither a mean nor a scale of the weights has a gradient."""
    kernel = RNG.normal(1.0, 0.5, (6, 2)).astype(np.float64)
    factors = RNG.normal(size=(6, 2))
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(normalized(variable, 1, True) * factors)
    gradient = tape.gradient(loss, variable).numpy()
    for place in np.ndindex(kernel.shape):
        ends = []
        for sign in (1, -1):
            moved = kernel.copy()
            moved[place] += sign * 1e-6
            ends.append(np.sum(normalized(tf.constant(moved), 1, True) * factors))
        np.testing.assert_allclose(gradient[place], (ends[0] - ends[1]) / 2e-6, atol=1e-6)
    np.testing.assert_allclose(gradient.sum(0), 0.0, atol=1e-10)
    np.testing.assert_allclose(np.sum(gradient * kernel, 0), 0.0, atol=1e-10)


@pytest.fixture
def network(chain, randomize):
    """A kernel before a BatchNormalization, a depthwise one too, one before a frozen one, and one before a ReLU."""
    return randomize(
        chain(
            layers.Rescaling(1 / 64, -2.0, name="normalization"),
            layers.Conv2D(4, 3, use_bias=False, name="first"),
            layers.BatchNormalization(name="first_bn"),
            layers.ReLU(),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
            layers.BatchNormalization(name="depthwise_bn"),
            layers.ReLU(),
            layers.Conv2D(6, 1, use_bias=False, name="frozen"),
            layers.BatchNormalization(trainable=False, name="frozen_bn"),
            layers.ReLU(),
            layers.Conv2D(6, 1, activation="relu", name="biased"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="logits"),
        )
    )


def test_what_is_normalized(network):
    student = quantize_student(network, QuantizationSpec(weight_bits=3, normalize_weights="channel"))
    changed = [name for name, w in student.weights.items() if not np.array_equal(w.values(), w.kernel)]
    assert changed == ["conv", "depthwise"]
    (note,) = student.notes_on_normalization("channel")
    assert note.startswith("note: --normalize_weights=channel applies to 2 of 6 kernels: ")
    assert student.notes_on_normalization("off") == []
    assert is_normalizable(student.plain.get_layer("conv"), weight_grid(7))
    assert not is_normalizable(student.plain.get_layer("conv"), weight_grid(8))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["layer", "channel"])
def test_a_student_begins_near_its_float_twin_but_for_means(network, by):
    """Weights without a mean are normalized already: the student is the one that does not normalize."""
    for name, channel_axes in (("conv", (0, 1, 2)), ("depthwise", (0, 1))):
        layer = network.get_layer(name)
        kernel, *bias = layer.get_weights()
        mean = kernel.mean(channel_axes if by == "channel" else None, keepdims=True)
        layer.set_weights([kernel - mean, *bias])
    before = network(PICTURES, training=False)
    spec = QuantizationSpec(weight_bits=7, activation_bits=8, normalize_weights=by)
    student = quantize_student(network, spec)
    equalize_deviations(student.plain, student.normalized)
    student.copy_weights_from_plain()
    np.testing.assert_allclose(student.plain(PICTURES, training=False), before, rtol=1e-4, atol=1e-4)
    for name, weight in student.weights.items():
        np.testing.assert_allclose(weight.values(), weight.kernel, atol=1e-6, err_msg=name)
    other = quantize_student(student.plain, dataclasses.replace(spec, normalize_weights="off"))
    for each in (student, other):
        calibrate(each, [PICTURES], "minmax")
        BatchNormShift(each.plain, each.model).estimate([PICTURES])
    found, expected = (each.model(PICTURES, training=False).numpy() for each in (student, other))
    assert np.mean(np.isclose(found, expected, atol=1e-3)) > 0.9  # but for ties that last bits decide
    np.testing.assert_allclose(found, expected, atol=0.1 * np.std(expected))


def test_the_float_copy_is_what_is_rounded(network):
    """So that BatchNormalization's statistics, and those who read the copy, fit."""
    student = quantize_student(network, QuantizationSpec(weight_bits=3, normalize_weights="layer"))
    calibrate(student, [PICTURES], "mse")
    before = {name: quantize(w.values().numpy(), w.params()) for name, w in student.weights.items()}
    student.copy_weights_to_plain()
    np.testing.assert_array_equal(
        student.plain.get_layer("conv").get_weights()[0], student.weights["conv"].values().numpy()
    )
    student.copy_weights_from_plain()
    for name, weight in student.weights.items():
        np.testing.assert_array_equal(quantize(weight.values().numpy(), weight.params()), before[name])
    assert isinstance(student.plain, tf_keras.Model)
