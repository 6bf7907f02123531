"""Models that tf_keras saved, looked into before they are loaded: what would run code is refused."""

import json
import pathlib
import re
import zipfile
from collections.abc import Iterator

import h5py
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2
from tf_keras.protobuf import saved_metadata_pb2

from qkd_tf.archive import check_hdf5, check_zip, first_line

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}  # of a .keras file; others would be unpacked to disk
# Layers that hold bytecode, a graph of their own, or the path of a file that they read.
CODE = (
    "Lambda",
    "__lambda__",
    "TensorFlowOpLayer",
    "TFSMLayer",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
)
# Where the classes of a standard model live, as configs call it.
MODULES = re.compile(
    r"keras(\.(layers|models|initializers|regularizers|constraints|activations|mixed_precision|dtype_policies))?"
    r"|tf_keras\.src\.(engine|layers|models|initializers|regularizers|constraints|activations|mixed_precision|applications)\b.*"
)
# Functions of TensorFlow in a model of x + 1 or tf.nn.relu6(x): those that only compute.
FUNCTIONS = re.compile(
    r"(compat\.v1\.)?((__operators__|math|nn|image)\.\w+"
    r"|cast|clip_by_value|concat|expand_dims|identity|ones_like|pad|reshape|shape|split|squeeze|stack|strided_slice"
    r"|tile|transpose|unstack|zeros_like)"
)
NOT_LOADED = ("compile_config", "training_config")  # optimizer, losses and metrics; we load with compile=False
FILE_OPERATORS = re.compile(r".*(PyFunc|ReadFile|WriteFile|File\w*Dataset|MatchingFiles|Reader|TextFile).*")

REMEDY = "loading would run code that came with the model: pass --trust_model_code in training if its author is trusted"


def load_model(path: pathlib.Path, trust_code: bool = False) -> tf_keras.Model:
    """A model from a .keras or .h5 file or the folder of a SavedModel, not compiled.

    Args:
      trust_code: load it even though it brings code.

    Raises:
      ValueError: in one line, whatever keeps it from being loaded: it brings code (a Lambda layer, a class or
        function that is not of tf_keras itself, operators on files in a SavedModel), it is damaged, or its arrays
        have more than `archive.MAX_BYTES`.
    """
    try:
        _check_arrays(path)
        if not trust_code:
            for config in _configs(path):
                _check_config(config)
        return tf_keras.models.load_model(path, compile=False, safe_mode=not trust_code)
    except Exception as error:  # whatever three parsers and every layer's from_config make of a stranger's file
        raise ValueError(first_line(error)) from error


def _is_zip(path: pathlib.Path) -> bool:
    return path.name.endswith(".keras") and zipfile.is_zipfile(path)  # as tf_keras tells them apart


def _check_arrays(path: pathlib.Path) -> None:
    if path.is_dir():
        return
    if not _is_zip(path):
        check_hdf5(path)
        return
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        if others := sorted(set(archive.namelist()) - MEMBERS):
            raise ValueError(f"it has {others[0]!r}, which is none of {', '.join(sorted(MEMBERS))}")
        with archive.open("model.weights.h5") as weights:
            check_hdf5(weights)


def _configs(path: pathlib.Path) -> Iterator:
    """What a model says of its layers."""
    if path.is_dir():
        yield from _graph_configs(path)
    elif _is_zip(path):
        with zipfile.ZipFile(path) as archive:
            yield json.loads(archive.read("config.json"))
    else:
        with h5py.File(path) as file:
            config = file.attrs.get("model_config")
            if config is None:
                raise ValueError("it holds weights and no model")
            yield json.loads(config)


def _graph_configs(folder: pathlib.Path) -> Iterator:
    """The layers of a SavedModel, after a look at its operators."""
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in (meta.graph_def for meta in model.meta_graphs):
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        if found := next((node.op for node in nodes if FILE_OPERATORS.fullmatch(node.op)), None):
            raise ValueError(f"its graph has the operator {found}, which runs or reads more than the model; {REMEDY}")
    metadata = saved_metadata_pb2.SavedMetadata.FromString((folder / "keras_metadata.pb").read_bytes())
    for node in metadata.nodes:
        config = json.loads(node.metadata)
        name = config.get("class_name")
        standard = any(hasattr(module, str(name)) for module in (tf_keras, tf_keras.layers, tf_keras.metrics))
        if not standard and name not in ("Functional", "TFOpLambda", "SlicingOpLambda"):
            raise ValueError(f"{name} is no layer of tf_keras; {REMEDY}")
        yield config


def _check_config(config) -> None:
    """Raises ValueError for a part that is not of tf_keras itself."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            _check_part(part)
            waiting += [value for key, value in part.items() if key not in NOT_LOADED]
        elif isinstance(part, list):
            waiting += part


def _check_part(part: dict) -> None:
    name, module, registered = (part.get(key) for key in ("class_name", "module", "registered_name"))
    if name is not None:
        if found := {str(name), str(registered)} & set(CODE):
            raise ValueError(f"it has a {found.pop()} layer; {REMEDY}")
        builtin = module == "builtins" and name == "function" and hasattr(tf_keras.activations, str(part.get("config")))
        if module is not None and not builtin and not MODULES.fullmatch(str(module)):
            raise ValueError(f"it uses {name} of {module}, which is not of tf_keras; {REMEDY}")
        if re.search("[>.]", f"{name}{registered}"):
            raise ValueError(f"it has the class {registered or name}, which is not of tf_keras itself; {REMEDY}")
    function = part.get("function")
    if function is not None and not (isinstance(function, str) and FUNCTIONS.fullmatch(function)):
        raise ValueError(f"it calls {str(function)[:80]!r}, which is none of TensorFlow's plain operations; {REMEDY}")
