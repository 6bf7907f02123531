"""Reads a .tflite back into an integer graph, knowing nothing of how it was written."""

import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import ArrayLike

from qkd_tf.console.counting import counted
from qkd_tf.storage.archive import first_line
from tflite_export.flatbuffer.footprint import check_footprint
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.flatbuffer.operators import OPERATORS


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


BUILTINS = _names(schema.BuiltinOperator)
TENSOR_TYPES = {value: name.lower() for value, name in _names(schema.TensorType).items()}
ACTIVATIONS = _names(schema.ActivationFunctionType)
PADDINGS = _names(schema.Padding)
OPTIONS_TYPES = _names(schema.BuiltinOptions)
NUMPY_TYPES = ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")

SCHEMA_VERSION = 3

# Flatbuffer field -> our option. A field that is not among these must have its default, or it is reported.
OPTIONS = {field: option for row in OPERATORS.values() for option, field in row.fields.items()}
ABSENT = "(absent)"  # an optional input that is left out
WORDS = {"padding": PADDINGS, "activation": ACTIVATIONS}


def read_back(content: bytes) -> IntegerGraph:
    """The graph in a .tflite of one subgraph.

    Whatever an operator has beyond our own options appears among its options under its flatbuffer name, so that a
    comparison finds it: a field that we never set, or another version or type of options than its builtin has. A kind
    or type that we never write appears under its flatbuffer name, too. A custom operator has the kind "CUSTOM".

    Raises:
      ValueError: not a .tflite, not exactly one subgraph with one input and one output, or something that an
        `IntegerGraph` cannot hold, such as sparsity or several zero points. Overlapping or too many tables are refused
        before they are unpacked.
    """
    if content[4:8] != b"TFL3":
        raise ValueError("not a .tflite: the file identifier TFL3 is missing")
    try:
        check_footprint(content)
        return _graph(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)))
    except (struct.error, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"not a whole .tflite: {first_line(error)}") from error


def description(content: bytes) -> str:
    """The description in a file that `read_back` accepts."""
    return (schema.Model.GetRootAs(content).Description() or b"").decode(errors="replace")


def _graph(model: schema.ModelT) -> IntegerGraph:
    if model.version != SCHEMA_VERSION:
        raise ValueError(f"schema version {model.version}; {SCHEMA_VERSION} is expected")
    _refuse_others("the model", model, "version operatorCodes subgraphs description buffers signatureDefs")
    if len(model.subgraphs) != 1:
        raise ValueError(f"{len(model.subgraphs)} subgraphs; one is expected")
    subgraph = model.subgraphs[0]
    _refuse_others("the subgraph", subgraph, "tensors inputs outputs operators name")
    if len(subgraph.inputs) != 1 or len(subgraph.outputs) != 1:
        raise ValueError(
            f"{counted(len(subgraph.inputs), 'input')} and {counted(len(subgraph.outputs), 'output')}; "
            "one of each is expected"
        )
    graph = IntegerGraph()
    for tensor in subgraph.tensors:
        graph.add_tensor(_tensor(tensor, model.buffers[tensor.buffer]))
    names = dict(enumerate(graph.tensors))  # so that a negative index is an error
    graph.input, graph.output = names[subgraph.inputs[0]], names[subgraph.outputs[0]]
    graph.signature = _signature(model.signatureDefs or (), names, graph)
    for operator in subgraph.operators:
        graph.operators.append(_operator(operator, model.operatorCodes[operator.opcodeIndex], names, graph))
    return graph


def _signature(
    definitions: Iterable[schema.SignatureDefT], names: dict[int, str], graph: IntegerGraph
) -> dict[str, str]:
    found: dict[str, str] = {}
    for definition in definitions:
        key = definition.signatureKey.decode()
        _refuse_others(f"signature {key}", definition, "inputs outputs signatureKey")
        for entries, other_end in ((definition.inputs, graph.output), (definition.outputs, graph.input)):
            for entry in entries:
                path, tensor = f"{key}/{entry.name.decode()}", names[entry.tensorIndex]
                if path in found:
                    raise ValueError(f"the signature has {path} twice, for {found[path]} and {tensor}")
                found[f"{path} (at the wrong end)" if tensor == other_end else path] = tensor
    return found


