"""Proves that a .tflite is what was trained: read back, compared tensor by tensor, and run on every runtime."""

import collections
import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence

import numpy as np

from tflite_export.comparison import refusals
from tflite_export.convert import convert
from tflite_export.graph import IntegerGraph, Tensor
from tflite_export.integer_reference import run_operator
from tflite_export.load import ExportError, Handoff
from tflite_export.read_back import description, read_back
from tflite_export.runtimes import RUNTIMES, absence, every_tensor, infer, input_codes, invalid
from tflite_export.targets import Target, kernels, stored_as, unpacked

FORMAT = 2
NUM_COMPRESSED_IMAGES = 200
ROUNDING = 1e-9  # percent; shares of the same images are equal in spite of floating point


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a file must reach on the test split.

    Attributes:
      max_top1_difference, min_top1_agreement: LiteRT's default kernels, which round as training does,
        against the quantized Keras student. Points of top-1; percent of images with equal top-1.
      max_integer_top1_difference, min_integer_agreement: every runtime against the same student computed in
        that runtime's integer arithmetic.
      min_equal_codes, max_step_error: each tensor on each runtime, against the student in that runtime's
        integers, and given the integers that its operator read there against our own integer interpreter; the
        logits of all images, against that student. Percent of integers; steps.
    """

    max_top1_difference: float = 0.2
    min_top1_agreement: float = 99.5
    max_integer_top1_difference: float = 0.05
    min_integer_agreement: float = 99.9
    min_equal_codes: float = 99.99
    max_step_error: int = 1


def verify(
    content: bytes,
    expected: IntegerGraph,
    handoff: Handoff,
    gate: Gate,
    target: Target,
    runtimes: Sequence[str] = tuple(RUNTIMES),
) -> dict:
    """Checks a file against the handoff: `examine`, without the classes."""
    return examine(content, expected, handoff, gate, target, runtimes)[0]


def examine(
    content: bytes,
    expected: IntegerGraph,
    handoff: Handoff,
    gate: Gate,
    target: Target,
    runtimes: Sequence[str] = tuple(RUNTIMES),
) -> tuple[dict, dict[str, np.ndarray]]:
    """Checks a file against the handoff.

    Args:
      content: the .tflite.
      expected: the graph that `rebuild` makes of the handoff; kernels may be stored in the file as INT4.
      runtimes: names of those to ask. The target's judge is always asked.

    Returns:
      The verification as JSON values, described in docs/verification.md; and by runtime the class that the file
      gives each test image there, int32 [N, ...].
    """
    start = time.monotonic()
    try:
        found = read_back(content)
    except ValueError as error:
        return {"format": FORMAT, "passed": False, "failures": [str(error)]}, {}
    failures = unlike(content, found, expected, handoff, target)
    if not failures and (reason := invalid(content)):
        failures = [reason]
    judge = next((name for name in target.judges if absence(name) is None), target.judges[-1])
    rows, classes, seen, notes = {}, {}, {}, list(expected.notes)
    if not failures:  # a file that is another network is not worth an hour of inference
        for name in RUNTIMES:
            if name == judge or name in runtimes:
                rows[name], codes, logits = ask(name, content, found, handoff)
                seen = seen or codes
                if logits is not None:
                    classes[name] = np.argmax(logits, axis=-1).astype(np.int32)
                failures += shortfalls(name, rows[name], judge, gate)
                failures += outside_grid(name, codes, handoff)
        notes += remarks(rows, judge, target)
    verification = {
        "format": FORMAT,
        "passed": not failures,
        "failures": failures,
        "notes": notes,
        "gate": dataclasses.asdict(gate),
        "target": target.title,
        "judge": judge,
        "num_images": len(handoff.test_labels),
        "student": {"top1": _percent(np.argmax(handoff.student_logits, axis=-1) == handoff.test_labels)},
        "runtimes": rows,
        "file": _file(content),
        "operators": dict(collections.Counter(operator.kind for operator in found.operators)),
        "tensors": [_row(tensor, handoff, seen) for tensor in found.tensors.values()],
        "seconds": time.monotonic() - start,
    }
    return verification, classes


def unlike(content: bytes, found: IntegerGraph, expected: IntegerGraph, handoff: Handoff, target: Target) -> list[str]:
    """A line for each way in which a file is not what the exporter writes of the handoff.

    Only bytes that are the exporter's own, but for the description, ever reach an interpreter: those are native code,
    which a stranger's flatbuffer may crash.

    Args:
      found: what `read_back` finds in `content`.
    """
    stored = stored_as(expected, found, target)
    lines = refusals(stored, found, handoff)
    if not lines and content != convert(stored, description(content)):
        lines = [
            "every tensor and operator is as expected, and yet the bytes are not as the exporter packs them; "
            "where another version exported the file, export it again"
        ]
    return lines


def ask(
    name: str, content: bytes, found: IntegerGraph, handoff: Handoff
) -> tuple[dict, dict[str, np.ndarray], np.ndarray | None]:
    """What a runtime makes of the file; where it lacks INT4 kernels, of the same integers stored as int8.

    Returns:
      Its row of verification.json, the integers of every tensor on the handoff's first images, and the logits of
      the test images; without numbers and None where the runtime is not installed or does not take the file.
    """
    row, codes, logits = _ask(name, content, found, handoff)
    if "not_run" in row and absence(name) is None and any(t.dtype == "int4" for t in found.tensors.values()):
        plain = unpacked(found)
        row, codes, logits = _ask(name, convert(plain, ""), plain, handoff)
        row["unpacked"] = True
    return row, codes, logits


def _ask(
    name: str, content: bytes, found: IntegerGraph, handoff: Handoff
) -> tuple[dict, dict[str, np.ndarray], np.ndarray | None]:
    arithmetic = arithmetic_of(name, found)
    row: dict = {"title": RUNTIMES[name].title, "arithmetic": arithmetic}
    predicted = handoff.integer_codes[arithmetic]
    num_images = len(next(iter(predicted.values())))
    integer_logits = handoff.integer_logits[arithmetic]
    asked = len(handoff.test_labels) if name == "litert" else len(integer_logits)
    labels = handoff.test_labels[:asked]
    try:
        if reason := absence(name):
            raise ExportError(reason)
        codes = every_tensor(name, found, content, handoff.test_images[:num_images])
        logits, facts = infer(name, found, content, handoff.test_images[:asked])
    except ExportError as error:
        return {**row, "not_run": str(error)}, {}, None
    codes[found.input] = np.concatenate(list(input_codes(found, handoff.test_images[:num_images])))
    ours = {o.output: run_operator(found, o, codes, RUNTIMES[name].arithmetic) for o in found.operators}
    row |= {
        "num_images": asked,
        "top1": _percent(np.argmax(logits, axis=-1) == labels),
        "student": agreement(logits, handoff.student_logits[:asked], labels),
        "integer_student": integer_agreement(logits, integer_logits, labels),
        "codes": equal_codes({tensor: codes[tensor] for tensor in handoff.tensor_params}, predicted),
        "operators": equal_codes({tensor: codes[tensor] for tensor in ours}, ours),
        "num_code_images": num_images,
        **facts,
    }
    return row, codes, logits


def arithmetic_of(name: str, found: IntegerGraph) -> str:
    """The row of ARITHMETICS that a runtime computes the file in: INT4 convolutions are not XNNPACK's."""
    packed = any(kernel.dtype == "int4" for operator, kernel in kernels(found) if operator.kind != "FULLY_CONNECTED")
    return "litert_int4" if name == "litert" and packed else name


