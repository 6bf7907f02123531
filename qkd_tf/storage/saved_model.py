"""Models saved by tf_keras, checked before they are loaded; those that would run code are refused."""

import json
import math
import pathlib
import re
import zipfile
from collections.abc import Iterator

import h5py
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2
from tf_keras.protobuf import saved_metadata_pb2

from qkd_tf.storage.archive import check_hdf5, check_zip, first_line

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}  # of a .keras file; others would be unpacked to disk
# Weights that layers may have beyond what is stored: seeds and counters, with room to spare.
MAX_SHARE, MAX_OTHERS = 2, 1_000_000
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
# Where configs without a module find their classes, and those that are none of tf_keras' public names.
PLACES = (
    tf_keras, tf_keras.layers, tf_keras.initializers, tf_keras.regularizers, tf_keras.constraints, tf_keras.metrics,
    tf_keras.mixed_precision,
)  # fmt: skip
UNNAMED = ("Functional", "TFOpLambda", "SlicingOpLambda", "Policy", "TensorShape", "TypeSpec", "__tuple__")
# Where the classes of a standard model live, as configs call it.
MODULES = re.compile(
    r"(tf_)?keras(\.src)?(\.(activations|applications|constraints|dtype_policies|engine|initializers|layers|models"
    r"|mixed_precision|regularizers)(\.\w+)*)?"
)
# Functions of TensorFlow in a model of x + 1 or tf.nn.relu6(x): those that only compute.
FUNCTIONS = re.compile(
    r"(compat\.v1\.)?((__operators__|math|nn|image)\.\w+"
    r"|cast|clip_by_value|concat|expand_dims|identity|ones_like|pad|reshape|shape|split|squeeze|stack|strided_slice"
    r"|tile|transpose|unstack|zeros_like)"
)
NOT_LOADED = ("compile_config", "training_config")  # optimizer, losses and metrics; we load with compile=False
FILE_OPERATORS = re.compile(r".*(PyFunc|ReadFile|WriteFile|File\w*Dataset|MatchingFiles|Reader|TextFile).*")

REMEDY = "loading would run code that came with the model: pass --trust_model_code in training if you trust its author"


def load_model(path: pathlib.Path, trust_code: bool = False) -> tf_keras.Model:
    """A model from a .keras or .h5 file or the folder of a SavedModel, not compiled.

    Args:
      trust_code: load it even if it brings code.

    Raises:
      ValueError: one line on why it is not loaded: it brings code (a Lambda layer, a class or function that is not of
        tf_keras itself, operators on files in a SavedModel), it is damaged, its arrays have more than
        `archive.MAX_BYTES`, or its layers far more weights than its arrays.
    """
    try:
        num_numbers = _check_arrays(path)
        if not trust_code:
            for config in _configs(path):
                _check_config(config)
                if not path.is_dir():
                    _check_declared(config, num_numbers, _is_zip(path))
        return tf_keras.models.load_model(path, compile=False, safe_mode=not trust_code)
    except Exception as error:  # whatever three parsers and every layer's from_config make of a stranger's file
        raise ValueError(first_line(error)) from error


def _is_zip(path: pathlib.Path) -> bool:
    return path.name.endswith(".keras") and zipfile.is_zipfile(path)  # as tf_keras tells them apart


def _check_arrays(path: pathlib.Path) -> int:
    """The number of values in a file; 0 for a folder."""
    if path.is_dir():
        return 0
    if not _is_zip(path):
        if not (h5py.is_hdf5(path) or zipfile.is_zipfile(path)):
            raise ValueError("it is neither a .keras archive nor HDF5; give a file that model.save wrote")
        return check_hdf5(path)
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        if others := sorted(set(archive.namelist()) - MEMBERS):
            raise ValueError(f"it contains {others[0]!r}, which is not one of {', '.join(sorted(MEMBERS))}")
        with archive.open("model.weights.h5") as weights:
            return check_hdf5(weights)


def _configs(path: pathlib.Path) -> Iterator:
    """The configs of a model's layers."""
    if path.is_dir():
        yield from _graph_configs(path)
    elif _is_zip(path):
        with zipfile.ZipFile(path) as archive:
            yield _loaded(archive.read("config.json"))
    else:
        with h5py.File(path) as file:
            config = file.attrs.get("model_config")
            if config is None:
                raise ValueError(
                    "it holds weights and no model; give what model.save wrote, or a function that builds the network, "
                    "package.module:builder, and this file by --student_weights or --teacher_weights"
                )
            yield _loaded(config)


def _loaded(text: bytes | str) -> dict:
    """A config without the parts that are not loaded; inner models keep theirs, because tf_keras loads those."""
    return {key: value for key, value in json.loads(text).items() if key not in NOT_LOADED}


def _graph_configs(folder: pathlib.Path) -> Iterator:
    """The layer configs of a SavedModel, after a check of its operators."""
    metadata_file = folder / "keras_metadata.pb"
    if not metadata_file.is_file():
        raise ValueError(
            "it is a SavedModel without its layers, as Keras 3's model.export writes it; give what "
            "model.save('model.keras') wrote"
        )
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in (meta.graph_def for meta in model.meta_graphs):
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        if found := next((node.op for node in nodes if FILE_OPERATORS.fullmatch(node.op)), None):
            raise ValueError(f"its graph has the operator {found}, which runs or reads more than the model; {REMEDY}")
    metadata = saved_metadata_pb2.SavedMetadata.FromString(metadata_file.read_bytes())
    for node in metadata.nodes:
        config = _loaded(node.metadata)
        yield {"class_name": None, **config}


def _check_config(config) -> None:
    """Raises ValueError for a part that is not of tf_keras itself."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            _check_part(part)
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_declared(config: dict, num_numbers: int, is_zip: bool) -> None:
    """Raises ValueError for layers that are larger than the file's arrays; it builds them without allocating memory."""
    with tf.Graph().as_default() as graph:  # variables of a graph that never runs are names
        graph.seed = 0  # deterministic kernels ask for one where a layer is random
        if is_zip:
            model = tf_keras.saving.deserialize_keras_object(config)
        else:
            model = tf_keras.models.model_from_json(json.dumps(config))
        declared = sum(math.prod(weight.shape) for weight in model.weights) if model.built else 0
    if declared > MAX_SHARE * num_numbers + MAX_OTHERS:
        raise ValueError(f"its layers have {declared:,} weights, its arrays {num_numbers:,} numbers")


def _check_part(part: dict) -> None:
    name, module, registered = (part.get(key) for key in ("class_name", "module", "registered_name"))
    if "class_name" in part:
        if found := {str(name), str(registered)} & set(CODE):
            raise ValueError(f"it has a {found.pop()} layer; {REMEDY}")
        builtin = module == "builtins" and name == "function" and hasattr(tf_keras.activations, str(part.get("config")))
        if module is not None and not builtin and not MODULES.fullmatch(str(module)):
            raise ValueError(f"it uses {name} from {module}, which is not part of tf_keras; {REMEDY}")
        if module is None and name not in UNNAMED and not any(hasattr(place, str(name)) for place in PLACES):
            raise ValueError(f"it has the class {name}, which is not part of tf_keras; {REMEDY}")
        if re.search("[>.]", f"{name}{registered}"):
            raise ValueError(f"it has the class {registered or name}, which is not part of tf_keras; {REMEDY}")
    function = part.get("function")
    if function is not None and not (isinstance(function, str) and FUNCTIONS.fullmatch(function)):
        raise ValueError(
            f"it calls {str(function)[:80]!r}, which is not one of TensorFlow's plain operations; {REMEDY}"
        )
