"""The verdict on a file, printed for people."""

import pathlib
import sys

MAX_LINES, MAX_WIDTH = 100, 1_000


def print_verdict(verification: dict, path: pathlib.Path) -> bool:
    """Notes, a line for each runtime, and failures on stderr; returns whether the file passed."""
    for note in verification.get("notes", ()):
        print(f"note: {note}")
    failures = verification["failures"]
    for failure in failures[:MAX_LINES]:
        print(f"FAILED: {_printable(failure)}", file=sys.stderr)
    if len(failures) > MAX_LINES:
        print(f"FAILED: {len(failures) - MAX_LINES} more", file=sys.stderr)
    if verification["passed"]:
        print(
            f"{path}: {verification['file']['bytes']:,} bytes; on {verification['num_images']:,} test images the "
            f"Keras student's top-1 is {verification['student']['top1']:.2f} %"
        )
        for name, row in verification["runtimes"].items():
            if "not_run" not in row:
                print(f"{name}: {runtime_line(row)}")
    if compressed := verification.get("compressed"):
        print(
            f"{path.with_suffix('.compressed.tflite')}: {compressed['file']['bytes']:,} bytes, "
            f"{compressed['equal_logits']:.2f} % of the plain file's logits on {compressed['num_images']} images"
        )
    return verification["passed"]


def _printable(text: str) -> str:
    """On one line, of bounded length: a stranger's file may name its tensors as it likes."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:MAX_WIDTH])
    return shown + "…" * (len(text) > MAX_WIDTH)


def runtime_line(row: dict) -> str:
    """A runtime's row of the verification, for people."""
    return (
        f"top-1 {row['top1']:.2f} %, agreement with the student {row['student']['top1_agreement']:.2f} %, with the "
        f"student in its integers {row['integer_student']['top1_agreement']:.2f} %; "
        f"{row['operators']['equal_codes']:.3f} % of the operators' integers as in NumPy; "
        f"{1000 * row['median_seconds']:.3g} ms an image here"
    )
