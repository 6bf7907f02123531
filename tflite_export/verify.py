"""Proves that a .tflite is what was trained: read back, compared tensor by tensor, and run."""

import collections
import dataclasses
import hashlib
import time

import numpy as np
import tf_keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tqdm import tqdm

from tflite_export.graph import IntegerGraph, Operator, Tensor
from tflite_export.load import ExportError, Handoff
from tflite_export.read_back import read_back

FORMAT = 1
INTEGER_TYPES = ("int8", "uint8", "int32")
NUM_GRID_IMAGES = 32
ROUNDING = 1e-9  # percent; shares of the same images are equal in spite of floating point


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a file must reach against the quantized Keras student on the test split.

    Attributes:
      max_top1_difference: points of top-1, in percent.
      min_top1_agreement: share of images with equal top-1, in percent.
    """

    max_top1_difference: float = 0.2
    min_top1_agreement: float = 99.5


def verify(content: bytes, expected: IntegerGraph, handoff: Handoff, gate: Gate) -> dict:
    """Checks a file against the handoff.

    Args:
      content: the .tflite.
      expected: the graph that `rebuild` makes of the handoff.

    Returns:
      The verification as JSON values: "passed", "failures" (a line each, tensors named), "tensors",
      "operators", "tflite" and "student" accuracy, and what the file weighs.

    Raises:
      ExportError: the LiteRT interpreter does not take the file.
    """
    start = time.monotonic()
    try:
        found = read_back(content)
    except ValueError as error:
        return {"format": FORMAT, "passed": False, "failures": [str(error)]}
    failures = refusals(expected, found, handoff)
    accuracy, seen = {}, {}
    if not failures:  # a file that is another network is not worth an hour of inference
        seen = activation_integers(content, handoff)
        failures += outside_grid(seen, handoff)
        logits = run_litert(content, handoff.test_images)
        accuracy = compare(logits, handoff)
        drop = accuracy["student"]["top1"] - accuracy["tflite"]["top1"]
        if abs(drop) > gate.max_top1_difference + ROUNDING:
            failures.append(
                f"top-1 differs by {drop:.2f} points from the student's; {gate.max_top1_difference} are allowed"
            )
        if accuracy["tflite"]["top1_agreement"] < gate.min_top1_agreement - ROUNDING:
            failures.append(
                f"top-1 agreement with the student is {accuracy['tflite']['top1_agreement']:.2f} %; "
                f"{gate.min_top1_agreement} % are demanded"
            )
    return {
        "format": FORMAT,
        "passed": not failures,
        "failures": failures,
        "notes": expected.notes,
        "gate": dataclasses.asdict(gate),
        **accuracy,
        "file": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "operators": dict(collections.Counter(operator.kind for operator in found.operators)),
        "tensors": [_row(tensor, handoff, seen) for tensor in found.tensors.values()],
        "seconds": time.monotonic() - start,
    }


def refusals(expected: IntegerGraph, found: IntegerGraph, handoff: Handoff) -> list[str]:
    """A line for each way in which a file is not what training handed over, told without running it."""
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
        lines.append(f"tensor {name} was not asked for")
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
    """Kernels and activations that differ from the handoff itself, whatever `rebuild` made of it.

    Kernels hold the integers that training wrote, shifted as their width asks, but for the sign of a
    whole channel (a negative gamma) and channels of zeros; activations have training's scale and zero point.
    """
    lines = []
    for name, params in handoff.weight_params.items():
        tensor = found.tensors.get(f"{name}/kernel")
        if tensor is None or tensor.data is None:
            lines.append(f"tensor {name}/kernel holds no integers")
            continue
        data = tensor.data.astype(np.int32)
        unit = 1 << params.grid.weight_shift
        lowest, highest = params.grid.qmin * unit, params.grid.qmax * unit
        if data.min() < lowest or data.max() > highest:
            lines.append(
                f"tensor {name}/kernel spans {data.min()}..{data.max()}; "
                f"{params.grid.num_bits} bits are {lowest}..{highest}"
            )
        trained = handoff.weights[name].astype(np.int32) * unit
        depthwise = isinstance(handoff.student.get_layer(name), tf_keras.layers.DepthwiseConv2D)
        channels = np.moveaxis(data, 3, 0) if depthwise else data
        expected = np.moveaxis(trained, 2 if depthwise else -1, 0)
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
                f"tensor {name} has not the scale {params.scale} and zero point {params.zero_point} of training"
            )
    return lines


def activation_integers(content: bytes, handoff: Handoff) -> dict[str, np.ndarray]:
    """The integers that occur in each activation on the first NUM_GRID_IMAGES test images, reference kernels.

    The default kernels keep inner tensors to themselves.
    """
    interpreter = _interpreter(
        content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    index = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    seen = {name: np.array([], np.int8) for name in handoff.tensor_params}
    for _ in _invocations(interpreter, handoff.test_images[:NUM_GRID_IMAGES]):
        for name in seen:
            seen[name] = np.union1d(seen[name], interpreter.get_tensor(index[name]))
    return seen


def outside_grid(seen: dict[str, np.ndarray], handoff: Handoff) -> list[str]:
    """Activations with integers outside their bit width."""
    return [
        f"tensor {name} spans {seen[name].min()}..{seen[name].max()}; "
        f"its grid is {params.stored_min}..{params.stored_max}"
        for name, params in handoff.tensor_params.items()
        if seen[name].min() < params.stored_min or seen[name].max() > params.stored_max
    ]


def run_litert(content: bytes, images: np.ndarray) -> np.ndarray:
    """Logits, int8 [N, K], of LiteRT's default interpreter (XNNPACK), one image at a time.

    Args:
      images: [N, H, W, C] uint8 pixels.

    Raises:
      ExportError: the interpreter does not take the file.
    """
    interpreter = _interpreter(content)
    output = interpreter.get_output_details()[0]["index"]
    bar = tqdm(_invocations(interpreter, images), desc="verify: LiteRT", total=len(images), unit="image", mininterval=1)
    return np.stack([interpreter.get_tensor(output)[0].copy() for _ in bar])


def compare(logits: np.ndarray, handoff: Handoff) -> dict:
    """Accuracy of the file and of the student, and how far they agree."""
    predicted, student = (np.argmax(codes, axis=-1) for codes in (logits, handoff.student_logits))
    steps = np.abs(logits.astype(np.int32) - handoff.student_logits)
    return {
        "num_images": len(logits),
        "tflite": {
            "runtime": "LiteRT, default delegates (XNNPACK)",
            "top1": _percent(predicted == handoff.test_labels),
            "top1_agreement": _percent(predicted == student),
            "equal_logits": _percent(steps == 0),
            "max_step_error": int(steps.max()),
        },
        "student": {"top1": _percent(student == handoff.test_labels)},
    }


def _interpreter(content: bytes, **options) -> Interpreter:
    try:
        interpreter = Interpreter(model_content=content, **options)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"the LiteRT interpreter does not take the file: {str(error).splitlines()[0]}") from error
    return interpreter


def _invocations(interpreter: Interpreter, images: np.ndarray):
    """Runs image after image; yields after each, when the output can be read."""
    detail = interpreter.get_input_details()[0]
    shift = 128 if detail["dtype"] == np.int8 else 0
    for image in images:
        interpreter.set_tensor(detail["index"], (image.astype(np.int16) - shift).astype(detail["dtype"])[np.newaxis])
        try:
            interpreter.invoke()
        except RuntimeError as error:
            raise ExportError(f"the LiteRT interpreter stopped: {str(error).splitlines()[0]}") from error
        yield image


def _tensor_differences(expected: Tensor, found: Tensor) -> list[str]:
    lines = []
    for field in ("shape", "dtype", "zero_point", "axis"):
        if getattr(expected, field) != getattr(found, field):
            lines.append(
                f"tensor {found.name} has {field} {getattr(found, field)}; expected {getattr(expected, field)}"
            )
    if not np.array_equal(expected.scales, found.scales):
        lines.append(f"tensor {found.name} has other scales than expected")
    if (expected.data is None) != (found.data is None):
        lines.append(f"tensor {found.name} is {'an activation' if found.data is None else 'a constant'}")
    elif expected.data is not None and not np.array_equal(expected.data, found.data):
        num_different = np.sum(expected.data != found.data) if expected.data.shape == found.data.shape else "all"
        lines.append(f"tensor {found.name} has {num_different} other integers than expected")
    return lines


def _row(tensor: Tensor, handoff: Handoff, seen: dict[str, np.ndarray]) -> dict:
    """What verification.json says of a tensor."""
    layer = tensor.name.removesuffix("/kernel")
    params = handoff.tensor_params.get(tensor.name) or handoff.weight_params.get(layer)
    row = {
        "name": tensor.name,
        "type": tensor.dtype,
        "shape": list(tensor.shape),
        "scale": [float(s) for s in tensor.scales],
        "zero_point": tensor.zero_point,
        "axis": tensor.axis,
    }
    if params is not None:
        row["num_bits"] = params.grid.num_bits
    if tensor.data is not None:
        row["num_levels"] = len(np.unique(tensor.data))
    elif tensor.name in seen:
        row["num_levels"] = len(seen[tensor.name])
    return row


def _percent(hits: np.ndarray) -> float:
    return 100.0 * float(np.mean(hits))


def _text(operator: Operator | None) -> str:
    if operator is None:
        return "absent"
    options = "".join(f", {name}={value}" for name, value in sorted(operator.options.items()))
    return f"{operator.kind}({', '.join(operator.inputs)}{options}) -> {operator.output}"
