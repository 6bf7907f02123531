"""What a model of Keras 3 says of its layers, checked: only what is understood is handed on."""

import re
from collections.abc import Callable, Mapping

from qkd_tf.keras3 import operations
from qkd_tf.keras3.activations import FUSED, REBUILT
from qkd_tf.keras3.layers import INPUT, LAYERS, NEUTRAL, UNUSED, LayerRow
from qkd_tf.keras3.operations import OPERATIONS
from qkd_tf.keras3.refusal import RefusalError, refuse_layer

# Where the classes of Keras 3 live, as configurations call it; an .h5 calls nothing.
LAYER_MODULES = re.compile(r"keras(\.src)?\.(layers|models)(\.\w+)*|keras")
OPERATION_MODULES = re.compile(r"keras\.src\.(ops|applications)\.(\w+)")
POLICIES = tuple(f"{mixed}{name}" for name in ("float16", "bfloat16") for mixed in ("", "mixed_")) + ("float32",)
# Regularizers and constraints, which tf_keras calls alike.
OBJECTS: Mapping[str, tuple[str, ...]] = {
    "_regularizer": ("L1", "L2", "L1L2", "OrthogonalRegularizer"),
    "_constraint": ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"),
}
NUMBERS = ("__numpy__", "__tensor__")
PLAIN = (bool, int, float, str, type(None))


def checked(config: Mapping) -> dict:
    """A configuration of Keras 3 with what is understood of it, written as Keras 3 writes it.

    Initializers, builds, optimizers, losses and metrics are left out: they make nothing of the function.

    Raises:
      RefusalError: a class, an argument or a value that is not known, by the layer's name.
      LookupError, TypeError, AttributeError: it is no configuration.
    """
    if config["class_name"] not in GRAPHS or not _is_of_keras(config, LAYER_MODULES):
        raise RefusalError(
            f"it is a model of Keras 3, a {config['class_name']}; a functional or Sequential one, without a call of its "
            "own, is expected"
        )
    return _part(config)


def _is_of_keras(part: Mapping, modules: re.Pattern) -> bool:
    known = part.get("registered_name") in (None, part["class_name"])
    return known and (part.get("module") is None or bool(modules.fullmatch(part["module"])))


def _part(part: Mapping) -> dict:
    """A layer, an operation, or a model as a layer."""
    config, class_name, module = part["config"], part["class_name"], part.get("module")
    name = str(config["name"])
    is_operation = bool(OPERATION_MODULES.fullmatch(str(module))) or (module is None and "trainable" not in config)
    if is_operation and class_name in OPERATIONS and _is_of_keras(part, OPERATION_MODULES):
        return _whole(part, f"keras.src.{_place(part)}", _operation(config, name, class_name))
    if class_name not in (*GRAPHS, *LAYERS, "InputLayer") or not _is_of_keras(part, LAYER_MODULES):
        raise refuse_layer(name, class_name, module)
    if class_name in GRAPHS:
        return _whole(part, *GRAPHS[class_name](config, name))
    row = INPUT if class_name == "InputLayer" else LAYERS[class_name]
    return _whole(part, "keras.layers", _layer(config, name, class_name, row))


def _place(part: Mapping) -> str:
    """Where an operation lives; of an .h5, which does not tell, it does not matter: Keras 3 is not asked for it."""
    module = part.get("module")
    return module.removeprefix("keras.src.") if module else _module_of(part["class_name"])


def _module_of(class_name: str) -> str:
    if class_name == "Cast":
        return "ops.core"
    of_nn = ("Relu", "Relu6", "Sigmoid", "Silu", "Selu", "Softplus", "Softsign", "Gelu", "Softmax", "LogSoftmax", "Elu")
    return "ops.nn" if class_name in (*of_nn, "LeakyRelu", "HardSigmoid", "HardSilu") else "ops.numpy"


def _whole(part: Mapping, module: str, config: dict) -> dict:
    """A part with its calls."""
    whole = {"module": module, "class_name": part["class_name"], "config": config, "registered_name": None}
    if "inbound_nodes" in part:
        whole |= {"name": config["name"], "inbound_nodes": [_call(node, config["name"]) for node in part["inbound_nodes"]]}
    return whole


def _functional(config: Mapping, name: str) -> tuple[str, dict]:
    parts = [_part({**part, "inbound_nodes": part["inbound_nodes"]}) for part in config["layers"]]
    _require_single(parts, name)
    ends = {key: [_reference(end) for end in references(config[key])] for key in ("input_layers", "output_layers")}
    ends = {key: found[0] if len(found) == 1 else found for key, found in ends.items()}
    whole = {"name": name, "trainable": bool(config.get("trainable", True)), "layers": parts}
    return "keras.src.models.functional", whole | ends


def _sequential(config: Mapping, name: str) -> tuple[str, dict]:
    parts = [_part({**part, "inbound_nodes": []}) for part in config["layers"]]
    shape = config.get("build_input_shape")
    if parts and parts[0]["class_name"] != "InputLayer" and shape:
        first = {"name": f"{name}_input", "batch_shape": [None, *_plain(shape, name, "Sequential", "shape")[1:]]}
        parts.insert(0, {"module": "keras.layers", "class_name": "InputLayer", "config": first, "registered_name": None})
    if not parts or parts[0]["class_name"] != "InputLayer":
        raise RefusalError(f"it is a model of Keras 3, whose Sequential {name} does not know its input; begin it with keras.Input")
    _require_single(parts, name)
    for part in parts:
        part.pop("inbound_nodes", None), part.pop("name", None)
    return "keras", {"name": name, "trainable": bool(config.get("trainable", True)), "layers": parts}


