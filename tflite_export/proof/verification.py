"""Proves that a .tflite is what was trained: read back, compared tensor by tensor, and run on every runtime."""

import collections
import dataclasses
import hashlib
import math
import time
from collections.abc import Iterable, Sequence

import numpy as np

from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph, Tensor
from tflite_export.flatbuffer.read_back import description, read_back
from tflite_export.inference.integer_reference import run_operator
from tflite_export.inference.runtimes import RUNTIMES, absence, every_tensor, infer, input_codes, invalid
from tflite_export.load import ExportError, Handoff
from tflite_export.proof.accuracy import paired
from tflite_export.proof.comparison import refusals
from tflite_export.targets import Target, stored_as, unpacked

FORMAT = 3
NUM_COMPRESSED_IMAGES = 200
# Pixels that LiteRT's reference kernels and TFLM are asked for, which take a second for a picture of 224 x 224: all of
# CIFAR-10's test split, or 204 such pictures.
SLOW_PIXELS = 10_000 * 32 * 32
ROUNDING = 1e-9  # percent; shares of the same images are equal in spite of floating point


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a file must reach, beside having every integer that was predicted for it.

    It is refused where the target's judge finds it worse than the quantized student in training's arithmetic, real
    numbers on grids, by more than `max_top1_difference` points of top-1, and that is beyond chance: less probable, were
    both equally good, than `min_accuracy_p`. `accuracy` has the test.
    """

    max_top1_difference: float = 0.2
    min_accuracy_p: float = 0.001

    def finds_worse(self, accuracy: dict) -> bool:
        """Whether `accuracy.paired` tells of a file that is refused for it."""
        drop = accuracy["student_top1"] - accuracy["top1"]
        return drop > self.max_top1_difference + ROUNDING and accuracy["p"] < self.min_accuracy_p


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
                rows[name], integers, logits = ask(name, content, found, handoff)
                seen = seen or integers
                if logits is not None:
                    classes[name] = np.argmax(logits, axis=-1).astype(np.int32)
                failures += shortfalls(name, rows[name], judge, gate)
                failures += outside_grid(name, integers, handoff)
        notes += remarks(rows, judge, target, len(handoff.test_labels))
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
      Its row of verification.json, the different integers of every tensor on the handoff's first images, and the
      logits of the test images; without numbers and None where the runtime is not installed or does not take the file.
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
    ours = ((o.output, run_operator(found, o, codes, RUNTIMES[name].arithmetic)) for o in found.operators)
    row |= {
        "num_images": asked,
        "top1": _percent(np.argmax(logits, axis=-1) == labels),
        "student": agreement(logits, handoff.student_logits[:asked], labels),
        "integer_student": integer_agreement(logits, integer_logits, labels),
        "accuracy": accuracy_of(logits, integer_logits, handoff),
        "codes": equal_codes((tensor, codes[tensor], predicted[tensor]) for tensor in handoff.tensor_params),
        "operators": equal_codes((tensor, codes[tensor], expected) for tensor, expected in ours),
        "num_code_images": num_images,
        **facts,
    }
    return row, {tensor: np.unique(values) for tensor, values in codes.items()}, logits


def num_asked(name: str, handoff: Handoff) -> int:
    """How many of the test images a runtime is given: all of them LiteRT's default kernels, others what they can."""
    num_images, (height, width, _) = len(handoff.test_labels), handoff.test_images.shape[1:]
    num_codes = len(next(iter(handoff.integer_codes[name].values())))
    return num_images if name == "litert" else min(num_images, max(num_codes, SLOW_PIXELS // (height * width)))


def accuracy_of(logits: np.ndarray, predicted: np.ndarray, handoff: Handoff) -> dict:
    """The file beside the student in real numbers: its own logits, and what is predicted for images beyond them.

    A file whose integers are those predicted on every image that it ran is taken by its prediction on the others.
    """
    known = np.concatenate([logits, predicted[len(logits) :]])
    return paired(known, handoff.student_logits[: len(known)], handoff.test_labels[: len(known)])


def arithmetic_of(name: str, found: IntegerGraph) -> str:
    """The row of ARITHMETICS that a runtime computes the file in: INT4 convolutions are not XNNPACK's."""
    packed = any(kernel.dtype == "int4" for operator, kernel in found.kernels() if operator.kind != "FULLY_CONNECTED")
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
    """The same with the integers that were predicted, on the images that have both: the first ones where not all."""
    num_images = min(len(logits), len(expected))
    return {
        "num_images": num_images,
        **agreement(logits[:num_images], expected[:num_images], labels[:num_images]),
    }


def equal_codes(compared: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> dict:
    """Share of equal integers over tensors, and which tensors differ.

    Args:
      compared: (tensor, its integers, those that are expected) in the order of execution, 8-bit; one is held at a time.
    """
    differ = {}
    num_tensors = num_equal = num_integers = 0
    for name, values, expected in compared:
        error = np.abs(values.astype(np.int16) - expected)
        if error.any():
            differ[name] = {"equal_codes": _percent(error == 0), "max_step_error": int(error.max())}
        num_tensors += 1
        num_equal += int(np.sum(error == 0))
        num_integers += error.size
    return {
        "num_tensors": num_tensors,
        "equal_codes": 100.0 * num_equal / num_integers,
        "max_step_error": max((row["max_step_error"] for row in differ.values()), default=0),
        "first_different": next(iter(differ), None),
        "different": differ,
    }


def shortfalls(name: str, row: dict, judge: str, gate: Gate) -> list[str]:
    """A line for each demand of the gate that a runtime does not meet."""
    if "not_run" in row:
        if name == judge:
            return [f"{name} was to judge the file, and cannot: {row['not_run']}"]
        return [] if absence(name) else [row["not_run"]]
    lines, found = [], row["accuracy"]
    if name == judge and gate.finds_worse(found):
        lines.append(
            f"{name}: top-1 is {found['top1']:.2f} %, worse beyond chance than {found['student_top1']:.2f} %, the "
            f"student's in real numbers: of {found['num_images']:,} images {found['only_student_right']:,} are right "
            f"there alone, {found['only_file_right']:,} in the file alone, p = {found['p']:.2g}; "
            f"at least {gate.min_accuracy_p:g} is demanded"
        )
    expectations = (("operators", "its inputs make"), ("codes", "the student predicts"))
    differing = [(tensor, found, by) for key, by in expectations for tensor, found in row[key]["different"].items()]
    logits = row["integer_student"]
    differing.append(("of the logits", {**logits, "equal_codes": logits["equal_logits"]}, "the student predicts"))
    for tensor, found, by in differing:
        if found["max_step_error"] > 0:
            share = math.floor(1000 * found["equal_codes"]) / 1000  # 100.000 is said of nothing that differs
            lines.append(
                f"{name}: tensor {tensor} has {share:.3f} % of the integers that {by}, "
                f"up to {found['max_step_error']} steps apart"
            )
    return lines


def remarks(rows: dict, judge: str, target: Target, num_images: int) -> list[str]:
    """What a user should know of the runtimes beyond the verdict."""
    lines = []
    if judge != target.judges[0]:
        lines.append(f"{judge} judged the file in the place of {target.judges[0]}, which could not be asked")
    for name, row in rows.items():
        if "not_run" in row:
            lines.append(f"{name} tells nothing of the file: {row['not_run']}")
        elif "unpacked" in row:
            lines.append(f"{name} lacks INT4 kernels that the file needs; it was asked with the same integers as int8")
        if row.get("num_images", num_images) < num_images:
            lines.append(
                f"{name} was given the first {row['num_images']:,} of the {num_images:,} test images: it is slow here"
            )
    row = rows[judge]
    if row["arithmetic"] != "litert" and "not_run" not in row:
        found = row["accuracy"]
        lines.append(
            f"{judge} rounds twice where training rounds once: on {found['num_images']:,} images the student's top-1 "
            f"is {found['student_top1']:.2f} % in training's arithmetic and {found['top1']:.2f} % in {judge}'s"
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
        row["num_levels"] = len(seen[tensor.name])
    return row


def _percent(hits: np.ndarray) -> float:
    return 100.0 * float(np.mean(hits))


def _file(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
