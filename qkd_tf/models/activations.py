"""Which activation function a layer applies, judged by the function itself, not by its name."""

import functools
from collections.abc import Callable, Mapping

import tensorflow as tf
import tf_keras
from tf_keras import activations, layers

SLOPE_OF_TENSORFLOW = 0.2  # of tf.nn.leaky_relu without an alpha
_BOUNDED, _SLOPED = "relu(max_value=", "leaky_relu(alpha="
_OF_KERAS = ("linear", "relu", "sigmoid", "softmax", "swish", "tanh", "elu", "selu", "gelu", "hard_sigmoid", "softplus")
_NAMES: Mapping[Callable, str] = {
    **{getattr(activations, name): name for name in _OF_KERAS},
    tf.nn.relu: "relu",
    tf.nn.relu6: "relu6",
    tf.nn.sigmoid: "sigmoid",
    tf.nn.softmax: "softmax",
    tf.nn.log_softmax: "log_softmax",
    tf.nn.silu: "swish",
    tf.nn.tanh: "tanh",
    tf.nn.leaky_relu: f"{_SLOPED}{SLOPE_OF_TENSORFLOW})",
    tf.identity: "linear",
}


def bare(function: str) -> Callable | str:
    """The activation function of that name in a form that Keras takes."""
    return {"relu6": tf.nn.relu6, "log_softmax": tf.nn.log_softmax}.get(function, function)


def upper_end(function: str) -> float | None:
    """The largest value of a ReLU of that name; None for any other function, and for a ReLU without an upper end."""
    if function == "relu6":
        return 6.0
    return float(function.removeprefix(_BOUNDED)[:-1]) if function.startswith(_BOUNDED) else None


def slope(function: str) -> float | None:
    """The slope below 0 of a leaky ReLU of that name; None for any other function."""
    return float(function.removeprefix(_SLOPED)[:-1]) if function.startswith(_SLOPED) else None


def word(function: str) -> str:
    """A function's name without its arguments, used to name a layer for it."""
    return function.partition("(")[0]


def is_relu(function: str) -> bool:
    """Whether it names a ReLU that is 0 below 0: plain, or with a largest value above 0."""
    return function == "relu" or (upper_end(function) or 0.0) > 0.0


def activation_name(layer: tf_keras.layers.Layer) -> str:
    """Name of the activation function that a layer applies; "linear" if it applies none.

    A function of neither Keras nor TensorFlow is called "function NAME": a user's `relu` need not be a ReLU.
    """
    if isinstance(layer, layers.ReLU):
        if layer.negative_slope and not layer.threshold and layer.max_value is None:
            return f"{_SLOPED}{float(layer.negative_slope)})"
        if layer.negative_slope or layer.threshold:
            end = "" if layer.max_value is None else f", max_value={float(layer.max_value):g}"
            return f"relu(negative_slope={float(layer.negative_slope):g}, threshold={float(layer.threshold):g}{end})"
        if layer.max_value is None:
            return "relu"
        return "relu6" if float(layer.max_value) == 6 else f"{_BOUNDED}{float(layer.max_value)})"
    if isinstance(layer, layers.LeakyReLU):
        return f"{_SLOPED}{float(layer.alpha)})"
    if isinstance(layer, layers.Softmax):
        return "softmax"
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear"
    if isinstance(function, layers.Layer):
        known = isinstance(function, layers.ReLU | layers.LeakyReLU | layers.Softmax | layers.Activation)
        return activation_name(function) if known else f"layer {type(function).__name__}"
    if isinstance(function, functools.partial) and function.func is tf.nn.leaky_relu:
        if not function.args and function.keywords.keys() == {"alpha"}:
            return f"{_SLOPED}{float(function.keywords['alpha'])})"
    try:
        return _NAMES[function]
    except (KeyError, TypeError):  # a partial of a list cannot be looked up
        return f"function {getattr(function, '__name__', type(function).__name__)}"
