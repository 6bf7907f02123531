"""A Keras 3 model's configuration, checked: only what is understood is passed on."""

import collections
import re
from collections.abc import Callable, Mapping

from qkd_tf.models.keras3 import operations
from qkd_tf.models.keras3.activations import FUSED, REBUILT
from qkd_tf.models.keras3.layers import ACTIVATIONS, INPUT, LAYERS, NEUTRAL, REFUSED, UNUSED, LayerRow
from qkd_tf.models.keras3.refusal import Part, RefusalError
from qkd_tf.models.remedies import REMEDIES

# Modules of Keras 3's layers, regularizers and constraints, as configurations name them; an .h5 names none.
MODULES = re.compile(r"keras(\.src)?(\.(layers|models|regularizers|constraints)(\.\w+)*)?")
POLICIES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
WHOLE_NUMBERS = ("uint8", "int32")  # of inputs, and of casts
PLAIN = (bool, int, float, str, type(None))
NUMBERS = ("__numpy__", "__tensor__")
ENDS = ("input_layers", "output_layers")  # of a graph


def checked(config: Mapping) -> dict:
    """The part of a configuration that is understood, written as Keras 3 writes it.

    Initializers, builds, optimizers, losses and metrics are left out: they do not affect the function.

    Raises:
      RefusalError: names the layer with an unknown class, argument or value.
      LookupError, TypeError, AttributeError: it is not a configuration.
    """
    if config["class_name"] not in GRAPHS or not _is_of_keras(config):
        raise RefusalError(
            f"a {config['class_name']}; a functional or Sequential model without a call() of its own is expected"
        )
    ends = [config["config"].get(key) for key in ENDS]
    if any(isinstance(end, Mapping) and len(end) == 1 for end in ends):  # of several it is told how many there are
        raise RefusalError("which takes or returns a dict; give keras.Model(model.inputs[0], model.outputs[0])")
    return _part(config)


def _is_of_keras(part: Mapping) -> bool:
    """Whether a class is Keras' own, and not another class of that name."""
    known = part.get("registered_name") in (None, part["class_name"])
    return known and bool(MODULES.fullmatch(part.get("module") or "keras"))


def _part(part: Mapping) -> dict:
    """A layer, an operation, or a model as a layer."""
    config, class_name, module = part["config"], part["class_name"], part.get("module")
    where = Part(str(config["name"]), str(class_name))
    if module is None and "trainable" not in config:  # of an .h5: layers of the same names have that argument
        module = operations.module_of(class_name)
    if class_name in operations.MODULES.get(module, ()):
        whole = {"module": module, "config": _operation(config, where)}
    elif class_name in GRAPHS and _is_of_keras(part):
        whole = GRAPHS[class_name](config, where)
    elif class_name in (*LAYERS, "InputLayer") and _is_of_keras(part):
        row = LAYERS.get(class_name, INPUT)
        whole = {"module": "keras.layers", "config": _layer(config, where, row)}
    else:
        raise _refused(part, where)
    whole |= {"class_name": class_name, "registered_name": None}
    if "inbound_nodes" in part:
        whole |= {"name": where.name, "inbound_nodes": [_call(node, where) for node in part["inbound_nodes"]]}
    return whole


def _refused(part: Mapping, where: Part) -> RefusalError:
    """The error for a class that is not taken over."""
    class_name, module = part["class_name"], part.get("module")
    if class_name in REFUSED or not _is_of_keras(part):
        return where.refusal(REFUSED.get(class_name, f"its class is of {module}"))
    if class_name in REMEDIES:
        return where.refusal("a file of integers cannot compute it", REMEDIES[class_name])
    return where.refusal("layers of this kind are not supported")


def _functional(config: Mapping, where: Part) -> dict:
    parts = [_part({**part, "inbound_nodes": part["inbound_nodes"]}) for part in config["layers"]]
    ends = {key: references(config[key]) for key in ENDS}
    ends = {key: found[0] if len(found) == 1 else found for key, found in ends.items()}
    return {"module": "keras.src.models.functional", "config": _graph(config, where, parts) | ends}


def _sequential(config: Mapping, where: Part) -> dict:
    parts = [_part({key: part[key] for key in part.keys() - {"inbound_nodes"}}) for part in config["layers"]]
    shape = config.get("build_input_shape")
    if parts and parts[0]["class_name"] != "InputLayer" and shape:
        first = {"name": f"{where.name}_input", "batch_shape": _plain([None, *shape[1:]], where)}
        parts.insert(
            0, {"module": "keras.layers", "class_name": "InputLayer", "config": first, "registered_name": None}
        )
    if not parts or parts[0]["class_name"] != "InputLayer":
        raise RefusalError(f"whose Sequential {where.name} does not know its input; begin it with keras.Input")
    return {"module": "keras", "config": _graph(config, where, parts)}


GRAPHS: Mapping[str, Callable] = {"Functional": _functional, "Sequential": _sequential}


def _graph(config: Mapping, where: Part, parts: list[dict]) -> dict:
    names = collections.Counter(part["config"]["name"] for part in parts)
    if twice := [name for name, number in names.items() if number > 1]:
        raise RefusalError(f"whose {where.name} has two layers called {twice[0]}")
    return {"name": where.name, "trainable": bool(config.get("trainable", True)), "layers": parts}


