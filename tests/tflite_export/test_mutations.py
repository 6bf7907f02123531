"""Lies of every kind, at random: whatever is changed in an exported file, the verification refuses it by name."""

import copy
import itertools
import re
import textwrap
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from qkd_tf.contract.targets import TARGETS
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.proof.comparison import refusals
from tflite_export.rebuilding.rebuild import rebuild

MUTATIONS_A_FILE = 24
CODES = sorted(v for n, v in vars(schema.BuiltinOperator).items() if not n.startswith("_"))
TYPES = sorted(v for n, v in vars(schema.TensorType).items() if not n.startswith("_"))
INT4, INT8, INT32 = schema.TensorType.INT4, schema.TensorType.INT8, schema.TensorType.INT32
NOWHERE = ""  # what is damaged is no tensor


def pick(rng, items):
    items = list(items)
    return items[rng.integers(len(items))]


def graph_of(model) -> schema.SubGraphT:
    return model.subgraphs[0]


def name_of(model, index: int) -> str:
    return graph_of(model).tensors[index].name.decode()


def data_of(model, tensor) -> np.ndarray | None:
    return model.buffers[tensor.buffer].data


def shape_of(tensor) -> list[int]:
    return [int(d) for d in tensor.shape]


def num_scales(tensor) -> int:
    return 0 if tensor.quantization.scale is None else len(tensor.quantization.scale)


def to_tensor(eligible: Callable, change: Callable) -> Callable:
    """A mutation of one tensor: change(model, tensor, rng) where eligible(model, tensor)."""

    def mutate(model, rng) -> str | None:
        candidates = [tensor for tensor in graph_of(model).tensors if eligible(model, tensor)]
        if not candidates:
            return None
        tensor = pick(rng, candidates)
        name = tensor.name.decode()
        change(model, tensor, rng)
        return name

    return mutate


def to_operator(eligible: Callable, change: Callable) -> Callable:
    """A mutation of one operator: change(model, operator, rng) where eligible(operator); it is named by its output."""

    def mutate(model, rng) -> str | None:
        candidates = [operator for operator in graph_of(model).operators if eligible(operator)]
        if not candidates:
            return None
        operator = pick(rng, candidates)
        name = name_of(model, operator.outputs[0])
        change(model, operator, rng)
        return name

    return mutate


def to_model(change: Callable) -> Callable:
    """A mutation of no single tensor: change(model, rng)."""

    def mutate(model, rng) -> str:
        change(model, rng)
        return NOWHERE

    return mutate


# Which tensors.


def every(model, tensor) -> bool:
    return True


def activation(model, tensor) -> bool:
    return data_of(model, tensor) is None


def is_constant(model, tensor) -> bool:
    return data_of(model, tensor) is not None


def quantized_activation(model, tensor) -> bool:
    return activation(model, tensor) and num_scales(tensor) == 1


def per_channel(model, tensor) -> bool:
    return num_scales(tensor) > 1


def per_tensor(model, tensor) -> bool:
    return num_scales(tensor) == 1


def scales_differ(model, tensor) -> bool:
    return per_channel(model, tensor) and len(set(tensor.quantization.scale.tolist())) > 1


def constant_named(suffix: str, *types: int) -> Callable:
    def eligible(model, tensor) -> bool:
        return tensor.name.decode().endswith(suffix) and (not types or tensor.type in types)

    return eligible


# Changes to tensors. Each leaves something that was not there before.


def change_code(model, tensor, rng):
    """Another value of one integer of 8 bits."""
    data_of(model, tensor)[rng.integers(len(data_of(model, tensor)))] ^= rng.integers(1, 256)


