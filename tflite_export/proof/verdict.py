"""The verdict on a file, printed for people."""

import pathlib
import sys

from qkd_tf.contract.gate import Gate
from tflite_export.proof import room
from tflite_export.proof.remedies import remedies

MAX_LINES, MAX_WIDTH = 20, 1_000


def print_verdict(verification: dict, path: pathlib.Path, full_precision: float | None = None) -> bool:
    """Prints notes, a line per runtime and the verdict, and on stderr failures and what to do about them.

    Returns whether the file passed.

    Args:
      full_precision: top-1 of the float network on the test split, in percent, if known.
    """
    for note in (*verification.get("notes", ()), *verification.get("cautions", ())):
        print(f"note: {note}")
    failures = verification["failures"]
    for failure in failures[:MAX_LINES]:
        print(f"FAILED: {_printable(failure)}", file=sys.stderr)
    if len(failures) > MAX_LINES:
        print(f"FAILED: {len(failures) - MAX_LINES} more", file=sys.stderr)
    for remedy in remedies(verification):
        print(f"what to do: {remedy}", file=sys.stderr)
    if verification["passed"]:
        for name, row in verification["runtimes"].items():
            if "not_run" not in row:
                print(f"{name}: {runtime_line(row, name == verification['judge'])}")
    if compressed := verification.get("compressed"):
        print(
            f"{path.with_suffix('.compressed.tflite')}: {compressed['file']['bytes']:,} bytes, "
            f"{compressed['equal_logits']:.2f} % of its logits equal the plain file's on {compressed['num_images']} "
            "images"
        )
    if vela := verification.get("vela"):
        print(
            f"Vela's estimate for {vela['accelerator']}: {vela['cycles']:,} cycles per inference, "
            f"{vela['at_8_bits']['cycles']:,} with 8-bit weights"
        )
    if verification["passed"]:
        print(f"verified: {path}: {verification['file']['bytes']:,} bytes; {accuracy_line(verification)}", end="")
        print(f", full precision {full_precision:.2f} %" if full_precision is not None else "", end="")
        doubt = Gate(**verification["gate"]).doubt(verification["runtimes"][verification["judge"]]["accuracy"])
        print(f"; {doubt}" if doubt else "")
        for line in filter(
            None, (*room.lines(verification), room.without_limit(verification), room.in_all(verification))
        ):
            print(line)
    return verification["passed"]


def _printable(text: str) -> str:
    """Text on one line of bounded length: an untrusted file may name its tensors as it likes."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:MAX_WIDTH])
    return shown + "…" * (len(text) > MAX_WIDTH)


def accuracy_line(verification: dict) -> str:
    """Top-1 on the judge, beside the student's in floating point."""
    judge = verification["judge"]
    found = verification["runtimes"][judge]["accuracy"]
    line = f"top-1 {found['top1']:.2f} % on {found['num_images']:,} test images ({judge})"
    return f"{line}; student in floating point {found['student_top1']:.2f} %"


def equal_share(row: dict) -> float:
    """The smallest share, in percent, of integers that are as predicted: operators', tensors' or logits'."""
    codes = row["operators"]["equal_codes"], row["codes"]["equal_codes"]
    return min(*codes, row["integer_student"]["equal_logits"])


def runtime_line(row: dict, is_judge: bool = True) -> str:
    """A runtime's row of the verification, in one line.

    Args:
      is_judge: whether its classes are compared, too. On other runtimes they differ from the student's in floating
        point because these round differently, not because of a fault.
    """
    agreement = row["student"]["top1_agreement"]
    same = f"same class as the student in floating point on {agreement:.2f} % of {row['num_images']:,} images; "
    logits = f"the logits of {row['integer_student']['num_images']:,}"
    compared = f"all tensors of {row['num_code_images']:,} images, {logits}"
    if not row["operators"]["num_tensors"]:
        compared = f"{logits} images"
    return (
        f"{equal_share(row):.2f} % of the integers are as predicted ({compared}); {same if is_judge else ''}"
        f"{1000 * row['median_seconds']:.3g} ms per image on this computer"
    )
