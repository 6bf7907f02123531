"""Writes an integer graph as a .tflite flatbuffer.

The file is written operator by operator, not through TensorFlow's converter. The converter derives integers again from
fake-quantized floats, and drops or rewrites what it does not expect (BUILD.md lists the traps). Here every integer is
one that training handed over.
"""

from collections.abc import Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.flatbuffer.operators import OPERATORS

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16  # bytes; kernels on microcontrollers read int32 in place
DTYPES = {
    "int4": schema.TensorType.INT4,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
}
ACTIVATIONS = {
    "NONE": schema.ActivationFunctionType.NONE,
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU6": schema.ActivationFunctionType.RELU6,
}
PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}


class _AlignedBuffer(schema.BufferT):
    """A buffer aligned to 16 bytes, as the schema demands; the generated `Pack` aligns data to one byte."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self.data is None:
            return super().Pack(builder)
        raw = self.data.tobytes()
        builder.StartVector(1, len(raw), BUFFER_ALIGNMENT)
        builder.head -= len(raw)
        builder.Bytes[builder.head : builder.head + len(raw)] = raw
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def convert(graph: IntegerGraph, description: str, outputs: Sequence[str] | None = None) -> bytes:
    """The bytes of a .tflite with one subgraph and the graph's signatures.

    Args:
      outputs: tensors to make outputs of the file; None for the graph's one output.
    """
    index = {name: i for i, name in enumerate(graph.tensors)}
    buffers = [_AlignedBuffer()]
    tensors = []
    for tensor in graph.tensors.values():
        buffer = 0
        if tensor.data is not None:
            buffer = len(buffers)
            buffers.append(_AlignedBuffer(data=_pack_int4(tensor.data) if tensor.dtype == "int4" else tensor.data))
        tensors.append(_tensor(tensor, buffer))
    versions = [(operator.kind, _version(operator, graph)) for operator in graph.operators]
    codes = list(dict.fromkeys(versions))
    subgraph = schema.SubGraphT(
        tensors=tensors,
        inputs=[index[graph.input]],
        outputs=[index[name] for name in outputs or [graph.output]],
        operators=[
            _operator(operator, codes.index(version), index)
            for operator, version in zip(graph.operators, versions, strict=True)
        ],
        name="main",
    )
    model = schema.ModelT(
        version=SCHEMA_VERSION,
        operatorCodes=[_operator_code(kind, version) for kind, version in codes],
        subgraphs=[subgraph],
        description=description,
        buffers=buffers,
        signatureDefs=_signatures(graph, index),
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _signatures(graph: IntegerGraph, index: dict[str, int]) -> list[schema.SignatureDefT]:
    """The names under which an app finds input and output, by signature key."""
    signatures: dict[str, schema.SignatureDefT] = {}
    for path, tensor in graph.signature.items():
        key, _, name = path.partition("/")
        signature = signatures.setdefault(
            key, schema.SignatureDefT(inputs=[], outputs=[], signatureKey=key, subgraphIndex=0)
        )
        entries = signature.inputs if tensor == graph.input else signature.outputs
        entries.append(schema.TensorMapT(name=name, tensorIndex=index[tensor]))
    return list(signatures.values())


def _tensor(tensor: Tensor, buffer: int) -> schema.TensorT:
    quantization = schema.QuantizationParametersT()
    if tensor.scales.size:
        quantization.scale = tensor.scales.astype(np.float32)
        quantization.zeroPoint = np.full(tensor.scales.size, tensor.zero_point, np.int64)
        quantization.quantizedDimension = tensor.axis or 0
    return schema.TensorT(
        shape=list(tensor.shape),
        type=DTYPES[tensor.dtype],
        buffer=buffer,
        name=tensor.name,
        quantization=quantization,
        hasRank=True,
    )


def _operator(operator: Operator, opcode_index: int, index: dict[str, int]) -> schema.OperatorT:
    row = OPERATORS[operator.kind]
    options = row.options() if row.options else None
    for name, value in operator.options.items():
        setattr(options, row.fields[name], {**ACTIVATIONS, **PADDINGS}.get(value, value))
    return schema.OperatorT(
        opcodeIndex=opcode_index,
        inputs=[index[name] for name in operator.inputs],
        outputs=[index[operator.output]],
        builtinOptionsType=row.options_type,
        builtinOptions=options,
    )


def _version(operator: Operator, graph: IntegerGraph) -> int:
    return OPERATORS[operator.kind].version_with([graph.tensors[name] for name in operator.inputs[1:2]])


def _pack_int4(codes: np.ndarray) -> np.ndarray:
    """Two integers per byte, the first in the lower half; with an odd number the last upper half is 0."""
    nibbles = np.append(codes.ravel(), np.zeros(codes.size % 2, np.int8)).astype(np.uint8) & 0xF
    return nibbles[0::2] | nibbles[1::2] << 4


def _operator_code(kind: str, version: int) -> schema.OperatorCodeT:
    code = getattr(schema.BuiltinOperator, kind)
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)