GRAPHS: Mapping[str, Callable] = {"Functional": _functional, "Sequential": _sequential}


def _require_single(parts: list[dict], name: str) -> None:
    names = [part["config"]["name"] for part in parts]
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise RefusalError(f"it is a model of Keras 3, whose {name} has two layers called {twice}")


def references(ends) -> list:
    """References to inputs or outputs, which are one, a list or a dict of them."""
    if isinstance(ends, Mapping):
        ends = list(ends.values())
    return [ends] if len(ends) == 3 and isinstance(ends[0], str) else [end for part in ends for end in references(part)]


def _reference(history) -> list:
    layer, node, tensor = history
    if not (isinstance(layer, str) and isinstance(node, int) and isinstance(tensor, int) and min(node, tensor) >= 0):
        raise TypeError(f"{str(history)[:80]} is no tensor")
    return [layer, node, tensor]


def _layer(config: Mapping, name: str, class_name: str, row: LayerRow) -> dict:
    found = {}
    for key, value in config.items():
        ending = next((ending for ending in OBJECTS if key.endswith(ending)), None)
        if key in UNUSED or key in row.ignored or key.endswith("_initializer"):
            continue
        if key in NEUTRAL and key not in row.arguments:
            if value in NEUTRAL[key]:
                continue
        elif key == "dtype":
            found[key] = _policy(value, name, class_name)
            continue
        elif key in row.arguments and key == "activation":
            found[key] = _activation(value, name, class_name)
            continue
        elif key in row.arguments and ending:
            found[key] = _object(value, OBJECTS[ending], name, class_name)
            continue
        elif key in row.arguments:
            found[key] = _plain(value, name, class_name, key)
            continue
        raise refuse_layer(name, class_name, None, f"tf_keras has no {key}={str(value)[:40]}")
    return found


def _operation(config: Mapping, name: str, class_name: str) -> dict:
    neutral = operations.NEUTRAL
    for key, value in config.items():
        if key in neutral and neutral[key] is not None and value not in neutral[key]:
            raise refuse_layer(name, class_name, None, f"tf_keras has no {key}={str(value)[:40]}")
    return {key: _plain(value, name, class_name, key) for key, value in config.items() if key not in (*neutral, "dtype")} | (
        {"dtype": _policy(config["dtype"], name, class_name)} if "dtype" in config else {}
    )


def _policy(value, name: str, class_name: str) -> str:
    policy = value["config"]["name"] if isinstance(value, Mapping) else value
    if policy in POLICIES or class_name in ("InputLayer", "Cast") and policy in ("uint8", "int32"):
        return policy
    raise refuse_layer(name, class_name, None, f"tf_keras has no numbers of {str(policy)[:40]}")


def _activation(value, name: str, class_name: str) -> str | dict:
    """A name, or a layer without weights."""
    if isinstance(value, Mapping) and value.get("class_name") in LAYERS:
        return _part(value)
    if value is None or value in (*FUSED, *REBUILT):
        return value or "linear"
    told = value.get("registered_name") or value.get("config") or "lambda" if isinstance(value, Mapping) else value
    raise refuse_layer(name, class_name, None, f"tf_keras has no activation {str(told)[:40]}")


def _object(value, known: tuple[str, ...], name: str, class_name: str) -> dict | None:
    if value is None:
        return None
    if value["class_name"] not in known or not re.fullmatch(r"keras(\.src)?\.\w+(\.\w+)*", value.get("module") or "keras.x"):
        raise refuse_layer(name, class_name, None, f"{value['class_name']} is not of Keras")
    config = {key: _plain(one, name, class_name, key) for key, one in value["config"].items()}
    module = "keras.regularizers" if known is OBJECTS["_regularizer"] else "keras.constraints"
    return {"module": module, "class_name": value["class_name"], "config": config, "registered_name": None}


def _plain(value, name: str, class_name: str, key: str):
    """Numbers, text, lists and arrays."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one, name, class_name, key) for one in value]
    if isinstance(value, Mapping) and value.get("class_name") in NUMBERS:
        numbers = {"value": _plain(value["config"]["value"], name, class_name, key), "dtype": str(value["config"]["dtype"])}
        return {"class_name": "__numpy__", "config": numbers}
    raise refuse_layer(name, class_name, None, f"{key} is {str(value)[:80]}")


def _call(node, name: str) -> dict:
    """Arguments of a call; `training=True` is left out, since Keras 3 overrides it whenever a model is called."""
    if not isinstance(node, Mapping):
        raise TypeError(f"calls of {name} are not written as Keras 3 writes them")
    kwargs = {key: value for key, value in node["kwargs"].items() if value is not None}
    if kwargs.get("training") is True:
        del kwargs["training"]
    if others := sorted(kwargs.keys() - {"training"}):
        raise refuse_layer(name, "layer", None, f"it is called with {others[0]}")
    return {"args": _argument(list(node["args"]), name), "kwargs": kwargs}


def _argument(value, name: str):
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        given = value["config"]
        shape = _plain(given["shape"], name, "tensor", "shape")
        config = {"shape": shape, "dtype": str(given["dtype"]), "keras_history": _reference(given["keras_history"])}
        return {"class_name": "__keras_tensor__", "config": config}
    if isinstance(value, Mapping) and value.get("class_name") == "__slice__":
        ends = {key: _plain(value["config"][key], name, "slice", key) for key in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": ends}
    if isinstance(value, list | tuple):
        return [_argument(one, name) for one in value]
    return _plain(value, name, "call", "an argument")