def change_half_byte(model, tensor, rng):
    position = rng.integers(np.prod(tensor.shape))
    data_of(model, tensor)[position // 2] ^= rng.integers(1, 16) << 4 * (position % 2)


def change_value(model, tensor, rng):
    """Another value of one int32."""
    data_of(model, tensor)[rng.integers(len(data_of(model, tensor)))] ^= 1 << rng.integers(8)


def next_slope(model, operator, rng):
    slope = np.float32(operator.builtinOptions.alpha)
    operator.builtinOptions.alpha = float(np.nextafter(slope, np.float32(pick(rng, [-np.inf, np.inf]))))


def swap_codes(model, tensor, rng):
    data = data_of(model, tensor)
    a, b = pick(rng, [(i, j) for i, j in itertools.combinations(range(min(len(data), 16)), 2) if data[i] != data[j]])
    data[[a, b]] = data[[b, a]]


def codes_differ(model, tensor) -> bool:
    return constant_named("/kernel", INT8)(model, tensor) and len(set(data_of(model, tensor)[:16])) > 1


def next_scale(model, tensor, rng):
    scale, channel = tensor.quantization.scale, rng.integers(num_scales(tensor))
    scale[channel] = np.nextafter(scale[channel], np.float32(pick(rng, [0, np.inf])))


def swap_scales(model, tensor, rng):
    scale = tensor.quantization.scale
    a, b = pick(rng, [(i, j) for i, j in itertools.combinations(range(len(scale)), 2) if scale[i] != scale[j]])
    scale[[a, b]] = scale[[b, a]]


def move_zero_point(model, tensor, rng):
    tensor.quantization.zeroPoint[rng.integers(num_scales(tensor))] += pick(rng, [-2, -1, 1, 2])


def move_every_zero_point(model, tensor, rng):
    tensor.quantization.zeroPoint += pick(rng, [-2, -1, 1, 2])


def cut_zero_points(model, tensor, rng):
    tensor.quantization.zeroPoint = tensor.quantization.zeroPoint[1:]


def one_scale_for_all(model, tensor, rng):
    tensor.quantization.scale = tensor.quantization.scale[:1]
    tensor.quantization.zeroPoint = tensor.quantization.zeroPoint[:1]
    tensor.quantization.quantizedDimension = 0


def leave_out_quantization(model, tensor, rng):
    tensor.quantization = None


def move_axis(model, tensor, rng):
    tensor.quantization.quantizedDimension += pick(rng, [1, 2])


def quantize_in_blocks(model, tensor, rng):
    tensor.quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    tensor.quantization.details = schema.BlockwiseQuantizationT()


def change_shape(model, tensor, rng):
    shape = shape_of(tensor)
    axis = rng.integers(len(shape))
    longer = [d + (i == axis) for i, d in enumerate(shape)]
    flat = [int(np.prod(shape))]
    tensor.shape = pick(rng, [s for s in ([1, *shape], longer, flat, shape[::-1]) if s != shape])


def change_type(model, tensor, rng):
    tensor.type = pick(rng, [t for t in TYPES if t != tensor.type])


def set_tensor(**fields) -> Callable:
    def change(model, tensor, rng):
        for field, value in fields.items():
            setattr(tensor, field, value)

    return change


def set_quantization(**fields) -> Callable:
    def change(model, tensor, rng):
        for field, value in fields.items():
            setattr(tensor.quantization, field, value)

    return change


def free_the_batch(model, tensor, rng):
    tensor.shapeSignature = [-1, *shape_of(tensor)[1:]]


def read_buffer_from_outside(model, tensor, rng):
    buffer = model.buffers[tensor.buffer]
    buffer.offset, buffer.size = 64, len(buffer.data)


def cut_buffer(model, tensor, rng):
    model.buffers[tensor.buffer].data = data_of(model, tensor)[:-1]


def lengthen_buffer(model, tensor, rng):
    model.buffers[tensor.buffer].data = np.append(data_of(model, tensor), np.uint8(0))


def swap_buffers(model, rng) -> str | None:
    """Two constants of one size hold each other's integers, or of different ones where no two are alike."""
    constants = [t for t in graph_of(model).tensors if is_constant(model, t)]
    pairs = [
        (a, b)
        for a, b in itertools.combinations(constants, 2)
        if data_of(model, a).tobytes() != data_of(model, b).tobytes()
    ]
    if not pairs:
        return None
    alike = [(a, b) for a, b in pairs if len(data_of(model, a)) == len(data_of(model, b))]
    a, b = pick(rng, alike or pairs)
    a.buffer, b.buffer = b.buffer, a.buffer
    return a.name.decode()


def swap_names(model, rng) -> str:
    a, b = rng.choice(len(graph_of(model).tensors), 2, replace=False)
    a, b = (graph_of(model).tensors[i] for i in (a, b))
    a.name, b.name = b.name, a.name
    return a.name.decode()


def take_name_of_another(model, rng) -> str:
    a, b = rng.choice(len(graph_of(model).tensors), 2, replace=False)
    graph_of(model).tensors[a].name = graph_of(model).tensors[b].name
    return name_of(model, b)


def rename(model, tensor, rng):
    tensor.name += b"_"


def swap_quantization(model, rng) -> str | None:
    """Two activations have each other's scale and zero point."""
    activations = [t for t in graph_of(model).tensors if quantized_activation(model, t)]
    pairs = [
        (a, b)
        for a, b in itertools.combinations(activations, 2)
        if (a.quantization.scale[0], a.quantization.zeroPoint[0])
        != (b.quantization.scale[0], b.quantization.zeroPoint[0])
    ]
    if not pairs:
        return None
    a, b = pick(rng, pairs)
    a.quantization, b.quantization = b.quantization, a.quantization
    return a.name.decode()


def fill_activation(model, tensor, rng):
    """An activation that no operator makes anew: it holds what some constant holds."""
    tensor.buffer = pick(rng, [t.buffer for t in graph_of(model).tensors if is_constant(model, t)])


def add_tensor(model, rng) -> str:
    another = copy.deepcopy(pick(rng, graph_of(model).tensors))
    another.name += b"_again"
    graph_of(model).tensors.append(another)
    return another.name.decode()


# Which operators, and changes to them.


def any_operator(operator) -> bool:
    return True


def is_kind(options_type: str) -> Callable:
    return lambda operator: operator.builtinOptionsType == getattr(schema.BuiltinOptions, options_type)


def has(*fields: str) -> Callable:
    return lambda operator: all(hasattr(operator.builtinOptions, field) for field in fields)


def reads_two(operator) -> bool:
    return len(set(operator.inputs)) > 1


def has_bias(operator) -> bool:
    return len(operator.inputs) == 3


def add_code(model, number: int, version: int = 2, custom_code=None) -> int:
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode, code.builtinCode = min(number, 127), number
    code.version, code.customCode = version, custom_code
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def code_of(model, operator) -> schema.OperatorCodeT:
    return model.operatorCodes[operator.opcodeIndex]


def replace_operator(model, operator, rng):
    code = code_of(model, operator)
    number = pick(rng, [n for n in CODES if n != code.builtinCode])
    operator.opcodeIndex = add_code(model, number, code.version)


def make_custom(model, operator, rng):
    operator.opcodeIndex = add_code(model, schema.BuiltinOperator.CUSTOM, 1, b"Conv2DOfMine")


def change_version(model, operator, rng):
    code = code_of(model, operator)
    code.version = pick(rng, [v for v in range(1, 14) if v != code.version])


def name_custom_code(model, operator, rng):
    code_of(model, operator).customCode = b"Conv2DOfMine"


def swap_inputs(model, operator, rng):
    a, b = pick(rng, [(0, i) for i in range(1, len(operator.inputs)) if operator.inputs[i] != operator.inputs[0]])
    operator.inputs[[a, b]] = operator.inputs[[b, a]]


def read_another(model, operator, rng):
    position = rng.integers(len(operator.inputs))
    others = [i for i in range(len(graph_of(model).tensors)) if i != operator.inputs[position]]
    operator.inputs[position] = pick(rng, others)


def leave_out_bias(model, operator, rng):
    operator.inputs[2] = -1


def drop_last_input(model, operator, rng):
    operator.inputs = operator.inputs[:-1]


def add_input(model, operator, rng):
    operator.inputs = [*operator.inputs, pick(rng, [-1, *range(len(graph_of(model).tensors))])]


def write_another(model, operator, rng):
    others = [i for i in range(len(graph_of(model).tensors)) if i != operator.outputs[0]]
    operator.outputs = [pick(rng, others)]


def add_output(model, operator, rng):
    operator.outputs = [*operator.outputs, rng.integers(len(graph_of(model).tensors))]


def write_before_the_first(model, rng) -> str:
    """Index -1 is Python's last tensor, but no tensor of a .tflite."""
    operator = graph_of(model).operators[-1]
    operator.outputs = [operator.outputs[0] - len(graph_of(model).tensors)]
    return NOWHERE


def keep_intermediates(model, operator, rng):
    operator.intermediates = [rng.integers(len(graph_of(model).tensors))]


def set_operator(**fields) -> Callable:
    def change(model, operator, rng):
        for field, value in fields.items():
            setattr(operator, field, value)

    return change


def set_option(**fields) -> Callable:
    def change(model, operator, rng):
        for field, value in fields.items():
            setattr(operator.builtinOptions, field, value)

    return change


def change_option(values, *fields: str) -> Callable:
    """One of the fields gets another one of the values."""

    def change(model, operator, rng):
        field = pick(rng, fields)
        present = getattr(operator.builtinOptions, field)
        setattr(operator.builtinOptions, field, pick(rng, [v for v in values if v != present]))

    return change


def change_options_type(model, operator, rng):
    """The same fields where they exist, under a type that the operator's kernel does not look for."""
    options = [schema.SubOptionsT, schema.Pool2DOptionsT, schema.PackOptionsT, schema.ReducerOptionsT]
    made = pick(rng, [o for o in options if not isinstance(operator.builtinOptions, o)])()
    for field in vars(made).keys() & vars(operator.builtinOptions).keys():
        setattr(made, field, getattr(operator.builtinOptions, field))
    operator.builtinOptions = made
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(made).__name__.removesuffix("T"))


