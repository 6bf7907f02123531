"""Reads a user's model into a flat one, in float32, from its input to logits.

Student and teacher are read alike. Nested models are opened, TensorFlow arithmetic in the graph becomes layers where
these exist, and what turns logits into probabilities is left out. Layers keep their weights, and their names unless
files cannot have them.
"""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import require
from qkd_tf.models.activations import activation_name, bare, word
from qkd_tf.models.copier import Call, Copier, calls, maker
from qkd_tf.models.normalization import is_nothing
from qkd_tf.models.operations import as_layer

PROBABILITIES = ("softmax", "log_softmax", "sigmoid")  # or their logarithms


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    below = logits - logits.max(-1, keepdims=True)
    return below - np.log(np.exp(below).sum(-1, keepdims=True))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _difference(logits: np.ndarray) -> np.ndarray:
    return logits[:, 1:] - logits[:, :1]


# How a model ends -> how it computes its output from the logits [N, K] that we read it as having.
HEADS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "logits": lambda logits: logits,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "sigmoid": _sigmoid,
    "one logit": _difference,
    "one sigmoid": lambda logits: _sigmoid(_difference(logits)),
}
HEAD_NOTES: Mapping[str, str] = {
    "softmax": "the softmax at the end is left out: training and file work on the logits before it",
    "log_softmax": "the log_softmax at the end is left out: training and file work on the logits before it",
    "sigmoid": "the sigmoids at the end are left out; training uses the softmax of their logits, one class per picture",
    "one logit": "its one logit z becomes the logits 0 and z of two classes",
    "one sigmoid": "the sigmoid at the end is left out; its one logit z becomes the logits 0 and z of two classes",
}