def agreement(logits: np.ndarray, expected: np.ndarray, labels: np.ndarray) -> dict:
    """Top-1 of the expected logits, and how far [N, ..., K] integers agree with them."""
    steps = np.abs(logits.astype(np.int32) - expected)
    runner_up, first = np.moveaxis(np.sort(expected.astype(np.int32), axis=-1)[..., -2:], -1, 0)
    other = np.argmax(logits, axis=-1) != np.argmax(expected, axis=-1)
    return {
        "top1": _percent(np.argmax(expected, axis=-1) == labels),
        "top1_agreement": _percent(~other),
        "other_top1": int(np.sum(other)),
        "close_calls": int(np.sum(other & (first - runner_up <= 1))),
        "equal_logits": _percent(steps == 0),
        "off_by_one": _percent(steps == 1),
        "max_step_error": int(steps.max()),
    }


def integer_agreement(logits: np.ndarray, expected: np.ndarray, labels: np.ndarray) -> dict:
    """The same with the integers that were predicted, of the first images alone where there are many."""
    num_images = len(expected)
    top1 = _percent(np.argmax(logits[:num_images], axis=-1) == labels[:num_images])
    found = agreement(logits[:num_images], expected, labels[:num_images])
    return {"num_images": num_images, "top1_difference": found["top1"] - top1, **found}