def references(ends) -> list[list]:
    """Inputs or outputs of a graph, which are one, a list or a dict of [layer, call, output]."""
    if isinstance(ends, Mapping):
        ends = list(ends.values())
    if len(ends) == 3 and isinstance(ends[0], str):
        return [_reference(ends)]
    return [end for part in ends for end in references(part)]


def _reference(history: list) -> list:
    layer, call, output = history
    if not (isinstance(layer, str) and all(isinstance(number, int) and number >= 0 for number in (call, output))):
        raise TypeError(f"{str(history)[:80]} is not a tensor")
    return [layer, call, output]


def _layer(config: Mapping, where: Part, row: LayerRow) -> dict:
    found = {}
    for key, value in config.items():
        if key.endswith("_initializer") or key in row.ignored:
            continue
        if key in row.arguments:
            found[key] = _value(key, value, where)
        elif not row.is_stand_in and key not in UNUSED and value not in NEUTRAL.get(key, ()):
            raise where.refusal(f"its {key} is {str(value)[:40]}")
    return found


def _operation(config: Mapping, where: Part) -> dict:
    neutral = operations.NEUTRAL
    for key in neutral.keys() & config.keys():
        if neutral[key] is not None and config[key] not in neutral[key]:
            raise where.refusal(f"its {key} is {str(config[key])[:40]}")
    return {key: _value(key, value, where) for key, value in config.items() if key not in neutral}


def _value(key: str, value, where: Part):
    """An argument."""
    for ending, read in READERS.items():
        if key.endswith(ending):
            return read(value, where)
    return _plain(value, where)


def _policy(value, where: Part) -> str:
    policy = value["config"].get("name", value["class_name"]) if isinstance(value, Mapping) else value
    known = (*POLICIES, *WHOLE_NUMBERS) if where.class_name in ("InputLayer", "Cast") else POLICIES
    if policy not in known:
        raise where.refusal(f"tf_keras has no dtype policy {str(policy)[:40]}")
    return policy


def _activation(value, where: Part) -> str | dict:
    """A name, or a layer without weights."""
    if isinstance(value, Mapping):
        if value.get("class_name") in ACTIVATIONS:
            return _part(value)
        value = value.get("registered_name") or value.get("config") or "of a lambda"
    if value is not None and value not in (*FUSED, *REBUILT):
        raise where.refusal(f"tf_keras has no activation {str(value)[:40]}")
    return value or "linear"


def _object(place: str, *known: str) -> Callable[[Mapping | None, Part], dict | None]:
    """A reader of objects of these classes of a module."""

    def read(value: Mapping | None, where: Part) -> dict | None:
        if value is None:
            return None
        if value["class_name"] not in known or not _is_of_keras(value):
            raise where.refusal(f"tf_keras has no {value['class_name']}")
        config = {key: _plain(one, where) for key, one in value["config"].items()}
        return {"module": place, "class_name": value["class_name"], "config": config, "registered_name": None}

    return read


def _plain(value, where: Part):
    """Numbers, text, lists and arrays."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one, where) for one in value]
    if isinstance(value, Mapping) and value.get("class_name") in NUMBERS:
        given = value["config"]
        return {"class_name": "__numpy__", "config": {key: _plain(given[key], where) for key in ("value", "dtype")}}
    raise where.refusal(f"one of its arguments is {str(value)[:80]}")


# Ending of an argument's name -> what reads it.
READERS: Mapping[str, Callable] = {
    "dtype": _policy,
    "activation": _activation,
    "_regularizer": _object("keras.regularizers", "L1", "L2", "L1L2", "OrthogonalRegularizer"),
    "_constraint": _object("keras.constraints", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"),
}


def _call(node: Mapping, where: Part) -> dict:
    """Arguments of a call.

    Keras 3 usually stores a layer's default for `training`, and overrides it whenever a model is called. Only False on
    a BatchNormalization or a model, as in `base(x, training=False)`, is the user's own; tf_keras obeys it.
    """
    kwargs = {key: value for key, value in node["kwargs"].items() if value is not None}
    if kwargs.get("training") is not False or where.class_name not in (*GRAPHS, "BatchNormalization"):
        kwargs.pop("training", None)
    if others := sorted(kwargs.keys() - {"training"}):
        raise where.refusal(f"it is called with {others[0]}")
    return {"args": _argument(list(node["args"]), where), "kwargs": kwargs}


def _argument(value, where: Part):
    kind = value.get("class_name") if isinstance(value, Mapping) else None
    if kind == "__keras_tensor__":
        given = value["config"]
        config = {key: _plain(given[key], where) for key in ("shape", "dtype")}
        return {"class_name": kind, "config": {**config, "keras_history": _reference(given["keras_history"])}}
    if kind == "__slice__":
        ends = {key: _plain(value["config"][key], where) for key in ("start", "stop", "step")}
        return {"class_name": kind, "config": ends}
    if isinstance(value, list | tuple):
        return [_argument(one, where) for one in value]
    return _plain(value, where)


def in_double(config):
    """A checked configuration with float64 in place of float32: of layers, inputs, constants and casts."""
    if isinstance(config, list):
        return [in_double(one) for one in config]
    if not isinstance(config, Mapping):
        return config
    doubled = {key: in_double(value) for key, value in config.items()}
    return doubled | ({"dtype": "float64"} if config.get("dtype") == "float32" else {})
