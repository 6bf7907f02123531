"""The operations that Keras 3 writes into a graph for `x + y` and `keras.ops`, as tf_keras layers."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tf_keras import layers

from qkd_tf.models.keras3.activations import hard_sigmoid, hard_silu, operation

# What is made of a call: from the operation's arguments, its name, and what it reads.
Make = Callable[[Mapping, str, list], object]


def _of_two(function: Callable, layer: type[layers.Layer] | None = None) -> Make:
    """A function of two tensors, or of one and a constant; `layer` does the same for two tensors of equal rank."""

    def make(config: Mapping, name: str, inputs: list):
        given = [float(value) if isinstance(value, int | float) else value for value in inputs]
        if layer and all(hasattr(value, "_keras_history") for value in given):
            if len({len(value.shape) for value in given}) == 1:
                return layer(name=name)(given)
        if not hasattr(given[0], "_keras_history"):
            given[0] = tf.constant(given[0], given[1].dtype)
        return operation(function, name)(*given)

    return make


def _function(function: Callable, **renamed: str) -> Make:
    """A function of the inputs and of the operation's arguments.

    Args:
      renamed: argument of `function` -> of the operation.
    """

    def make(config: Mapping, name: str, inputs: list):
        return operation(function, name)(*inputs, **{ours: config[theirs] for ours, theirs in renamed.items()})

    return make


def _layer(kind: type[layers.Layer], **renamed: str) -> Make:
    """A layer, as `_function`."""

    def make(config: Mapping, name: str, inputs: list):
        return kind(name=name, **{ours: config[theirs] for ours, theirs in renamed.items()})(*inputs)

    return make


def _scaled_sum(config: Mapping, name: str, inputs: list):
    """The only custom layer in keras.applications' InceptionResNetV2."""
    ((x, y),) = inputs
    return layers.Add(name=name)([x, operation(tf.math.multiply, f"{name}_scaled")(y, float(config["scale"]))])


def _pad(config: Mapping, name: str, inputs: list):
    """A padding; keras.ops.pad writes one number for all sides, and one pair for all axes, as such."""
    (x,) = inputs
    sides = np.broadcast_to(config["pad_width"], (len(x.shape), 2)).tolist()
    return operation(tf.compat.v1.pad, name)(x, sides, config["mode"].upper())


def _item(config: Mapping, name: str, inputs: list):
    tensor, key = inputs
    return tensor[tuple(key) if isinstance(key, list) else key]


_NUMPY: Mapping[str, Make] = {
    "Add": _of_two(tf.math.add, layers.Add),
    "Subtract": _of_two(tf.math.subtract, layers.Subtract),
    "Multiply": _of_two(tf.math.multiply, layers.Multiply),
    "Divide": _of_two(tf.math.truediv),
    "TrueDivide": _of_two(tf.math.truediv),
    "Maximum": _of_two(tf.math.maximum, layers.Maximum),
    "Minimum": _of_two(tf.math.minimum, layers.Minimum),
    "Power": _of_two(tf.math.pow),
    "Negative": _function(tf.math.negative),
    "Absolute": _function(tf.math.abs),
    "Abs": _function(tf.math.abs),
    "Square": _function(tf.math.square),
    "Sqrt": _function(tf.math.sqrt),
    "Exp": _function(tf.math.exp),
    "Log": _function(tf.math.log),
    "Tanh": _function(tf.math.tanh),
    "Clip": _function(tf.clip_by_value, clip_value_min="x_min", clip_value_max="x_max"),
    "Mean": _function(tf.math.reduce_mean, axis="axis", keepdims="keepdims"),
    "Sum": _function(tf.math.reduce_sum, axis="axis", keepdims="keepdims"),
    "Max": _function(tf.math.reduce_max, axis="axis", keepdims="keepdims"),
    "Min": _function(tf.math.reduce_min, axis="axis", keepdims="keepdims"),
    "Reshape": _function(tf.reshape, shape="newshape"),
    "Transpose": _function(tf.transpose, perm="axes"),
    "ExpandDims": _function(tf.expand_dims, axis="axis"),
    "Squeeze": _function(tf.compat.v1.squeeze, axis="axis"),
    "Pad": _pad,
    "Concatenate": _layer(layers.Concatenate, axis="axis"),
    "GetItem": _item,
}
_NN: Mapping[str, Make] = {
    "Sigmoid": _function(tf.math.sigmoid),
    "Relu": _function(tf.nn.relu),
    "Relu6": _function(tf.nn.relu6),
    "Silu": _function(tf.nn.silu),
    "Selu": _function(tf.nn.selu),
    "Softplus": _function(tf.math.softplus),
    "Softsign": _function(tf.nn.softsign),
    "Gelu": _function(tf.nn.gelu, approximate="approximate"),
    "Softmax": _function(tf.nn.softmax, axis="axis"),
    "LogSoftmax": _function(tf.nn.log_softmax, axis="axis"),
    "Elu": _layer(layers.ELU, alpha="alpha"),
    "LeakyRelu": _layer(layers.LeakyReLU, alpha="negative_slope"),
    "HardSigmoid": lambda config, name, inputs: hard_sigmoid(*inputs, name),
    "HardSilu": lambda config, name, inputs: hard_silu(*inputs, name),
}
# Where Keras 3 has them -> class -> what it is in tf_keras.
MODULES: Mapping[str, Mapping[str, Make]] = {
    "keras.src.ops.numpy": _NUMPY,
    "keras.src.ops.nn": _NN,
    "keras.src.ops.core": {"Cast": _function(tf.cast, dtype="dtype")},
    "keras.src.applications.inception_resnet_v2": {"CustomScaleLayer": _scaled_sum},
}


def module_of(class_name: str) -> str | None:
    """Module of an operation's class, None if there is none; an .h5 stores only the class."""
    return next((module for module, rows in MODULES.items() if class_name in rows), None)


# Their arguments that are not passed on -> the values under which they change nothing; None for any.
NEUTRAL: Mapping[str, tuple | None] = {"initial": (None,), "trainable": None}