class Reading(Copier):
    """Reads a model, which is left unchanged.

    Args:
      model: functional or Sequential, with one input and one output.
      input_shape: (H, W, C) or (T, C).
      num_classes: classes of the data; a model may have one output for two classes.

    Raises:
      ExperimentError: a layer cannot be copied, or the output is not one number per class.

    Attributes:
      model: the flat model, from what the user's model reads to logits [N, K].
      head: row of HEADS.
      squashed_by: of logits, the layer after the last kernel that is not linear; "" if there is none.
    """

    rewrites: Mapping[type, Callable] = {}
    fused: tuple[str, ...] | None = None  # activation functions that stay in the layer that applies them; None: all

    def __init__(self, model: tf_keras.Model, input_shape: tuple[int, int, int], num_classes: int | None = None):
        super().__init__()
        self.squashed_by = ""
        pixels = tf_keras.Input(self.shape_read(input_shape), name="pixels")
        self._names.add("pixels")
        (output,) = self.copy(model, [pixels])
        self.head, output = self._logits(model, output, num_classes)
        self.model = self.finished(pixels, output, model.name)
        self.note_names()
        if fixed := [n.layer for n in calls(model) if _is_fixed(self._copies.get(id(n.layer)), n.layer)]:
            self.notes.append(
                f"note: {model.name}: {len(fixed)} BatchNormalization layers are called with training=False; "
                "they keep their statistics, gamma and beta"
            )

    def shape_read(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the flat model reads, for examples of a shape."""
        return input_shape

    def call(self, call: Call):
        layer = call.layer
        if (rewrite := self.rewrites.get(type(layer))) is not None:
            return rewrite(self, call)
        if (operation := as_layer(call.node)) is not None:
            return self.operation(call, operation)
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
            function = activation_name(layer)
            if function in PROBABILITIES or self.fused is not None and function not in self.fused:
                x = self.same(call, activation="linear")
                return self.activation(function, self.free_name(f"{call.name}_{word(function)}"), [x])
            if self.fused is not None:
                return self.same(call, activation=bare(function))
        return self.same(call)

    def operation(self, call: Call, layer: layers.Layer):
        """A layer that does what TensorFlow's operation does."""
        if isinstance(layer, layers.Activation):  # not every function can be written into a configuration
            return self.activation(activation_name(layer), call.name, call.inputs)
        named = type(layer).from_config({**layer.get_config(), "name": call.name})
        return self.add(named, call.inputs)

    def activation(self, function: str, name: str, inputs: list):
        """An activation function as a layer of its own."""
        return self.add(layers.Activation(bare(function), name=name), inputs)

    def _logits(self, model: tf_keras.Model, output, num_classes: int | None):
        """(Row of HEADS, tensor of logits [N, K]) for the graph's output."""
        name, shape = model.name, tuple(model.outputs[0].shape)
        moved, last = [], maker(output)
        while _moves_one_pixel(last) or _hands_on(last):
            moved = [last, *moved] if _moves_one_pixel(last) else moved
            last = maker(last.input)
        head, made_by = "logits", {id(tensor): original for original, tensor in self.made}
        told = made_by.get(id(last.output), last.name)
        if _makes_probabilities(last):
            head, output = activation_name(last), last.input
            for layer in moved:
                copy = type(layer).from_config({**layer.get_config(), "name": self.free_name(layer.name)})
                output = self.add(copy, [output])
        if len(output.shape) > 2 and set(output.shape[1:-1]) == {1}:
            output = self.add(layers.Flatten(name=self.free_name("logits_flat")), [output])
        require(
            len(output.shape) == 2,
            f"{name} has an output of shape {shape}; a classifier has (None, classes): "
            "end it in GlobalAveragePooling2D or Flatten, then Dense",
        )
        self.squashed_by = _squashing(output, made_by) if head == "logits" else ""
        if output.shape[-1] == 1 and num_classes == 2:
            head = f"one {'logit' if head == 'logits' else head}"
            output = self._two_logits(output)
        require(
            head in HEADS,
            f"layer {told} is a {activation_name(last)} of one number, which is always the same; use a sigmoid",
        )
        if head in HEAD_NOTES:
            self.notes.append(f"layer {told}: {HEAD_NOTES[head]}")
        return head, output

    def _two_logits(self, output):
        """The logits 0 and z for one logit z; a Dense layer that makes z gets a unit with zero weights."""
        last = maker(output)
        if type(last) is layers.Dense and activation_name(last) == "linear":
            weights = [np.concatenate([np.zeros_like(part), part], -1) for part in self._weights[last]]
            return self.add(type(last).from_config({**last.get_config(), "units": 2}), [last.input], weights)
        dense = layers.Dense(2, use_bias=False, name=self.free_name("two_logits"))
        return self.add(dense, [output], [np.array([[0.0, 1.0]], np.float32)])


def _squashing(output, made_by: Mapping[int, str]) -> str:
    """The user's name of the last layer before an output that is not linear, up to the last kernels; "" for none."""
    layer = maker(output)
    if activation_name(layer) != "linear":
        return made_by.get(id(layer.output), layer.name)
    if layer.weights or isinstance(layer, layers.InputLayer):
        return ""
    return next(filter(None, (_squashing(tensor, made_by) for tensor in tf.nest.flatten(layer.input))), "")


def _moves_one_pixel(layer) -> bool:
    return isinstance(layer, layers.Flatten | layers.Reshape) and set(layer.input_shape[1:-1]) <= {1}


def _hands_on(layer) -> bool:
    return is_nothing(layer) or isinstance(layer, layers.Activation) and activation_name(layer) == "linear"


def _makes_probabilities(layer) -> bool:
    kind = isinstance(layer, layers.Activation | layers.Softmax)
    axis = getattr(layer, "axis", -1)
    return kind and activation_name(layer) in PROBABILITIES and axis in (-1, len(layer.output_shape) - 1)


def _is_fixed(copy, layer) -> bool:
    return copy is not None and isinstance(layer, layers.BatchNormalization) and layer.trainable and not copy.trainable
