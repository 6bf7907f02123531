"""Reads a .tflite back into an integer graph, knowing nothing of how it was written."""

import struct

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.graph import IntegerGraph, Operator, Tensor


def _names(enum) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


OPERATORS = _names(schema.BuiltinOperator)
TENSOR_TYPES = {value: name.lower() for value, name in _names(schema.TensorType).items()}
ACTIVATIONS = _names(schema.ActivationFunctionType)
PADDINGS = _names(schema.Padding)
NUMPY_TYPES = ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")

# Flatbuffer field -> our option. A field that is not listed here must have its default, or it is told.
OPTIONS = {
    "padding": "padding",
    "strideH": "stride_h",
    "strideW": "stride_w",
    "dilationHFactor": "dilation_h",
    "dilationWFactor": "dilation_w",
    "filterHeight": "filter_h",
    "filterWidth": "filter_w",
    "fusedActivationFunction": "activation",
    "axis": "axis",
    "keepDims": "keep_dims",
}
ABSENT = "(absent)"  # an optional input that is left out
WORDS = {"padding": PADDINGS, "activation": ACTIVATIONS}


def read_back(content: bytes) -> IntegerGraph:
    """The graph in a .tflite of one subgraph.

    A custom operator appears as kind "CUSTOM"; a type or option that we never write appears under
    its flatbuffer name, so that a comparison finds it.

    Raises:
      ValueError: not a .tflite, or not exactly one subgraph with one input and one output.
    """
    if content[4:8] != b"TFL3":
        raise ValueError("not a .tflite: the file identifier TFL3 is missing")
    try:
        return _graph(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)))
    except (struct.error, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a whole .tflite: {error}") from error


def _graph(model: schema.ModelT) -> IntegerGraph:
    if len(model.subgraphs) != 1:
        raise ValueError(f"{len(model.subgraphs)} subgraphs; one is expected")
    subgraph = model.subgraphs[0]
    if len(subgraph.inputs) != 1 or len(subgraph.outputs) != 1:
        raise ValueError(f"{len(subgraph.inputs)} inputs and {len(subgraph.outputs)} outputs; one of each is expected")
    graph = IntegerGraph()
    tensors = [_tensor(tensor, model.buffers[tensor.buffer].data) for tensor in subgraph.tensors]
    for tensor in tensors:
        graph.add_tensor(tensor)
    graph.input, graph.output = tensors[subgraph.inputs[0]].name, tensors[subgraph.outputs[0]].name
    for signature in model.signatureDefs or ():
        for entry in [*signature.inputs, *signature.outputs]:
            graph.signature[f"{signature.signatureKey.decode()}/{entry.name.decode()}"] = tensors[
                entry.tensorIndex
            ].name
    for operator in subgraph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        graph.operators.append(
            Operator(
                OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)],
                tuple(tensors[i].name if i >= 0 else ABSENT for i in operator.inputs),
                tensors[operator.outputs[0]].name,
                _options(operator.builtinOptions),
            )
        )
    return graph


def _tensor(tensor: schema.TensorT, buffer) -> Tensor:
    dtype = TENSOR_TYPES[tensor.type]
    shape = tuple(int(d) for d in tensor.shape) if tensor.shape is not None else ()
    quantization = tensor.quantization
    scales = np.array([], np.float32)
    zero_points = np.array([0])
    axis = None
    if quantization is not None and quantization.scale is not None:
        scales = np.asarray(quantization.scale, np.float32)
        zero_points = np.asarray(quantization.zeroPoint)
        axis = quantization.quantizedDimension if scales.size > 1 else None
    if len(set(zero_points.tolist())) != 1:
        raise ValueError(f"tensor {tensor.name.decode()} has several zero points")
    data = None
    if buffer is not None and len(buffer):
        if dtype not in (*NUMPY_TYPES, "int4"):
            raise ValueError(f"tensor {tensor.name.decode()} holds constants of type {dtype}")
        raw = np.asarray(buffer, np.uint8)
        data = (_unpack_int4(raw, shape) if dtype == "int4" else np.frombuffer(raw.tobytes(), dtype)).reshape(shape)
    return Tensor(tensor.name.decode(), shape, dtype, scales, int(zero_points[0]), axis, data)


def _unpack_int4(raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """int8 integers of two a byte, the lower half first."""
    nibbles = np.stack([raw << 4, raw & 0xF0], axis=-1).astype(np.uint8).view(np.int8) >> 4
    return nibbles.ravel()[: int(np.prod(shape))]


def _options(options) -> dict:
    """Our names for the fields of an options object; fields of no meaning to int8 are left out at their default."""
    if options is None:
        return {}
    defaults = vars(type(options)())
    found = {}
    for field, value in vars(options).items():
        if field in OPTIONS:
            name = OPTIONS[field]
            found[name] = WORDS[name][value] if name in WORDS else value
        elif value != defaults[field] and (field, value) not in ADMITTED:
            found[field] = value
    return found


# Non-default values that mean nothing more than the operator itself: one output channel for each input channel.
ADMITTED = (("depthMultiplier", 1),)