def _operator(
    operator: schema.OperatorT, code: schema.OperatorCodeT, names: dict[int, str], graph: IntegerGraph
) -> Operator:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    kind = BUILTINS.get(number, f"operator code {number}")
    inputs = tuple(names[i] if i != -1 else ABSENT for i in operator.inputs)
    outputs = [names[i] for i in operator.outputs]
    options = _options(operator.builtinOptions)
    options |= _others(operator, "opcodeIndex inputs outputs builtinOptionsType builtinOptions")
    options |= _others(code, "deprecatedBuiltinCode builtinCode version")
    if len(outputs) > 1:
        options["outputs"] = outputs
    if kind in OPERATORS:
        row = OPERATORS[kind]
        if operator.builtinOptionsType != row.options_type:
            options["builtinOptionsType"] = OPTIONS_TYPES.get(operator.builtinOptionsType, operator.builtinOptionsType)
        version = row.version_with([graph.tensors[name] for name in inputs[1:2] if name != ABSENT])
        if code.version != version:
            options["version"] = code.version
    return Operator(kind, inputs, outputs[0], options)


def _tensor(tensor: schema.TensorT, buffer: schema.BufferT) -> Tensor:
    name = tensor.name.decode()
    _refuse_others(f"tensor {name}", tensor, "shape type buffer name quantization hasRank")
    _refuse_others(f"the buffer of tensor {name}", buffer, "data")
    dtype = TENSOR_TYPES.get(tensor.type, f"type {tensor.type}")
    shape = tuple(int(d) for d in tensor.shape) if tensor.shape is not None else ()
    quantization = tensor.quantization or schema.QuantizationParametersT()
    _refuse_others(f"the quantization of tensor {name}", quantization, "scale zeroPoint quantizedDimension")
    scales = np.asarray(_values(quantization.scale), np.float32)
    zero_points = _values(quantization.zeroPoint)
    if len(set(zero_points)) > 1:
        raise ValueError(f"tensor {name} has several zero points")
    if len(zero_points) != scales.size:
        raise ValueError(f"tensor {name} has {scales.size} scales and {len(zero_points)} zero points")
    axis = quantization.quantizedDimension if scales.size > 1 else quantization.quantizedDimension or None
    data = _data(name, dtype, shape, buffer.data) if buffer.data is not None and len(buffer.data) else None
    return Tensor(name, shape, dtype, scales, zero_points[0] if zero_points else 0, axis, data)


def _data(name: str, dtype: str, shape: tuple[int, ...], buffer: ArrayLike) -> np.ndarray:
    if dtype not in (*NUMPY_TYPES, "int4"):
        raise ValueError(f"tensor {name} holds constants of type {dtype}")
    raw = np.asarray(buffer, np.uint8)
    size = math.prod(shape)
    num_bytes = (size + 1) // 2 if dtype == "int4" else size * np.dtype(dtype).itemsize
    if raw.size != num_bytes:
        raise ValueError(f"tensor {name} has {raw.size} bytes; {dtype} of shape {shape} takes {num_bytes}")
    return (_unpack_int4(raw)[:size] if dtype == "int4" else np.frombuffer(raw.tobytes(), dtype)).reshape(shape)


def _unpack_int4(raw: np.ndarray) -> np.ndarray:
    """int8 integers from two per byte, the lower half first."""
    return (np.stack([raw << 4, raw & 0xF0], axis=-1).astype(np.uint8).view(np.int8) >> 4).ravel()


def _options(options: object | None) -> dict[str, Any]:
    """An options object by our names; fields that we never write have their own names."""
    if options is None:
        return {}
    found = {}
    for field in OPTIONS.keys() & vars(options).keys():
        name, value = OPTIONS[field], getattr(options, field)
        found[name] = WORDS[name].get(value, value) if name in WORDS else value
    return found | _others(options, " ".join(OPTIONS))


def _others(table: object, read: str) -> dict[str, Any]:
    """Fields of a flatbuffer table with values that we never write, except those that are `read`."""
    ordinary = vars(type(table)())
    found = {}
    for field in vars(table).keys() - set(read.split()):
        value = getattr(table, field)
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if value not in (ordinary[field], []):
            found[field] = type(value).__name__ if hasattr(value, "Pack") else value
    return found


def _refuse_others(owner: str, table: object, read: str) -> None:
    if others := _others(table, read):
        fields = ", ".join(f"{field} {value}" for field, value in sorted(others.items()))
        raise ValueError(f"{owner} has {fields}, which we never write")


def _values(vector: ArrayLike | None) -> list:
    return [] if vector is None else np.asarray(vector).tolist()
