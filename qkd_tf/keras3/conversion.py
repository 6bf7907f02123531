"""A checked configuration of Keras 3, with its arrays, as a model of tf_keras."""

import collections
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.keras3.activations import FUSED, REBUILT
from qkd_tf.keras3.arrays import Arrays, Path
from qkd_tf.keras3.config import GRAPHS, references
from qkd_tf.keras3.layers import LAYERS
from qkd_tf.keras3.operations import OPERATIONS
from qkd_tf.keras3.refusal import RefusalError, refuse_layer

MAX_NUMBERS = 1 << 30  # of a tensor of one picture; more is a slip, or ill meant


def convert(config: Mapping, arrays: Arrays) -> tf_keras.Model:
    """The model that `config.checked` gives the configuration of.

    Args:
      arrays: of each layer.

    Raises:
      RefusalError: calls that read one another in a circle, or read what is not there; a layer that tf_keras cannot
        make, or whose arrays are missing, are no numbers or have another shape, by name. Nothing is allocated that
        the arrays do not tell of.
    """
    return _Converter(arrays).graph(config, (), True)


class _Converter:
    def __init__(self, arrays: Arrays):
        self._arrays = arrays

    def graph(self, part: Mapping, path: Path, trainable: bool) -> tf_keras.Model:
        config = part["config"]
        trainable = trainable and config["trainable"]
        name, names = config["name"], _Names()
        if part["class_name"] == "Sequential":
            inputs, *others = config["layers"]
            given = [_input(inputs)]
            tensors = given
            for one in others:
                tensors = [self._apply(one, path, trainable, names)([tensors[0]], {})]
            return tf_keras.Model(given[0], tensors[0], name=name)
        applied = {}
        for one in config["layers"]:
            key = one["config"]["name"]
            is_input = one["class_name"] == "InputLayer"
            applied[key] = _input(one) if is_input else self._apply(one, path, trainable, names)
        tensors = _call_all(config["layers"], applied)
        functional = {one["config"]["name"] for one in config["layers"] if one["class_name"] == "Functional"}

        def end(layer: str, node: int, tensor: int):
            node -= layer in functional  # at its ends a graph counts the calls of a model in it from 1
            return _tensor(tensors, layer, node, tensor)

        ends = [[end(*reference) for reference in references(config[key])] for key in ("input_layers", "output_layers")]
        return tf_keras.Model(*(one[0] if len(one) == 1 else one for one in ends), name=name)

    def _apply(self, part: Mapping, path: Path, trainable: bool, names: "_Names") -> Callable:
        """A function of a call's arguments, (positional, by name), to its outputs."""
        config, class_name = part["config"], part["class_name"]
        name = config["name"]
        if class_name in GRAPHS:
            return _named(self.graph(part, (*path, name), trainable), name, class_name)
        if class_name in OPERATIONS and part["module"].startswith("keras.src."):
            names.take(name)
            return _named(lambda *inputs: OPERATIONS[class_name](config, names.free(name), list(inputs)), name, class_name)
        layer, after = _layer(part, trainable and config.get("trainable", True))
        names.take(name)
        arrays = [array for array in self._arrays.get((*path, name), []) if array.dtype.kind not in "iu"]  # counters

        def call(*inputs, **given):
            used_again = layer.built
            with _filled_by(() if used_again else arrays, name, class_name):
                output = layer(*inputs, **given)
            if not used_again and len(arrays) > (wanted := sum(weight.dtype.is_floating for weight in layer.weights)):
                raise refuse_layer(name, class_name, None, f"it has {wanted} arrays there, and {len(arrays)} in the file")
            return output if after is None else after(output, names.free(f"{name}_{after.__name__}"))

        return _named(call, name, class_name)


class _Names:
    """Names of a graph's layers, each once."""

    def __init__(self):
        self._taken: collections.Counter = collections.Counter()
        self._own: set[str] = set()

    def take(self, name: str) -> None:
        self._own.add(name)

    def free(self, name: str) -> str:
        self._taken[name] += 1
        number = self._taken[name]
        return name if number == 1 else self.free(f"{name}_{number - 1}")


def _named(call: Callable, name: str, class_name: str) -> Callable:
    """The call with what tf_keras raises as a line that names the layer."""

    def apply(args: list, kwargs: Mapping):
        try:
            output = call(*args, **kwargs)
        except RefusalError:
            raise
        except Exception as error:  # whatever a layer's build and call make of arguments of a stranger
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise refuse_layer(name, class_name, None, lines[min(1, len(lines) - 1)][:160]) from error
        for tensor in tf.nest.flatten(output):
            if math.prod(side or 1 for side in tensor.shape[1:]) > MAX_NUMBERS:
                raise refuse_layer(name, class_name, None, f"it gives a tensor of shape {tuple(tensor.shape)}")
        return output

    return apply


