import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qkd_tf.distillation.losses import cross_entropy, distillation, feature_distillation

LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=32))
SHIFTS = arrays(np.float32, (3, 1), elements=st.floats(-20, 20, width=32))
LN2, LN3 = np.log(2.0), np.log(3.0)


def constant(values):
    return tf.constant(np.asarray(values), tf.float32)


def gradient(loss, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits)
    return tape.gradient(value, logits)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "logits, labels, expected",
    [
        ([[0.0, 0.0]], [1], LN2),
        ([[0.0, 0.0], [LN3, 0.0]], [0, 1], 1.5 * LN2),  # mean of -ln(1/2) and -ln(1/4)
        ([[LN3, 0.0]], [0], 2 * LN2 - LN3),  # -ln(3/4)
        ([[0.0, 0.0, 0.0]], [2], LN3),
    ],
)
def test_cross_entropy_has_the_value_worked_out_by_hand(logits, labels, expected):
    assert float(cross_entropy(tf.constant(labels), constant(logits))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "target, logits, temperature, expected",
    [
        # p = (3/4, 1/4), q = (1/2, 1/2)
        ([[LN3, 0.0]], [[0.0, 0.0]], 1.0, 0.75 * np.log(1.5) + 0.25 * np.log(0.5)),
        ([[2 * LN3, 0.0]], [[0.0, 0.0]], 2.0, 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))),
        # the other direction is another number
        ([[0.0, 0.0]], [[2 * LN3, 0.0]], 2.0, 4 * (0.5 * np.log(2 / 3) + 0.5 * np.log(2.0))),
        # mean over the batch: one pair that differs, one that does not
        ([[2 * LN3, 0.0], [1.0, 5.0]], [[0.0, 0.0], [1.0, 5.0]], 2.0, 2 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))),
    ],
)
def test_distillation_is_t_squared_times_kl_of_target_to_prediction(target, logits, temperature, expected):
    assert float(distillation(constant(target), constant(logits), temperature)) == pytest.approx(expected, rel=1e-5)


@given(logits=LOGITS, temperature=st.sampled_from([0.5, 1.0, 2.0, 8.0]))
def test_distillation_is_zero_for_equal_logits(logits, temperature):
    assert float(distillation(constant(logits), constant(logits), temperature)) == 0.0


@given(target=LOGITS, logits=LOGITS)
def test_distillation_is_never_negative(target, logits):
    assert float(distillation(constant(target), constant(logits), 2.0)) >= -1e-5


@given(target=LOGITS, logits=LOGITS, target_shift=SHIFTS, shift=SHIFTS)
def test_losses_do_not_see_a_constant_added_to_all_logits(target, logits, target_shift, shift):
    labels = tf.constant([0, 3, 1])
    moved = constant(logits + shift)
    np.testing.assert_allclose(cross_entropy(labels, moved), cross_entropy(labels, constant(logits)), atol=2e-5)
    np.testing.assert_allclose(
        distillation(constant(target + target_shift), moved, 2.0),
        distillation(constant(target), constant(logits), 2.0),
        atol=1e-4,
    )


def test_no_gradient_flows_into_the_target():
    logits = constant([[0.0, 1.0]])
    assert gradient(lambda target: distillation(target, logits, 2.0), constant([[1.0, 0.0]])) is None
    # Through a network that is target and prediction at once, only the prediction's part arrives.
    z = constant([[1.0, -1.0]])
    np.testing.assert_allclose(
        gradient(lambda z: distillation(3.0 * z, z, 2.0), z).numpy()[0, 0], -2 * (0.952574 - 0.731059), rtol=1e-4
    )


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0])
def test_gradient_is_t_times_the_difference_of_the_softened_distributions(temperature):
    rng = np.random.default_rng(0)
    target, logits = rng.normal(size=(2, 6, 4)).astype(np.float32)
    expected = temperature * (softmax(logits / temperature) - softmax(target / temperature)) / 6
    got = gradient(lambda z: distillation(constant(target), z, temperature), constant(logits))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_cross_entropy_gradient_is_softmax_minus_one_hot():
    logits = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    got = gradient(lambda z: cross_entropy(tf.constant([2, 0, 3]), z), constant(logits))
    np.testing.assert_allclose(got, (softmax(logits) - np.eye(4)[[2, 0, 3]]) / 3, atol=1e-6)


def test_gradient_has_about_the_same_size_at_every_temperature():
    target, logits = np.random.default_rng(0).normal(size=(2, 32, 10)).astype(np.float32)
    sizes = [
        np.linalg.norm(gradient(lambda z, t=t: distillation(constant(target), z, t), constant(logits)))
        for t in (4.0, 8.0, 16.0, 32.0)
    ]
    assert max(sizes) / min(sizes) < 1.2


LABELS = np.array([2, 0, 3])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("class_weights", [None, [1.0, 0.0, 0.5, 4.0]])
def test_smoothed_and_weighted_cross_entropy_and_its_gradient_are_those_of_numpy(smoothing, class_weights):
    logits = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    target = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    factor = np.ones(3) if class_weights is None else np.array(class_weights)[LABELS]

    def loss(z):
        return cross_entropy(tf.constant(LABELS), z, smoothing, class_weights)

    expected = np.mean(factor * -np.sum(target * np.log(softmax(logits)), axis=-1))
    assert float(loss(constant(logits))) == pytest.approx(expected, rel=1e-5)
    expected = factor[:, np.newaxis] * (softmax(logits) - target) / 3
    np.testing.assert_allclose(gradient(loss, constant(logits)), expected, atol=1e-6)


def test_smoothed_cross_entropy_of_one_unit_is_keras_binary_one():
    """One logit z for two classes trains as the logits 0 and z."""
    z, labels = np.array([[-2.0], [0.5], [3.0]], np.float32), np.array([1, 0, 1])
    keras = tf_keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2)
    pair = constant(np.concatenate([np.zeros_like(z), z], axis=-1))
    expected = float(keras(labels[:, np.newaxis].astype(np.float32), z))
    assert float(cross_entropy(tf.constant(labels), pair, smoothing=0.2)) == pytest.approx(expected, rel=1e-5)


def test_feature_distillation_is_a_mean_square_and_moves_only_the_student():
    target, features = constant([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), constant([[1.0, 0.0, 3.0], [2.0, 0.0, -1.0]])
    assert float(feature_distillation(target, features)) == pytest.approx((4 + 4 + 1) / 6)
    moved = gradient(lambda f: feature_distillation(target, f), features)
    np.testing.assert_allclose(moved, 2 / 6 * (features - target), rtol=1e-6)
    assert gradient(lambda t: feature_distillation(t, features), target) is None


def test_features_in_half_precision_are_compared_in_float32():
    target, features = constant([[1024.0]]), tf.constant([[1023.0]], tf.bfloat16)  # which is 1024 in eight bits
    assert float(feature_distillation(target + 0.5, features)) == 0.25