def drop_operator(model, operator, rng):
    """Who read its output now reads its input."""
    source, skipped = operator.inputs[0], operator.outputs[0]
    graph_of(model).operators.remove(operator)
    for other in graph_of(model).operators:
        other.inputs = [source if i == skipped else i for i in other.inputs]
    graph_of(model).outputs = [source if i == skipped else i for i in graph_of(model).outputs]


def double_operator(model, operator, rng):
    operators = graph_of(model).operators
    operators.insert(operators.index(operator), copy.deepcopy(operator))


def swap_operators(model, rng) -> str | None:
    operators = graph_of(model).operators
    if len(operators) < 2:
        return None
    i = rng.integers(len(operators) - 1)
    operators[i], operators[i + 1] = operators[i + 1], operators[i]
    return name_of(model, operators[i].outputs[0])


# Changes to the model, its ends and its signature.


def move_end(ends: str) -> Callable:
    def mutate(model, rng) -> str:
        (present,) = getattr(graph_of(model), ends)
        others = [i for i in range(len(graph_of(model).tensors)) if i != present]
        setattr(graph_of(model), ends, [pick(rng, others)])
        return name_of(model, present)

    return mutate


def add_end(ends: str) -> Callable:
    def change(model, rng):
        setattr(graph_of(model), ends, [*getattr(graph_of(model), ends), rng.integers(len(graph_of(model).tensors))])

    return to_model(change)


