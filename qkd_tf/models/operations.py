"""TensorFlow operations in a layer graph, such as `x / 255` or `tf.nn.relu(x)`, as Keras layers where these exist."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tf_keras import layers

from qkd_tf.models.activations import SLOPE_OF_TENSORFLOW
from qkd_tf.models.copier import arguments


def as_layer(node) -> layers.Layer | None:
    """A layer, not yet named, that does what a call of a TFOpLambda layer does; None if there is none.

    Args:
      node: any call.
    """
    if type(node.layer).__name__ != "TFOpLambda":
        return None
    row = ROWS.get(node.layer.get_config().get("function"))
    return row and row(node)


def _affine(node) -> layers.Layer | None:
    """A Rescaling, if the operation is scale * x + offset with one value of each, or one per channel."""
    if len(node.keras_inputs) != 1:
        return None
    (x,) = node.keras_inputs
    shape = [1, *(side or 2 for side in x.shape[1:])]
    at = []
    for value in (0.0, 1.0, 2.0):
        positional, named = arguments(node, [tf.fill(shape, tf.cast(value, x.dtype))])
        at.append(np.asarray(tf.cast(node.layer(*positional, **named), tf.float64)))
    offset, scale = at[0], at[1] - at[0]
    if not (scale.shape == tuple(shape) and np.all(np.isfinite(at)) and np.allclose(at[2], offset + 2 * scale)):
        return None
    pair = [v.reshape(-1, shape[-1]) for v in (scale, offset)]
    if any(np.any(v != v[0]) for v in pair):
        return None
    return layers.Rescaling(*(float(v[0][0]) if np.all(v[0] == v[0][0]) else v[0].tolist() for v in pair))


def _of_two(kind: type) -> Callable:
    """A layer for two tensors of the same shape; with a constant, a Rescaling."""

    def make(node) -> layers.Layer | None:
        if len(node.keras_inputs) != 2:
            return _affine(node)
        same = node.keras_inputs[0].shape[1:] == node.keras_inputs[1].shape[1:]
        return kind() if same or kind is layers.Multiply else None

    return make


def _activation(name: str) -> Callable:
    def make(node) -> layers.Layer | None:
        axis = node.call_kwargs.get("axis", node.call_args[1] if len(node.call_args) > 1 else None)
        last = axis in (None, -1, len(node.keras_inputs[0].shape) - 1) or name != "softmax"
        return layers.Activation(tf.nn.relu6 if name == "relu6" else name) if last else None

    return make


def _leaky_relu(node) -> layers.Layer | None:
    alpha = node.call_kwargs.get("alpha", node.call_args[1] if len(node.call_args) > 1 else SLOPE_OF_TENSORFLOW)
    return layers.LeakyReLU(float(alpha)) if np.isscalar(alpha) else None


def _cast(node) -> layers.Layer | None:
    to = tf.as_dtype(node.call_kwargs.get("dtype", node.call_args[1] if len(node.call_args) > 1 else tf.float32))
    return layers.Activation("linear") if to.is_floating else None


# TensorFlow's one name for an operation, whatever a user wrote: tf.divide(x, y) and x / y are math.truediv.
ROWS: Mapping[str, Callable] = {
    **dict.fromkeys(("math.truediv", "math.subtract", "math.negative"), _affine),
    **dict.fromkeys(
        ("nn.bias_add", "compat.v1.math.scalar_mul"), _affine
    ),  # of tf_keras.applications' preprocess_input
    **dict.fromkeys(("math.add", "__operators__.add"), _of_two(layers.Add)),
    "math.multiply": _of_two(layers.Multiply),
    "nn.relu": _activation("relu"),
    "nn.relu6": _activation("relu6"),
    "nn.softmax": _activation("softmax"),
    "math.sigmoid": _activation("sigmoid"),
    "nn.silu": _activation("swish"),
    "nn.leaky_relu": _leaky_relu,
    "identity": lambda node: layers.Activation("linear"),
    "cast": _cast,
}
