"""Proves that a .tflite is what was trained: read back, compared tensor by tensor, and run on every runtime."""

import collections
import dataclasses
import hashlib
import time
import zlib
from collections.abc import Sequence

import numpy as np

from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import Target
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.flatbuffer.parts import parts
from tflite_export.flatbuffer.read_back import description, read_back
from tflite_export.flatbuffer.weight_storage import stored_as
from tflite_export.inference.runtimes import RUNTIMES, absence, infer, invalid
from tflite_export.load import Handoff
from tflite_export.proof.asking import ask, percent
from tflite_export.proof.comparison import refusals
from tflite_export.proof.gate import outside_grid, shortfalls

FORMAT = 3
NUM_COMPRESSED_IMAGES = 200


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
      expected: the graph that `rebuild` builds from the handoff; the file may store kernels as INT4.
      runtimes: names of the runtimes to run. The target's judge always runs.

    Returns:
      The verification as JSON values, described in docs/verification.md; and by runtime the class that the file gives
      each test image, int32 [N, ...].
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
    rows: dict[str, dict] = {}
    classes: dict[str, np.ndarray] = {}
    seen: dict[str, np.ndarray] = {}
    notes = list(expected.notes)
    file, kernels, multiply_adds = _file(content), list[dict](), None
    if not failures:  # a file that is another network is not worth an hour of inference
        kernels = [_kernel(*pair, expected) for pair in found.kernels()]
        file["parts"], multiply_adds = parts(found, len(content)), found.multiply_adds
        for name in RUNTIMES:
            if name == judge or name in runtimes:
                rows[name], integers, logits = ask(name, content, found, handoff)
                seen = seen or integers
                if logits is not None:
                    classes[name] = np.argmax(logits, axis=-1).astype(np.int32)
                failures += shortfalls(name, rows[name], judge, gate)
                failures += outside_grid(name, integers, handoff.tensor_params)
        notes += remarks(rows, judge, target, len(handoff.test_labels), gate)
    verification = {
        "format": FORMAT,
        "passed": not failures,
        "failures": failures,
        "notes": notes,
        "gate": dataclasses.asdict(gate),
        "target": target.title,
        "judge": judge,
        "num_images": len(handoff.test_labels),
        "student": {"top1": percent(np.argmax(handoff.student_logits, axis=-1) == handoff.test_labels)},
        "runtimes": rows,
        "file": file,
        "multiply_adds": multiply_adds,
        "operators": dict(collections.Counter(operator.kind for operator in found.operators)),
        "weights": {"true_width_bytes": true_width_bytes(handoff)},
        "kernels": kernels,
        "tensors": [_row(tensor, handoff, seen) for tensor in found.tensors.values()],
        "seconds": time.monotonic() - start,
    }
    return verification, classes


def unlike(content: bytes, found: IntegerGraph, expected: IntegerGraph, handoff: Handoff, target: Target) -> list[str]:
    """A line for each way in which a file is not what the exporter writes for the handoff.

    Interpreters are native code that an untrusted flatbuffer may crash. So only bytes that the exporter itself would
    write, except for the description, ever reach one.

    Args:
      found: what `read_back` finds in `content`.
    """
    stored = stored_as(expected, found, target)
    lines = refusals(stored, found, handoff)
    if not lines and content != convert(stored, description(content)):
        lines = [
            "all tensors and operators are as expected, but the bytes are not packed as this version packs them; "
            "if another version exported the file, export it again"
        ]
    return lines


# Row of ARITHMETICS for INT4 convolutions -> the processors on which LiteRT computes such a file by another row.
INT4_ROWS = {"litert_int4": "ARM64", "litert_int4_arm64": "x86-64"}


def remarks(rows: dict, judge: str, target: Target, num_images: int, gate: Gate) -> list[str]:
    """Notes on the runtimes, beyond the verdict."""
    lines = []
    if judge != target.judges[0]:
        lines.append(f"{judge} judged the file in place of {target.judges[0]}, which could not run it")
    for name, row in rows.items():
        if "not_run" in row:
            lines.append(f"{name} did not run the file: {row['not_run']}")
        elif not row["operators"]["num_tensors"]:
            lines.append(f"{name} cannot keep so many tensors apart, so only its logits were compared")
        elif "unpacked" in row:
            lines.append(f"{name} has no INT4 kernels for this file, so it ran the same integers as int8")
        if row.get("num_images", num_images) < num_images:
            lines.append(
                f"{name} ran only the first {row['num_images']:,} of the {num_images:,} test images, since it is slow "
                "here"
            )
    row = rows[judge]
    if "accuracy" in row and (doubt := gate.doubt(row["accuracy"])):
        lines.append(
            f"{doubt}: p is the probability that an equally good file falls this far behind on "
            f"{row['accuracy']['num_images']:,} images; test on more to be sure"
        )
    if row["arithmetic"] != "litert" and "not_run" not in row:
        found = row["accuracy"]
        lines.append(
            f"{judge} rounds twice where training rounds once: on {found['num_images']:,} images the student's top-1 "
            f"is {found['student_top1']:.2f} % in floating point and {found['top1']:.2f} % in the integers of {judge}"
        )
    if row["arithmetic"] in INT4_ROWS:
        lines.append(
            f"LiteRT rounds INT4 convolutions differently on {INT4_ROWS[row['arithmetic']]}, and may compute other "
            "integers there; --weight_storage=int4 avoids that"
        )
    return lines


def verify_compressed(content: bytes, plain: bytes, handoff: Handoff) -> dict:
    """Whether a lookup-table file computes the plain file's integers on TFLM."""
    images = handoff.test_images[:NUM_COMPRESSED_IMAGES]
    found = read_back(plain)
    (expected, _), (logits, facts) = (infer("tflm", found, file, images) for file in (plain, content))
    steps = np.abs(logits.astype(np.int32) - expected)
    return {
        "passed": not steps.any(),
        "num_images": len(images),
        "equal_logits": percent(steps == 0),
        **facts,
        "file": _file(content),
    }


def _kernel(operator: Operator, kernel: Tensor, expected: IntegerGraph) -> dict:
    """verification.json's entry on how a kernel is stored; without a reason if only the file is known."""
    return {
        "name": kernel.name,
        "operator": operator.kind,
        "type": kernel.dtype,
        "bytes": kernel.num_bytes,
        "why": expected.storage.get(kernel.name, ""),
    }


def _row(tensor: Tensor, handoff: Handoff, seen: dict[str, np.ndarray]) -> dict:
    """verification.json's entry on a tensor."""
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


def true_width_bytes(handoff: Handoff) -> int:
    """Bytes of all kernels' integers at their trained bit widths, packed without gaps."""
    bits = sum(codes.size * handoff.weight_params[name].grid.num_bits for name, codes in handoff.weights.items())
    return -(-bits // 8)


def _file(content: bytes) -> dict:
    deflated = len(zlib.compress(content, level=9))
    return {"bytes": len(content), "deflated_bytes": deflated, "sha256": hashlib.sha256(content).hexdigest()}