def _input(part: Mapping):
    config = part["config"]
    return tf_keras.Input(config["batch_shape"][1:], name=config["name"], dtype=config.get("dtype"))


def _layer(part: Mapping, trainable: bool) -> tuple[layers.Layer, Callable | None]:
    """(Layer, what makes its activation of its output; None where the layer does)."""
    class_name, after = part["class_name"], None
    row = LAYERS[class_name]
    config = {row.renamed.get(key, key): _value(key, value) for key, value in part["config"].items()}
    if "activation" in config:
        given = config["activation"]
        if isinstance(given, Mapping):
            after, _ = _layer(given, False)
            after = _as_function(given)
        else:
            after = REBUILT.get(given)
        config["activation"] = "linear" if after else FUSED[given]
    try:
        return row.make(**{**config, "trainable": bool(trainable)}), after
    except Exception as error:  # whatever a layer makes of arguments of a stranger
        raise refuse_layer(part["config"]["name"], class_name, None, str(error).split("\n")[0][:160]) from error


def _as_function(part: Mapping) -> Callable:
    """A layer that another one has for its activation."""

    def apply(x, name: str):
        renamed = {**part, "config": {**part["config"], "name": name}}
        layer, after = _layer(renamed, False)
        return layer(x) if after is None else after(layer(x), f"{name}_")

    apply.__name__ = part["config"]["name"]
    return apply


@contextlib.contextmanager
def _filled_by(arrays: Sequence[np.ndarray], name: str, class_name: str) -> Iterator[None]:
    """A context in which a layer's weights are made of arrays, in order; what does not fit is never allocated.

    Counters and seeds, which are whole numbers, are made as they are.
    """
    left = iter(arrays)

    def create(make: Callable, **arguments):
        if tf.as_dtype(arguments["dtype"]).is_floating:
            shape, array = tuple(arguments.get("shape") or ()), next(left, None)
            told = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
            if array is None or array.shape != shape or array.dtype.kind not in "fV":
                raise refuse_layer(name, class_name, None, f"numbers of shape {shape} are expected, there is {told}")
            arguments["initial_value"] = tf.constant(array, arguments["dtype"])
        return make(**arguments)

    with tf.variable_creator_scope(create):
        yield


def _value(key: str, value):
    """What tf_keras takes for a value of a checked configuration."""
    if isinstance(value, Mapping) and key != "activation":
        if value["class_name"] == "__numpy__":
            return np.array(value["config"]["value"], value["config"]["dtype"])
        place = tf_keras.regularizers if key.endswith("_regularizer") else tf_keras.constraints
        return getattr(place, value["class_name"])(**value["config"])
    return [_value(key, one) for one in value] if isinstance(value, list) else value


def _tensor(tensors: Mapping, layer: str, node: int, number: int):
    outputs = tensors.get((layer, node), [])
    if number >= len(outputs):
        raise RefusalError(f"it is a model of Keras 3 that reads output {number} of call {node} of {layer}, which is not there")
    return outputs[number]


def _call_all(parts: list[Mapping], applied: Mapping) -> dict[tuple[str, int], list]:
    """Outputs of each call, (layer, number), each made after those that it reads."""
    tensors, waiting, readers = {}, {}, collections.defaultdict(list)
    ready = collections.deque()
    for part in parts:
        name = part["config"]["name"]
        if part["class_name"] == "InputLayer":
            tensors[name, 0] = [applied[name]]
            continue
        for number, call in enumerate(part["inbound_nodes"]):
            waiting[name, number] = call
    for key, call in waiting.items():
        read = {source for source in _read(call) if source not in tensors}
        for source in read:
            readers[source].append(key)
        if not read:
            ready.append(key)
    missing = {key: len({source for source in _read(call) if source not in tensors}) for key, call in waiting.items()}
    while ready:
        key = ready.popleft()
        call = waiting[key]
        args = _filled(call["args"], tensors)
        # A layer's calls are numbered as they are made.
        tensors[key] = tf.nest.flatten(applied[key[0]](args, call["kwargs"]))
        for reader in readers[key]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if left := [name for name, number in waiting if (name, number) not in tensors]:
        raise RefusalError(
            f"it is a model of Keras 3 whose layer {left[0]} reads what is made of its own output, or what is not there"
        )
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
    """Arguments of a call with tensors in them."""
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