def signature_entry(model, rng):
    (signature,) = model.signatureDefs
    return pick(rng, [*signature.inputs, *signature.outputs])


def rename_signature(model, rng):
    model.signatureDefs[0].signatureKey += b"_"


def rename_signature_entry(model, rng) -> str:
    entry = signature_entry(model, rng)
    entry.name += b"_"
    return name_of(model, entry.tensorIndex)


def point_signature_elsewhere(model, rng) -> str:
    entry = signature_entry(model, rng)
    present = entry.tensorIndex
    entry.tensorIndex = pick(rng, [i for i in range(len(graph_of(model).tensors)) if i != present])
    return name_of(model, present)


def move_signature_entry(model, rng) -> str:
    """The input is declared among the outputs, or the output among the inputs."""
    (signature,) = model.signatureDefs
    ends = [signature.inputs, signature.outputs]
    if rng.integers(2):
        ends.reverse()
    entry = ends[0].pop()
    ends[1].append(entry)
    return name_of(model, entry.tensorIndex)


def double_signature_entry(model, rng) -> str:
    (signature,) = model.signatureDefs
    entries = pick(rng, [signature.inputs, signature.outputs])
    entries.append(copy.deepcopy(entries[0]))
    return name_of(model, entries[0].tensorIndex)


def drop_signature(model, rng):
    model.signatureDefs = None


