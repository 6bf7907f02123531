"""Builds a tf_keras model from a checked Keras 3 configuration and its arrays."""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.console.counting import counted
from qkd_tf.models.copier import valid_name
from qkd_tf.models.keras3 import operations
from qkd_tf.models.keras3.activations import FUSED, REBUILT
from qkd_tf.models.keras3.arrays import Arrays, Path
from qkd_tf.models.keras3.config import ENDS, GRAPHS, references
from qkd_tf.models.keras3.layers import LAYERS
from qkd_tf.models.keras3.refusal import Part, RefusalError

MAX_NUMBERS = 1 << 30  # of a tensor of one picture; more is a slip, or ill meant


def convert(config: Mapping, arrays: Arrays) -> tf_keras.Model:
    """The model whose configuration `config.checked` returned.

    Args:
      arrays: the arrays of each layer.

    Raises:
      RefusalError: calls that read one another in a circle, or read what does not exist; names a layer that tf_keras
        cannot build, or whose arrays are missing, are not numbers or have another shape. Only weights that the arrays
        contain are allocated.
    """
    return _graph(config, arrays, (), config["config"]["trainable"])


def _graph(part: Mapping, arrays: Arrays, path: Path, trainable: bool) -> tf_keras.Model:
    """A model.

    Args:
      trainable: whether the outermost model is trainable. Inner ones do not matter to Keras 3, which asks each layer.
    """
    config = part["config"]
    parts, names = {one["config"]["name"]: one for one in config["layers"]}, _Names()
    applied = {
        name: _input(one) if one["class_name"] == "InputLayer" else _applied(one, arrays, path, trainable, names)
        for name, one in parts.items()
    }
    if part["class_name"] == "Sequential":
        first, *others = applied.values()
        output = first
        for apply in others:
            output = apply([output], {})
        return tf_keras.Model(first, output, name=valid_name(config["name"]))
    tensors = _call_all(parts, applied)
    ends = []
    for key in ENDS:
        found = []
        for name, call, output in references(config[key]):
            inner = parts.get(name, {}).get("class_name") == "Functional"  # of such, ends count calls from 1
            found.append(_tensor(tensors, name, call - inner, output))
        ends.append(found[0] if len(found) == 1 else found)
    return tf_keras.Model(*ends, name=valid_name(config["name"]))


class _Names:
    """Names for a graph's layers; an operation needs a new name for each call."""

    def __init__(self):
        self._used: collections.Counter = collections.Counter()

    def free(self, name: str) -> str:
        number, self._used[name] = self._used[name], self._used[name] + 1
        return f"{name}_again_{number}" if number else name


def _applied(part: Mapping, arrays: Arrays, path: Path, trainable: bool, names: _Names) -> Callable:
    """A function from a call's arguments, (positional, keyword), to its outputs."""
    config, class_name = part["config"], part["class_name"]
    where = Part(config["name"], class_name)
    if class_name in GRAPHS:
        return _told(_graph(part, arrays, (*path, where.name), trainable), where)
    if (rows := operations.MODULES.get(part["module"])) is not None:
        return _told(lambda *inputs: rows[class_name](config, names.free(valid_name(where.name)), list(inputs)), where)
    name = names.free(valid_name(where.name))
    layer, activation = _layer(part, name, trainable and config.get("trainable", True))
    given = [array for array in arrays.get((*path, where.name), []) if array.dtype.kind not in "iu"]  # counters

    def call(*inputs, **arguments):
        with _filled_by(None if layer.built else given, where):
            output = layer(*inputs, **arguments)
        return output if activation is None else activation.apply(output, names.free(f"{name}_{activation.name}"))

    return _told(call, where)


def _told(call: Callable, where: Part) -> Callable:
    """The call, in which an error of tf_keras becomes a line that names the layer."""

    def apply(args: list, kwargs: Mapping):
        try:
            output = call(*args, **kwargs)
        except RefusalError:
            raise
        except Exception as error:  # whatever a layer's build and call make of a stranger's arguments
            raise where.refusal(error) from error
        for tensor in tf.nest.flatten(output):
            if math.prod(side or 1 for side in tensor.shape[1:]) > MAX_NUMBERS:
                raise where.refusal(f"it gives a tensor of shape {tuple(tensor.shape)}")
        return output

    return apply


@contextlib.contextmanager
def _filled_by(arrays: Sequence[np.ndarray] | None, where: Part) -> Iterator[None]:
    """A context in which a layer's weights are created from arrays, in order; what does not fit is never allocated.

    Counters and seeds, which are whole numbers, are created as usual.

    Args:
      arrays: None for a layer that already has its weights.
    """
    left = collections.deque(arrays or ())

    def create(make: Callable, **arguments):
        if tf.as_dtype(arguments["dtype"]).is_floating:
            shape, array = tuple(arguments.get("shape") or ()), left.popleft() if left else None
            if array is None or array.shape != shape:
                told = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
                raise where.refusal(f"an array of shape {shape} is expected, there is {told}")
            arguments["initial_value"] = tf.constant(array, arguments["dtype"])
        return make(**arguments)

    with tf.variable_creator_scope(create):
        yield
    if left:
        raise where.refusal(f"there are more arrays than it has weights: {counted(len(left), 'array')} too many")


