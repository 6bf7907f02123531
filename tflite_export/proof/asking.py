"""Runs a file on a runtime, and compares the results with the predictions."""

import math
from collections.abc import Iterable

import numpy as np

from qkd_tf.contract.chance import paired
from qkd_tf.contract.runtime_arithmetic import row_of
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph
from tflite_export.flatbuffer.weight_storage import unpacked
from tflite_export.inference.integer_reference import run_operator
from tflite_export.inference.runtimes import RUNTIMES, absence, every_tensor, infer, input_codes
from tflite_export.load import Handoff

# Pixels that LiteRT's reference kernels and TFLM are asked for, which take a second for a picture of 224 x 224: all of
# CIFAR-10's test split, or 204 such pictures.
SLOW_PIXELS = 10_000 * 32 * 32


def ask(
    name: str, content: bytes, found: IntegerGraph, handoff: Handoff
) -> tuple[dict, dict[str, np.ndarray], np.ndarray | None]:
    """Runs the file on a runtime; if it lacks INT4 kernels, with the same integers stored as int8.

    Returns:
      Its row of verification.json, the distinct integers of every tensor on the handoff's first images, and the logits
      of the test images. If the runtime is not installed or does not accept the file, the row has no numbers and the
      logits are None.
    """
    row, integers, logits = _ask(name, content, found, handoff)
    if "not_run" in row and absence(name) is None and any(t.dtype == "int4" for t in found.tensors.values()):
        plain = unpacked(found)
        row, integers, logits = _ask(name, convert(plain, ""), plain, handoff)
        row["unpacked"] = True
    return row, integers, logits


def _ask(
    name: str, content: bytes, found: IntegerGraph, handoff: Handoff
) -> tuple[dict, dict[str, np.ndarray], np.ndarray | None]:
    arithmetic = arithmetic_of(name, found)
    row: dict = {"title": RUNTIMES[name].title, "arithmetic": arithmetic}
    if arithmetic not in handoff.integer_codes:
        lack = (
            f"{name} cannot be checked: the handoff has no predictions for {arithmetic}; "
            "run python -m qkd_tf.train again, which writes them"
        )
        return {**row, "not_run": lack}, {}, None
    predicted = handoff.integer_codes[arithmetic]
    num_images = len(next(iter(predicted.values())))
    integer_logits = handoff.integer_logits[arithmetic]
    asked = num_asked(name, handoff)
    labels = handoff.test_labels[:asked]
    try:
        if reason := absence(name):
            raise ExportError(reason)
        codes = every_tensor(name, found, content, handoff.test_images[:num_images])
        logits, facts = infer(name, found, content, handoff.test_images[:asked])
    except ExportError as error:
        return {**row, "not_run": str(error)}, {}, None
    codes[found.input] = np.concatenate(list(input_codes(found, handoff.test_images[:num_images])))
    shown = [tensor for tensor in handoff.tensor_params if tensor in codes]
    known = codes.keys() | {tensor for tensor, values in found.tensors.items() if values.data is not None}
    operators = [o for o in found.operators if known.issuperset((o.output, *o.inputs))]
    ours = ((o.output, run_operator(found, o, codes, RUNTIMES[name].arithmetic)) for o in operators)
    row |= {
        "num_images": asked,
        "top1": percent(np.argmax(logits, axis=-1) == labels),
        "student": agreement(logits, handoff.student_logits[:asked], labels),
        "integer_student": integer_agreement(logits, integer_logits, labels),
        "accuracy": accuracy_of(logits, integer_logits, handoff),
        "codes": equal_codes((tensor, codes[tensor], predicted[tensor]) for tensor in shown),
        "operators": equal_codes((tensor, codes[tensor], expected) for tensor, expected in ours),
        "num_code_images": num_images,
        **facts,
    }
    return row, {tensor: np.unique(values) for tensor, values in codes.items()}, logits


def num_asked(name: str, handoff: Handoff) -> int:
    """Number of test images that a runtime gets: all for LiteRT's default kernels, the feasible number for others."""
    num_images, num_pixels = len(handoff.test_labels), math.prod(handoff.test_images.shape[1:-1])
    num_codes = len(next(iter(handoff.integer_codes[name].values())))
    return num_images if name == "litert" else min(num_images, max(num_codes, SLOW_PIXELS // num_pixels))


def accuracy_of(logits: np.ndarray, predicted: np.ndarray, handoff: Handoff) -> dict:
    """The file compared with the student in floating point: by its own logits, and by predictions for further images.

    If a file's integers were as predicted on every image that it ran, the prediction counts for the others.
    """
    known = np.concatenate([logits, predicted[len(logits) :]])
    student = np.argmax(handoff.student_logits[: len(known)], axis=-1)
    return paired(np.argmax(known, axis=-1), student, handoff.test_labels[: len(known)])


def arithmetic_of(name: str, found: IntegerGraph) -> str:
    """`row_of` for the kernels in the file."""
    convolutions = any(k.dtype == "int4" for operator, k in found.kernels() if operator.kind != "FULLY_CONNECTED")
    pointwise = any(operator.options.get("keep_num_dims") for operator in found.operators)
    return row_of(name, RUNTIMES[name].row, convolutions, pointwise)


def agreement(logits: np.ndarray, expected: np.ndarray, labels: np.ndarray) -> dict:
    """Top-1 of the expected logits, and how well logits [N, ..., K] agree with them."""
    steps = np.abs(logits.astype(np.int32) - expected)
    runner_up, first = np.moveaxis(np.sort(expected.astype(np.int32), axis=-1)[..., -2:], -1, 0)
    other = np.argmax(logits, axis=-1) != np.argmax(expected, axis=-1)
    return {
        "top1": percent(np.argmax(expected, axis=-1) == labels),
        "top1_agreement": percent(~other),
        "other_top1": int(np.sum(other)),
        "close_calls": int(np.sum(other & (first - runner_up <= 1))),
        "equal_logits": percent(steps == 0),
        "off_by_one": percent(steps == 1),
        "max_step_error": int(steps.max()),
    }


def integer_agreement(logits: np.ndarray, expected: np.ndarray, labels: np.ndarray) -> dict:
    """`agreement` with the predicted integers, on the images that have both, maybe only the first ones."""
    num_images = min(len(logits), len(expected))
    return {
        "num_images": num_images,
        **agreement(logits[:num_images], expected[:num_images], labels[:num_images]),
    }


def equal_codes(compared: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> dict:
    """Share of equal integers over tensors, and which tensors differ.

    Args:
      compared: (tensor, its integers, the expected ones) in order of execution, 8-bit; only one is held at a time.
    """
    differ = {}
    num_tensors = num_equal = num_integers = 0
    for name, values, expected in compared:
        error = np.abs(values.astype(np.int16) - expected)
        if error.any():
            differ[name] = {"equal_codes": percent(error == 0), "max_step_error": int(error.max())}
        num_tensors += 1
        num_equal += int(np.sum(error == 0))
        num_integers += error.size
    return {
        "num_tensors": num_tensors,
        "equal_codes": 100.0 * num_equal / num_integers if num_integers else 100.0,
        "max_step_error": max((row["max_step_error"] for row in differ.values()), default=0),
        "first_different": next(iter(differ), None),
        "different": differ,
    }


def percent(hits: np.ndarray) -> float:
    """The share of True, in percent."""
    return 100.0 * float(np.mean(hits))
