"""Activation functions by what they compute, in both libraries; names that mean another function are found out."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from qkd_tf.models.keras3.activations import FUSED, REBUILT

AT = np.array([[-4.0, -3.0, -2.5, -1.0, -0.1, 0.0, 0.1, 1.0, 2.5, 3.0, 4.0, 7.0]], np.float32)


def rebuilt(name):
    x = tf_keras.Input(AT.shape[1:])
    return tf_keras.Model(x, REBUILT[name](x, "act"))(AT).numpy()


@pytest.mark.parametrize("name", [*FUSED, *REBUILT])
def test_the_function_is_that_of_keras_3(keras, name):
    expected = np.asarray(keras.activations.get(name)(AT))
    got = tf_keras.layers.Activation(FUSED[name])(AT).numpy() if name in FUSED else rebuilt(name)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_hard_sigmoid_is_relu6_of_x_plus_3_sixths_and_not_that_of_tf_keras():
    np.testing.assert_allclose(
        rebuilt("hard_sigmoid")[0, [0, 1, 3, 5, 7, 9, 10]], [0, 0, 1 / 3, 0.5, 2 / 3, 1, 1], 1e-6
    )
    assert np.max(np.abs(tf_keras.activations.hard_sigmoid(tf.constant(AT)) - rebuilt("hard_sigmoid"))) > 0.03


def test_hard_silu_and_leaky_relu_have_these_values():
    np.testing.assert_allclose(rebuilt("hard_silu")[0, [0, 3, 7, 10]], [0, -1 / 3, 2 / 3, 4], 1e-6)
    np.testing.assert_allclose(rebuilt("leaky_relu")[0, [0, 3, 7]], [-0.8, -0.2, 1], 1e-6)


def test_names_that_both_have_and_that_differ_are_no_fused_ones(keras):
    """Whatever tf_keras has by a name of FUSED is that function; the others are known."""
    differ = []
    for name in keras.src.activations.ALL_OBJECTS_DICT:
        ours = getattr(tf_keras.activations, name, None)
        if ours is not None and name not in ("softmax", "log_softmax", "glu", "sparsemax"):
            if not np.allclose(ours(tf.constant(AT)), keras.activations.get(name)(AT), atol=1e-5):
                differ.append(name)
    assert differ == ["hard_sigmoid"] and not set(differ) & FUSED.keys()