def sign_another_subgraph(model, rng):
    model.signatureDefs[0].subgraphIndex = 1


def add_subgraph(model, rng):
    model.subgraphs.append(copy.deepcopy(graph_of(model)))


def drop_subgraphs(model, rng):
    model.subgraphs = []


def fill_empty_buffer(model, rng):
    model.buffers[0].data = np.zeros(rng.integers(1, 9), np.uint8)


def change_schema_version(model, rng):
    model.version = pick(rng, [0, 1, 2, 4])


def add_metadata(model, rng):
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"min_runtime_version", 0
    model.metadata = [entry]


FUNCTIONS = range(6)  # ActivationFunctionType
MUTATIONS: dict[str, Callable] = {
    "weight code": to_tensor(constant_named("/kernel", INT8), change_code),
    "INT4 weight code": to_tensor(constant_named("/kernel", INT4), change_half_byte),
    "weight codes swapped": to_tensor(codes_differ, swap_codes),
    "bias": to_tensor(constant_named("/bias"), change_value),
    "reshape target": to_tensor(constant_named("/shape", INT32), change_value),
    "paddings": to_tensor(constant_named("/paddings", INT32), change_value),
    "first pixel kept": to_tensor(constant_named("/begin", INT32), change_value),
    "pixels kept": to_tensor(constant_named("/size", INT32), change_value),
    "sides of repeated pixels": to_tensor(constant_named("/sides", INT32), change_value),
    "mean axes": to_tensor(constant_named("/axes", INT32), change_value),
    "floor of a clip": to_tensor(constant_named("/minimum", INT8), change_code),
    "slope of a channel": to_tensor(constant_named("/slopes", INT8), change_code),
    "slope": to_operator(has("alpha"), next_slope),
    "kernel scale": to_tensor(constant_named("/kernel"), next_scale),
    "bias scale": to_tensor(constant_named("/bias"), next_scale),
    "activation scale": to_tensor(quantized_activation, next_scale),
    "scales of channels swapped": to_tensor(scales_differ, swap_scales),
    "one scale for all channels": to_tensor(scales_differ, one_scale_for_all),
    "activation zero point": to_tensor(quantized_activation, move_zero_point),
    "kernel zero point": to_tensor(constant_named("/kernel"), move_zero_point),
    "zero point of a channel": to_tensor(per_channel, move_zero_point),
    "zero points of all channels": to_tensor(per_channel, move_every_zero_point),
    "zero points cut": to_tensor(per_channel, cut_zero_points),
    "zero point left out": to_tensor(per_tensor, set_quantization(zeroPoint=None)),
    "scale left out": to_tensor(per_tensor, set_quantization(scale=None)),
    "quantization left out": to_tensor(per_tensor, leave_out_quantization),
    "quantization of activations swapped": swap_quantization,
    "channel axis": to_tensor(per_channel, move_axis),
    "axis of one scale": to_tensor(per_tensor, move_axis),
    "quantization in blocks": to_tensor(per_tensor, quantize_in_blocks),
    "quantization range": to_tensor(per_tensor, set_quantization(min=[0.0], max=[6.0])),
    "shape": to_tensor(every, change_shape),
    "type": to_tensor(every, change_type),
    "shape signature": to_tensor(every, free_the_batch),
    "variable": to_tensor(activation, set_tensor(isVariable=True)),
    "sparsity": to_tensor(is_constant, set_tensor(sparsity=schema.SparsityParametersT())),
    "external buffer": to_tensor(every, set_tensor(externalBuffer=1)),
    "variant": to_tensor(every, set_tensor(variantTensors=[schema.VariantSubTypeT()])),
    "name": to_tensor(every, rename),
    "names swapped": swap_names,
    "name of another": take_name_of_another,
    "another tensor": add_tensor,
    "constant made an activation": to_tensor(is_constant, set_tensor(buffer=0)),
    "activation made a constant": to_tensor(activation, fill_activation),
    "buffers swapped": swap_buffers,
    "buffer cut": to_tensor(is_constant, cut_buffer),
    "buffer lengthened": to_tensor(is_constant, lengthen_buffer),
    "buffer outside": to_tensor(is_constant, read_buffer_from_outside),
    "empty buffer filled": to_model(fill_empty_buffer),
    "operator replaced": to_operator(any_operator, replace_operator),
    "operator made custom": to_operator(any_operator, make_custom),
    "operator version": to_operator(any_operator, change_version),
    "custom code": to_operator(any_operator, name_custom_code),
    "custom options": to_operator(any_operator, set_operator(customOptions=[1])),
    "operator dropped": to_operator(any_operator, drop_operator),
    "requantization dropped": to_operator(is_kind("QuantizeOptions"), drop_operator),
    "clip dropped": to_operator(is_kind("MaximumMinimumOptions"), drop_operator),
    "operator doubled": to_operator(any_operator, double_operator),
    "operators swapped": swap_operators,
    "inputs swapped": to_operator(reads_two, swap_inputs),
    "input replaced": to_operator(any_operator, read_another),
    "bias left out": to_operator(has_bias, leave_out_bias),
    "input dropped": to_operator(any_operator, drop_last_input),
    "input added": to_operator(any_operator, add_input),
    "output replaced": to_operator(any_operator, write_another),
    "output added": to_operator(any_operator, add_output),
    "output of negative index": write_before_the_first,
    "intermediates": to_operator(any_operator, keep_intermediates),
    "variable inputs": to_operator(any_operator, set_operator(mutatingVariableInputs=[True])),
    "options left out": to_operator(any_operator, set_operator(builtinOptions=None, builtinOptionsType=0)),
    "options of another type": to_operator(any_operator, change_options_type),
    "activation function": to_operator(
        has("fusedActivationFunction"), change_option(FUNCTIONS, "fusedActivationFunction")
    ),
    "padding": to_operator(has("padding"), change_option([0, 1], "padding")),
    "stride": to_operator(has("strideH"), change_option([1, 2, 3], "strideH", "strideW")),
    "dilation": to_operator(has("dilationHFactor"), change_option([1, 2, 3], "dilationHFactor", "dilationWFactor")),
    "pool window": to_operator(has("filterWidth"), change_option([1, 2, 3, 4], "filterHeight", "filterWidth")),
    "centres of pixels": to_operator(has("halfPixelCenters"), change_option([False, True], "halfPixelCenters")),
    "kept dimensions": to_operator(has("keepDims"), change_option([False, True], "keepDims")),
    "concatenation axis": to_operator(has("axis"), change_option([-1, 0, 1, 2, 3], "axis")),
    "depth multiplier": to_operator(has("depthMultiplier"), change_option([0, 2, 3], "depthMultiplier")),
    "number of dimensions": to_operator(has("keepNumDims"), change_option([False, True], "keepNumDims")),
    "weights format": to_operator(has("weightsFormat"), set_option(weightsFormat=1)),
    "type of sums": to_operator(has("quantizedBiasType"), set_option(quantizedBiasType=schema.TensorType.INT64)),
    "scale of two powers": to_operator(has("potScaleInt16"), set_option(potScaleInt16=False)),
    "new shape": to_operator(has("newShape"), set_option(newShape=[1, -1])),
    "input end": move_end("inputs"),
    "output end": move_end("outputs"),
    "input end added": add_end("inputs"),
    "output end added": add_end("outputs"),
    "signature renamed": to_model(rename_signature),
    "signature entry renamed": rename_signature_entry,
    "signature points elsewhere": point_signature_elsewhere,
    "signature entry at the wrong end": move_signature_entry,
    "signature entry doubled": double_signature_entry,
    "signature dropped": to_model(drop_signature),
    "signature of another subgraph": to_model(sign_another_subgraph),
    "subgraph added": to_model(add_subgraph),
    "subgraph dropped": to_model(drop_subgraphs),
    "schema version": to_model(change_schema_version),
    "metadata": to_model(add_metadata),
}


