"""TensorFlow operations in a layer graph, such as `x / 255` or `tf.nn.relu(x)`, as Keras layers where these exist."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tf_keras import layers

from qkd_tf.models.activations import SLOPE_OF_TENSORFLOW, activation_name, bare, is_relu
from qkd_tf.models.copier import arguments, maker


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
        axis = _argument(node, "axis", 1)
        last = axis in (None, -1, len(node.keras_inputs[0].shape) - 1) or "softmax" not in name
        return layers.Activation(bare(name)) if last else None

    return make


def _leaky_relu(node) -> layers.Layer | None:
    alpha = _argument(node, "alpha", 1, SLOPE_OF_TENSORFLOW)
    return layers.LeakyReLU(float(alpha)) if np.isscalar(alpha) else None


def _argument(node, name: str, place: int, default=None):
    """An argument of a call, by its name or its place behind the first one, which is 0."""
    return node.call_kwargs.get(name, node.call_args[place] if len(node.call_args) > place else default)


def _of_one(make: Callable) -> Callable:
    """A row for calls that read one tensor of the graph, of known rank: their other arguments may be tensors, too."""

    def made(node) -> layers.Layer | None:
        is_known = all(tensor.shape.rank is not None for tensor in (*node.keras_inputs, node.outputs))
        return make(node) if len(node.keras_inputs) == 1 and is_known else None

    return made


def _pooling(kind: type) -> Callable:
    """A pooling over the whole map, if that is what is reduced."""

    def make(node) -> layers.Layer | None:
        axes, rank = _argument(node, "axis", 1), len(node.keras_inputs[0].shape)
        if rank != MAP_RANK or axes is None or sorted(int(axis) % rank for axis in np.atleast_1d(axes)) != [1, 2]:
            return None
        return kind(keepdims=bool(_argument(node, "keepdims", 2, False)))

    return make


def _reshape(node) -> layers.Layer | None:
    """A Reshape of each example, between maps and vectors."""
    given, made = (tuple(tensor.shape[1:]) for tensor in (node.keras_inputs[0], node.outputs))
    alike = None not in given + made and np.prod(given) == np.prod(made)
    return layers.Reshape(made) if alike and {len(given), len(made)} <= {1, MAP_RANK - 1} else None


def _padding(node) -> layers.Layer | None:
    """A padding of maps by zeros."""
    sides = np.asarray(_argument(node, "paddings", 1)).tolist()
    mode, value = _argument(node, "mode", 2, "CONSTANT"), _argument(node, "constant_values", 4, 0)
    if mode.upper() != "CONSTANT" or value != 0 or len(sides) != MAP_RANK or sides[0] != [0, 0] or sides[-1] != [0, 0]:
        return None
    return layers.ZeroPadding2D(sides[1:-1])


def _clipped(node) -> layers.Layer | None:
    """A ReLU, with an end or without."""
    low, high = _argument(node, "clip_value_min", 1), _argument(node, "clip_value_max", 2)
    return layers.ReLU(float(high)) if np.ndim(low) == np.ndim(high) == 0 and low == 0 < high else None


def _constants(node) -> list:
    return [value for value in (*node.call_args, *node.call_kwargs.values()) if isinstance(value, CONSTANTS)]


def _maximum(node) -> layers.Layer | None:
    """A ReLU, if the other operand is 0."""
    constants = _constants(node)
    is_zero = len(constants) == 1 and np.ndim(constants[0]) == 0 and constants[0] == 0
    return layers.ReLU() if is_zero and len(node.keras_inputs) == 1 else None


def _minimum(node) -> layers.Layer | None:
    """A ReLU with an end, if the operation gives one to a ReLU."""
    constants = _constants(node)
    if len(node.keras_inputs) != 1 or len(constants) != 1 or np.ndim(constants[0]) != 0 or not constants[0] > 0:
        return None
    return layers.ReLU(float(constants[0])) if is_relu(activation_name(maker(node.keras_inputs[0]))) else None


def _concatenate(node) -> layers.Layer | None:
    values, axis = _argument(node, "values", 0), _argument(node, "axis", 1)
    rank = len(node.keras_inputs[0].shape)
    axis = -1 if int(axis) == rank - 1 else int(axis)
    fits = len(node.keras_inputs) == len(values) and (axis == -1 or rank == MAP_RANK)  # a series is read as a map
    return layers.Concatenate(axis) if fits else None


def _cast(node) -> layers.Layer | None:
    to = tf.as_dtype(_argument(node, "dtype", 1, tf.float32))
    return layers.Activation("linear") if to.is_floating else None


CONSTANTS = (int, float, np.ndarray, np.generic, tf.Tensor)
MAP_RANK = 4  # of maps [N, H, W, C]
# TensorFlow's one name for an operation, whatever a user wrote: tf.divide(x, y) and x / y are math.truediv.
ROWS: Mapping[str, Callable] = {
    **dict.fromkeys(("math.truediv", "math.negative"), _affine),
    **dict.fromkeys(
        ("nn.bias_add", "compat.v1.math.scalar_mul"), _affine
    ),  # of tf_keras.applications' preprocess_input
    **dict.fromkeys(("math.add", "__operators__.add"), _of_two(layers.Add)),
    "math.multiply": _of_two(layers.Multiply),
    "math.subtract": _of_two(layers.Subtract),
    "math.reduce_mean": _of_one(_pooling(layers.GlobalAveragePooling2D)),
    "math.reduce_max": _of_one(_pooling(layers.GlobalMaxPooling2D)),
    **dict.fromkeys(("reshape", "compat.v1.squeeze"), _of_one(_reshape)),
    "compat.v1.pad": _of_one(_padding),
    "clip_by_value": _of_one(_clipped),
    "math.maximum": _maximum,
    "math.minimum": _of_one(_minimum),
    "concat": _concatenate,
    "nn.relu": _activation("relu"),
    "nn.relu6": _activation("relu6"),
    "nn.softmax": _activation("softmax"),
    "nn.log_softmax": _activation("log_softmax"),
    "math.sigmoid": _activation("sigmoid"),
    "nn.silu": _activation("swish"),
    "nn.leaky_relu": _leaky_relu,
    "identity": lambda node: layers.Activation("linear"),
    "cast": _cast,
}
