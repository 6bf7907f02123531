"""Activation functions of Keras 3 by what they compute, because some names mean another function in tf_keras."""

from collections.abc import Callable, Mapping

import tensorflow as tf
from tf_keras import layers
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

# Name in Keras 3 -> what a layer of tf_keras takes for the same function.
FUSED: Mapping[str, str | Callable] = {
    **{name: name for name in ("linear", "relu", "sigmoid", "softmax", "tanh", "elu", "selu", "gelu")},
    **{name: name for name in ("softplus", "softsign", "exponential", "mish")},
    "relu6": tf.nn.relu6,
    "log_softmax": tf.nn.log_softmax,
    "silu": "swish",
    "swish": "swish",
}


def operation(function: Callable, name: str) -> TFOpLambda:
    """A TensorFlow function as the layer into which tf_keras turns it in a graph."""
    return TFOpLambda(function, name=name)


def hard_sigmoid(x, name: str):
    """relu6(x + 3) / 6, as tf_keras.applications writes it; tf_keras' own hard_sigmoid is clip(0.2 x + 0.5)."""
    shifted = operation(tf.math.add, f"{name}_shift")(x, 3.0)
    return operation(tf.math.multiply, name)(layers.ReLU(6.0, name=f"{name}_relu6")(shifted), 1.0 / 6.0)


def hard_silu(x, name: str):
    """x * hard_sigmoid(x), also called hard_swish."""
    return layers.Multiply(name=name)([x, hard_sigmoid(x, f"{name}_sigmoid")])


def leaky_relu(x, name: str):
    """The function's slope is 0.2; that of the layer is 0.3."""
    return layers.LeakyReLU(alpha=0.2, name=name)(x)


# Name in Keras 3 -> layers of tf_keras that compute it, from a tensor and the name of the last one.
REBUILT: Mapping[str, Callable] = {
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "leaky_relu": leaky_relu,
}