# Kinds that few files have a place for, the residual network least of all: tried in every file.
RARE = (
    "reshape target",
    "new shape",
    "paddings",
    "floor of a clip",
    "clip dropped",
    "pool window",
    "first pixel kept",
    "pixels kept",
    "sides of repeated pixels",
    "centres of pixels",
    "concatenation axis",
    "slope",
    "slope of a channel",
)


@pytest.fixture(scope="session")
def tally() -> Counter:
    """(kind, "refused", "got through" or "not possible") -> number, and the number of "files"."""
    return Counter()


def storages(exported) -> list[IntegerGraph]:
    """The graph in each form that a file may have, once."""
    stored = [store(exported.graph, storage, TARGETS["phone"]) for storage in ("int8", "int4", "int4_all")]
    stored.append(rebuild(exported.handoff, "int8", "MAXIMUM"))
    return list({convert(form, ""): form for form in stored}.values())


def lines_of(content: bytes, graph: IntegerGraph, handoff) -> list[str]:
    """What the verification says of a file before it runs it."""
    try:
        found = read_back(content)
    except ValueError as error:
        return [str(error)]
    return refusals(graph, found, handoff)


def names(line: str, tensor: str) -> bool:
    return tensor == NOWHERE or re.search(rf"(?<![\w/]){re.escape(tensor)}(?![\w/])", line) is not None