def equal_codes(codes: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict:
    """Share of equal integers over tensors, and which tensors differ, in the order of execution."""
    steps = {name: np.abs(values.astype(np.int32) - expected[name]) for name, values in codes.items()}
    differ = {
        name: {"equal_codes": _percent(error == 0), "max_step_error": int(error.max())}
        for name, error in steps.items()
        if error.any()
    }
    total = sum(error.size for error in steps.values())
    return {
        "num_tensors": len(steps),
        "equal_codes": 100.0 * sum(int(np.sum(error == 0)) for error in steps.values()) / total,
        "max_step_error": max(int(error.max()) for error in steps.values()),
        "first_different": next(iter(differ), None),
        "different": differ,
    }


def shortfalls(name: str, row: dict, judge: str, gate: Gate) -> list[str]:
    """A line for each demand of the gate that a runtime does not meet."""
    if "not_run" in row:
        if name == judge:
            return [f"{name} was to judge the file, and cannot: {row['not_run']}"]
        return [] if absence(name) else [row["not_run"]]
    title = "the student in this runtime's integers"
    demands = [("integer_student", title, gate.max_integer_top1_difference, gate.min_integer_agreement)]
    if name == judge and row["arithmetic"] == "litert":
        demands.insert(0, ("student", "the student", gate.max_top1_difference, gate.min_top1_agreement))
    lines = []
    for key, title, max_difference, min_agreement in demands:
        drop = row[key].get("top1_difference", row[key]["top1"] - row["top1"])
        agreed, other, close = (row[key][what] for what in ("top1_agreement", "other_top1", "close_calls"))
        if not abs(drop) <= max_difference + ROUNDING:
            lines.append(f"{name}: top-1 differs by {drop:.2f} points from {title}; {max_difference} are allowed")
        if not agreed >= min_agreement - ROUNDING:
            lines.append(
                f"{name}: top-1 agreement with {title} is {agreed:.2f} %; {min_agreement} % are demanded; "
                f"on {close} of the {other} images that differ its two largest logits are at most one step apart"
            )
    expectations = (("operators", "its inputs make"), ("codes", "the student predicts"))
    differing = [(tensor, found, by) for key, by in expectations for tensor, found in row[key]["different"].items()]
    logits = row["integer_student"]
    differing.append(("of the logits", {**logits, "equal_codes": logits["equal_logits"]}, "the student predicts"))
    for tensor, found, by in differing:
        if found["equal_codes"] < gate.min_equal_codes or found["max_step_error"] > gate.max_step_error:
            lines.append(
                f"{name}: tensor {tensor} has {found['equal_codes']:.3f} % of the integers that {by}, "
                f"up to {found['max_step_error']} steps apart"
            )
    return lines


def remarks(rows: dict, judge: str, target: Target) -> list[str]:
    """What a user should know of the runtimes beyond the verdict."""
    lines = []
    if judge != target.judges[0]:
        lines.append(f"{judge} judged the file in the place of {target.judges[0]}, which could not be asked")
    for name, row in rows.items():
        if "not_run" in row:
            lines.append(f"{name} tells nothing of the file: {row['not_run']}")
        elif "unpacked" in row:
            lines.append(f"{name} lacks INT4 kernels that the file needs; it was asked with the same integers as int8")
    row = rows[judge]
    if row["arithmetic"] != "litert" and "not_run" not in row:
        lines.append(
            f"{judge} rounds twice where training rounds once: the student's top-1 is {row['student']['top1']:.2f} % "
            f"in training's arithmetic and {row['integer_student']['top1']:.2f} % in {judge}'s"
        )
    return lines


def verify_compressed(content: bytes, plain: bytes, handoff: Handoff) -> dict:
    """Whether a lookup-table file makes the integers of the plain one on TFLM."""
    images = handoff.test_images[:NUM_COMPRESSED_IMAGES]
    found = read_back(plain)
    (expected, _), (logits, facts) = (infer("tflm", found, file, images) for file in (plain, content))
    steps = np.abs(logits.astype(np.int32) - expected)
    return {
        "passed": not steps.any(),
        "num_images": len(images),
        "equal_logits": _percent(steps == 0),
        **facts,
        "file": _file(content),
    }


def outside_grid(name: str, seen: dict[str, np.ndarray], handoff: Handoff) -> list[str]:
    """A line for each activation with integers outside its bit width."""
    return [
        f"{name}: tensor {tensor} spans {seen[tensor].min()}..{seen[tensor].max()}; "
        f"its grid is {params.stored_min}..{params.stored_max}"
        for tensor, params in handoff.tensor_params.items()
        if tensor in seen and (seen[tensor].min() < params.stored_min or seen[tensor].max() > params.stored_max)
    ]


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
        row["num_levels"] = len(np.unique(seen[tensor.name]))
    return row


def _percent(hits: np.ndarray) -> float:
    return 100.0 * float(np.mean(hits))


def _file(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
