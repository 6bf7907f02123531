"""Which activation function a layer applies: told by what the function is, not by what it is called."""

from collections.abc import Callable, Mapping

import tensorflow as tf
import tf_keras
from tf_keras import activations, layers

_OF_KERAS = ("linear", "relu", "sigmoid", "softmax", "swish", "tanh", "elu", "selu", "gelu", "hard_sigmoid", "softplus")
_NAMES: Mapping[Callable, str] = {
    **{getattr(activations, name): name for name in _OF_KERAS},
    tf.nn.relu: "relu",
    tf.nn.relu6: "relu6",
    tf.nn.sigmoid: "sigmoid",
    tf.nn.softmax: "softmax",
    tf.nn.silu: "swish",
    tf.nn.tanh: "tanh",
    tf.identity: "linear",
}


def activation_name(layer: tf_keras.layers.Layer) -> str:
    """Name of the activation function that a layer applies, "linear" where there is none.

    A function that is neither Keras' nor TensorFlow's is called "function NAME": a user's `relu` need not be one.
    """
    if isinstance(layer, layers.ReLU):
        if layer.negative_slope or layer.threshold:
            return f"relu(negative_slope={float(layer.negative_slope):g}, threshold={float(layer.threshold):g})"
        if layer.max_value is None:
            return "relu"
        return "relu6" if float(layer.max_value) == 6 else f"relu(max_value={float(layer.max_value)})"
    if isinstance(layer, layers.Softmax):
        return "softmax"
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear"
    if isinstance(function, layers.Layer):
        known = isinstance(function, layers.ReLU | layers.Softmax | layers.Activation)
        return activation_name(function) if known else f"layer {type(function).__name__}"
    try:
        return _NAMES[function]
    except (KeyError, TypeError):  # a partial of a list cannot be looked up
        return f"function {getattr(function, '__name__', type(function).__name__)}"
