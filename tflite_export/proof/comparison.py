"""Compares a file with what training handed over, tensor by tensor and bit by bit, without running it."""

import numpy as np
import tf_keras

from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.load import Handoff

INTEGER_TYPES = ("int4", "int8", "uint8", "int32")


def refusals(expected: IntegerGraph, found: IntegerGraph, handoff: Handoff) -> list[str]:
    """A line for each way in which a file is not what training handed over, found without running it."""
    return differences(expected, found) + foreign(found) + not_handed_over(found, handoff)


def differences(expected: IntegerGraph, found: IntegerGraph) -> list[str]:
    """A line for each tensor, operator, input or output that is not as expected, bit for bit."""
    lines = []
    for end in ("input", "output", "signature"):
        if getattr(expected, end) != getattr(found, end):
            lines.append(f"the {end} is {getattr(found, end)}; expected {getattr(expected, end)}")
    for name in expected.tensors.keys() - found.tensors.keys():
        lines.append(f"tensor {name} is missing")
    for name in found.tensors.keys() - expected.tensors.keys():
        lines.append(f"tensor {name} is not expected")
    for name in expected.tensors.keys() & found.tensors.keys():
        lines += _tensor_differences(expected.tensors[name], found.tensors[name])
    for position in range(max(len(expected.operators), len(found.operators))):
        pair = [g.operators[position] if position < len(g.operators) else None for g in (expected, found)]
        if pair[0] != pair[1]:
            lines.append(f"operator {position} is {_text(pair[1])}; expected {_text(pair[0])}")
    return sorted(lines)


def foreign(found: IntegerGraph) -> list[str]:
    """Tensors that are not integer, and operators that convert to or from float."""
    lines = [f"tensor {t.name} is {t.dtype}" for t in found.tensors.values() if t.dtype not in INTEGER_TYPES]
    return lines + [f"operator DEQUANTIZE makes {o.output}" for o in found.operators if o.kind == "DEQUANTIZE"]


def not_handed_over(found: IntegerGraph, handoff: Handoff) -> list[str]:
    """Kernels and activations that differ from the handoff itself, independent of `rebuild`.

    Kernels must hold the integers that training wrote, shifted as their bit width requires, except for the sign of a
    whole channel (a negative gamma) and channels of zeros. Activations must have training's scale and zero point.
    """
    lines = []
    for name, params in handoff.weight_params.items():
        tensor = found.tensors.get(f"{name}/kernel")
        if tensor is None or tensor.data is None:
            lines.append(f"tensor {name}/kernel holds no integers")
            continue
        data = tensor.data.astype(np.int32)
        unit = 1 << params.grid.weight_shift
        highest = max(-params.grid.qmin, params.grid.qmax) * unit  # a full range may be turned round
        lowest = -highest
        if data.min() < lowest or data.max() > highest:
            lines.append(
                f"tensor {name}/kernel spans {data.min()}..{data.max()}; "
                f"{params.grid.num_bits} bits are {lowest}..{highest}"
            )
        trained = handoff.weights[name].astype(np.int32) * unit
        depthwise = isinstance(handoff.student.get_layer(name), tf_keras.layers.DepthwiseConv2D)
        channels = np.moveaxis(data, -1, 0) if depthwise else data
        trained = trained.reshape(*trained.shape[:2], -1) if depthwise else trained
        expected = np.moveaxis(trained, -1, 0)
        kept = [
            np.array_equal(c.ravel(), e.ravel()) or np.array_equal(c.ravel(), -e.ravel()) or not c.any()
            for c, e in zip(channels, expected, strict=False)
        ]
        if len(channels) != len(expected) or not all(kept):
            lines.append(f"tensor {name}/kernel holds other integers than training wrote")
    for name, params in handoff.tensor_params.items():
        tensor = found.tensors.get(name)
        if tensor is None or tensor.scales.tolist() != [params.scale] or tensor.zero_point != params.zero_point:
            lines.append(
                f"tensor {name} does not have the scale {params.scale} and zero point {params.zero_point} of training"
            )
    return lines


def _tensor_differences(expected: Tensor, found: Tensor) -> list[str]:
    lines = []
    for field in ("shape", "dtype", "zero_point", "axis"):
        if getattr(expected, field) != getattr(found, field):
            lines.append(
                f"tensor {found.name} has {field} {getattr(found, field)}; expected {getattr(expected, field)}"
            )
    if not np.array_equal(expected.scales, found.scales):
        lines.append(f"tensor {found.name} has other scales than expected")
    if expected.data is None or found.data is None:
        if expected.data is not found.data:
            lines.append(f"tensor {found.name} is {'an activation' if found.data is None else 'a constant'}")
    elif not np.array_equal(expected.data, found.data):
        num_different = np.sum(expected.data != found.data) if expected.data.shape == found.data.shape else "all"
        lines.append(f"tensor {found.name} has {num_different} other integers than expected")
    return lines


def _text(operator: Operator | None) -> str:
    if operator is None:
        return "absent"
    options = "".join(f", {name}={value}" for name, value in sorted(operator.options.items()))
    return f"{operator.kind}({', '.join(operator.inputs)}{options}) -> {operator.output}"