@dataclasses.dataclass(frozen=True)
class _Activation:
    """Layers that apply an activation which a layer of tf_keras cannot apply itself.

    Attributes:
      name: suffix of the last of them, after the layer's own name.
      apply: (tensor, name of the last of them) -> output.
    """

    name: str
    apply: Callable


def _layer(part: Mapping, name: str, trainable: bool) -> tuple[layers.Layer, _Activation | None]:
    """A layer, and the layers for its activation if it cannot apply that itself."""
    row, activation = LAYERS[part["class_name"]], None
    config = {row.renamed.get(key, key): _value(key, value) for key, value in part["config"].items()}
    if (given := part["config"].get("activation")) is not None:
        if isinstance(given, Mapping):
            activation = _Activation(valid_name(given["config"]["name"]), lambda x, name: _alone(given, x, name))
        elif given in REBUILT:
            activation = _Activation(given, REBUILT[given])
        config["activation"] = "linear" if activation else FUSED[given]
    try:
        return row.make(**{**config, "name": name, "trainable": bool(trainable)}), activation
    except Exception as error:  # whatever a layer makes of a stranger's arguments
        raise Part(part["config"]["name"], part["class_name"]).refusal(error) from error


def _alone(part: Mapping, x, name: str):
    """Applies a layer that is another layer's activation."""
    layer, activation = _layer(part, name, False)
    return layer(x) if activation is None else activation.apply(x, f"{name}_{activation.name}")


def _input(part: Mapping):
    config = part["config"]
    return tf_keras.Input(config["batch_shape"][1:], name=valid_name(config["name"]), dtype=config.get("dtype"))


def _value(key: str, value):
    """An argument of a checked configuration as tf_keras takes it."""
    if isinstance(value, list):
        return [_value(key, one) for one in value]
    if not isinstance(value, Mapping) or key == "activation":
        return value
    if value["class_name"] == "__numpy__":
        return np.array(value["config"]["value"], value["config"]["dtype"])
    place = tf_keras.regularizers if value["module"] == "keras.regularizers" else tf_keras.constraints
    return getattr(place, value["class_name"])(**value["config"])


def _call_all(parts: Mapping[str, Mapping], applied: Mapping) -> dict[tuple[str, int], list]:
    """(layer, call number) -> outputs, each computed after those that it reads."""
    tensors = {(name, 0): [applied[name]] for name, part in parts.items() if part["class_name"] == "InputLayer"}
    calls = {
        (name, number): call
        for name, part in parts.items()
        if (name, 0) not in tensors
        for number, call in enumerate(part["inbound_nodes"])
    }
    read = {key: {source for source in _read(call) if source not in tensors} for key, call in calls.items()}
    readers = collections.defaultdict(list)
    for key, sources in read.items():
        for source in sources:
            readers[source].append(key)
    missing = {key: len(sources) for key, sources in read.items()}
    ready = collections.deque(key for key, number in missing.items() if not number)
    while ready:
        key = ready.popleft()
        args = _filled(calls[key]["args"], tensors)
        tensors[key] = tf.nest.flatten(applied[key[0]](args, calls[key]["kwargs"]))
        for reader in readers[key]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if left := next((name for name, number in calls if (name, number) not in tensors), None):
        raise RefusalError(f"whose layer {left} reads its own output, or a tensor that does not exist")
    return tensors


def _read(call: Mapping) -> list[tuple[str, int]]:
    """The calls whose outputs are read."""
    found, waiting = [], [call["args"]]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, Mapping) and part["class_name"] == "__keras_tensor__":
            found.append(tuple(part["config"]["keras_history"][:2]))
    return found


def _filled(argument, tensors: Mapping):
    """Arguments of a call, with tensors filled in."""
    if isinstance(argument, list):
        return [_filled(one, tensors) for one in argument]
    if not isinstance(argument, Mapping):
        return argument
    config = argument["config"]
    if argument["class_name"] == "__keras_tensor__":
        return _tensor(tensors, *config["keras_history"])
    if argument["class_name"] == "__slice__":
        return slice(config["start"], config["stop"], config["step"])
    return tf.constant(config["value"], config["dtype"])


def _tensor(tensors: Mapping, name: str, call: int, output: int):
    outputs = tensors.get((name, call), [])
    if output >= len(outputs):
        raise RefusalError(f"which reads output {output} of call {call} of {name}, which does not exist")
    return outputs[output]