def got_through(graph: IntegerGraph, handoff, edit, kinds, rng, tally) -> list[str]:
    """Mutations that nobody refused, or that were refused without a word of the tensor."""
    content = convert(graph, "")
    untouched = edit(content, lambda model: None)
    assert lines_of(untouched, graph, handoff) == []  # what refuses a mutant is not the packing
    tally["files"] += 1
    survivors = []
    for kind in kinds:
        damaged = []
        mutant = edit(content, lambda model, kind=kind, damaged=damaged: damaged.append(MUTATIONS[kind](model, rng)))
        (tensor,) = damaged
        if tensor is None:
            tally[kind, "not possible"] += 1
            continue
        assert mutant != untouched, kind  # the packing is deterministic, so some value is another
        lines = lines_of(mutant, graph, handoff)
        refused = any(names(line, tensor) for line in lines) and not any("\n" in line for line in lines)
        tally[kind, "refused" if refused else "got through"] += 1
        if not refused:
            survivors.append(f"{kind} of {tensor}: {lines}")
    return survivors


def test_random_mutations_are_refused_and_the_tensor_is_named(exported, edit, tally):
    rng = np.random.default_rng(zlib.crc32(exported.name.encode()))
    for graph in storages(exported):
        kinds = {*RARE, *rng.choice(list(MUTATIONS), MUTATIONS_A_FILE, replace=False).tolist()}
        assert got_through(graph, exported.handoff, edit, sorted(kinds), rng, tally) == []


def test_every_kind_of_mutation_of_a_residual_network_is_refused(residual, edit, tally):
    rng = np.random.default_rng(0)
    for graph in storages(residual):
        assert got_through(graph, residual.handoff, edit, MUTATIONS, rng, tally) == []


def test_mutations_of_every_kind_were_made_and_are_counted(tally, capsys):
    if not tally:
        pytest.skip("this run mutated no file")
    refused, through, impossible = (
        {kind: tally[kind, end] for kind in MUTATIONS} for end in ("refused", "got through", "not possible")
    )
    num_made = sum(refused.values()) + sum(through.values())
    with capsys.disabled():
        print(
            f"\nmutations: {num_made} made of {len(MUTATIONS)} kinds in {tally['files']} files, "
            f"{sum(refused.values())} refused with the tensor's name, {sum(through.values())} got through; "
            f"{sum(impossible.values())} drawn that the file has no place for. Refused by kind:"
        )
        print(textwrap.fill(", ".join(f"{kind} {number}" for kind, number in refused.items()), 120))
    assert sum(through.values()) == 0
    assert num_made >= 600
    assert [kind for kind, number in refused.items() if number == 0] == []
