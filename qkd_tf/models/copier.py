"""Layer graphs of tf_keras: walking them, calling them on numbers, copying them layer by layer."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers
from tf_keras.src.engine.functional import Functional

from qkd_tf.contract.kinds import REQUANTIZED
from qkd_tf.experiment import ExperimentError
from qkd_tf.models.grouped import without_xla

QUANTIZED = "quant_"  # names that quantization gives to layers of its own begin so, or end in REQUANTIZED
KERAS_NAME = re.compile(r"(functional|model|sequential)(_[0-9]+)?")  # of a model that nobody named
RESERVED = re.compile(rf"{QUANTIZED}|.*{REQUANTIZED}$")
NUM_NAMED = 5  # layers that a note names; the others are counted


def is_graph(model: object) -> bool:
    """Whether a layer is a model with a visible graph: functional or Sequential, without a call() of its own."""
    known = (Functional.call, tf_keras.Sequential.call)
    return isinstance(model, tf_keras.Model) and hasattr(model, "_nodes_by_depth") and type(model).call in known


def nodes(model: tf_keras.Model) -> list:
    """The layer calls that lead to a model's output, each after those that it reads."""
    found = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    return [node for node in found if not isinstance(node.layer, layers.InputLayer)]


def calls(model: tf_keras.Model) -> list:
    """`nodes`, with inner graphs replaced by their own calls."""
    found = []
    for node in nodes(model):
        found += calls(node.layer) if is_graph(node.layer) else [node]
    return found


def called_in_training(model: tf_keras.Model) -> list:
    """The layers and inner graphs of a model that are called with training=True."""
    found = []
    for node in nodes(model):
        inner = called_in_training(node.layer) if is_graph(node.layer) else []
        found += [node.layer, *inner] if training_argument(node) is True else inner
    return found


def readers(model: tf_keras.Model) -> Callable[[layers.Layer], list]:
    """A function from a layer of a flat model to the layers that read its output, each once per read."""
    found: dict[int, list] = {}
    for node in nodes(model):
        for tensor in node.keras_inputs:
            found.setdefault(id(maker(tensor)), []).append(node.layer)
    return lambda layer: found.get(id(layer), [])


def leaves(model: tf_keras.Model) -> list:
    """The layers of a model and of the graphs in it, without the graphs themselves."""
    found = []
    for layer in model.layers:
        found += leaves(layer) if is_graph(layer) else [layer]
    return found


def has_constants(node) -> bool:
    """Whether a call reads tensors or arrays other than those of the graph."""
    given = tf.nest.flatten((node.call_args, list(node.call_kwargs.values())))
    num_tensors = sum(tf.is_tensor(value) or isinstance(value, np.ndarray) for value in given)
    return num_tensors > len(node.keras_inputs)


def training_argument(node) -> bool | None:
    """The `training` argument of a call; None if it was not given."""
    by_place = dict(zip(node.layer._call_spec.arg_names, node.call_args, strict=False))
    return {**by_place, **node.call_kwargs}.get("training")


def arguments(node, inputs: list) -> tuple[tuple, dict]:
    """Arguments of a call, with `inputs` instead of the graph's tensors."""
    values = collections.defaultdict(list)
    for tensor, value in zip(reversed(node.keras_inputs), reversed(inputs), strict=True):
        values[str(id(tensor))].append(value)  # `map_arguments` takes the last one first
    return node.map_arguments(values)


def walk(model: tf_keras.Model, inputs: list, apply: Callable[[object, list], list]) -> list:
    """Walks through a graph and its inner graphs with values instead of tensors.

    Args:
      inputs: values of the model's inputs.
      apply: one of `calls` and the values that it reads -> the values of its outputs.

    Returns:
      The values of the model's outputs.
    """
    values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
    for node in nodes(model):
        given = [values[id(tensor)] for tensor in node.keras_inputs]
        outputs = walk(node.layer, given, apply) if is_graph(node.layer) else apply(node, given)
        values |= {id(old): new for old, new in zip(tf.nest.flatten(node.outputs), outputs, strict=True)}
    return [values[id(tensor)] for tensor in model.outputs]


def run(model: tf_keras.Model, inputs: list[tf.Tensor]) -> list[tuple[str, tf.Tensor]]:
    """Calls the layers of a graph on numbers: layer's name and first output of each of `calls`, in that order."""
    found = []

    def apply(node, given: list) -> list:
        positional, named = arguments(node, given)
        outputs = tf.nest.flatten(node.layer(*positional, **named))
        found.append((node.layer.name, outputs[0]))
        return outputs

    walk(model, inputs, apply)
    return found


def reason(error: Exception) -> str:
    """A layer's error in one line, without the text that Keras adds around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[min(1, len(lines) - 1)] if lines[0].startswith("Exception encountered when calling") else lines[0]
    return re.sub(r"^{{function_node \S+}} ", "", line)


def is_symbolic(value: object) -> bool:
    """Whether it is a symbolic tensor that a layer produced."""
    return hasattr(value, "_keras_history")


def maker(tensor):
    """The layer that produced a symbolic tensor."""
    return tensor._keras_history.layer


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer in the graph that is copied.

    Attributes:
      layer: the original.
      name: name of its copy.
      inputs: tensors of the copy.
      node: the original call.
      in_inference: whether it, or the graph around it, was called with training=False.
    """

    layer: layers.Layer
    name: str
    inputs: list
    node: object
    in_inference: bool = False


class Copier:
    """Copies a graph layer by layer, in float32; subclasses decide what becomes of each call.

    Attributes:
      notes: what a user should know, one per line.
      made: (name of the original layer, the copy's tensor) for each of `calls`, in that order.
    """

    def __init__(self):
        self.notes: list[str] = []
        self.made: list[tuple[str, tf.Tensor]] = []
        self._names: set[str] = set()
        self._renamed: dict[str, str] = {}
        self._copies: dict[int, layers.Layer] = {}
        self._weights: dict[layers.Layer, list[np.ndarray]] = {}

    def copy(self, model: tf_keras.Model, inputs: list, outer: str = "", in_inference: bool = False) -> list:
        """The tensors that replace the model's outputs, given `inputs` in place of its inputs.

        Raises:
          ExperimentError: names a layer that cannot be copied.
        """
        tensors = {id(old): new for old, new in zip(model.inputs, inputs, strict=True)}
        for node in nodes(model):
            layer = node.layer
            given = [tensors[id(tensor)] for tensor in node.keras_inputs]
            fixed = in_inference or training_argument(node) is False
            if is_graph(layer):
                outputs = self.copy(layer, given, layer.name, fixed)
            else:
                call = Call(layer, self.free_name(layer.name, outer), given, node, fixed)
                try:
                    outputs = tf.nest.flatten(self.call(call))
                except ExperimentError:
                    raise
                except Exception as error:  # whatever a layer's config, build and call make of themselves
                    raise ExperimentError(
                        f"layer {layer.name}, a {type(layer).__name__}, cannot be copied: {reason(error)}"
                    ) from error
                self.made.append((layer.name, outputs[0]))
            tensors |= {id(old): new for old, new in zip(tf.nest.flatten(node.outputs), outputs, strict=True)}
        return [tensors[id(tensor)] for tensor in model.outputs]

    def call(self, call: Call):
        """The tensors that replace a call's outputs."""
        raise NotImplementedError

    def add(self, layer: layers.Layer, inputs: list, weights: list[np.ndarray] = ()):
        """Applies a new layer with these weights."""
        self._names.add(layer.name)
        self._weights[layer] = list(weights)
        return layer(inputs if len(inputs) > 1 else inputs[0])

    def same(self, call: Call, weights: list[np.ndarray] | None = None, **changed):
        """Applies a copy of a layer, with its weights unless others are given; repeated calls share one copy.

        A BatchNormalization that was called with training=False is frozen, so that it keeps its statistics.
        """
        layer = self._copies.get(id(call.layer)) if call.layer.weights else None
        if layer is None:
            if isinstance(call.layer, layers.BatchNormalization) and call.in_inference:
                changed["trainable"] = False
            config, function = float_config(call.layer)
            layer = type(call.layer).from_config({**config, "name": call.name, **changed})
            if function is not None and "activation" not in changed:
                layer.activation = function
            self._copies[id(call.layer)] = layer
            self._weights[layer] = call.layer.get_weights() if weights is None else weights
            self._names.add(call.name)
        positional, named = arguments(call.node, call.inputs)
        return layer(*positional, **named)

    def finished(self, inputs, output, name: str) -> tf_keras.Model:
        """The copy as a model, with its weights."""
        for layer, weights in self._weights.items():
            layer.set_weights(weights)
        return without_xla(tf_keras.Model(inputs, output, name=valid_name(name)))

    def free_name(self, name: str, outer: str = "") -> str:
        """`name` in a form valid in files and TensorFlow graphs, and not used by any layer yet."""
        valid = valid_name(name)
        if valid != name:
            self._renamed[name] = valid
        while valid in self._names:
            valid = f"{valid_name(outer or 'again')}_{valid}"
        self._names.add(valid)
        return valid

    def note_names(self) -> None:
        told = [f"{old!r} to {new}" for old, new in list(self._renamed.items())[:NUM_NAMED]]
        if told:
            more = f" and {len(self._renamed) - NUM_NAMED} more" if len(self._renamed) > NUM_NAMED else ""
            self.notes.append(
                f"note: some layers are renamed, since files cannot have their names: {', '.join(told)}{more}"
            )


def name_by_file(name: str, path: pathlib.Path) -> str:
    """What a saved model is called: the name that somebody gave it, or else that of its file."""
    return valid_name(path.stem) if KERAS_NAME.fullmatch(name) else name


def valid_name(name: str) -> str:
    """A layer's or model's name in a form valid in files and TensorFlow graphs."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return f"layer_{name}_" if RESERVED.match(name) or not name[:1].isalnum() else name


def float_config(layer: layers.Layer) -> tuple[dict, object]:
    """A layer's config in float32, and its activation function, which a config does not always contain.

    Mixed precision is left out: training chooses its own.
    """
    function = getattr(layer, "activation", None)
    if not callable(function):
        config, function = layer.get_config(), None
    else:
        layer.activation = tf_keras.activations.linear
        try:
            config = layer.get_config()
        finally:
            layer.activation = function
    return ({**config, "dtype": "float32"} if "dtype" in config else config), function
