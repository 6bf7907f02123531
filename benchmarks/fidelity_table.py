"""The table of runtimes in docs/fidelity.md: python -m benchmarks.fidelity_table runs/NAME ...

Exports each finished run for a phone and asks every runtime for the whole test split. Writes the verification into
benchmarks/fidelity/NAME.json and prints a table of all that lie there. Minutes a run; what else runs does not matter.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import pathlib
import sys

from benchmarks import kept_results
from tflite_export.exporter import export

RESULTS = pathlib.Path(__file__).parent / "fidelity"
HEADER = (
    "run",
    "Keras student, top-1, %",
    "runtime",
    "file, top-1, %",
    "agreement with the student, %",
    "with the student in the runtime's integers, %",
    "integers of all operators equal, %",
    "logits off by one, %",
)


def rows(numbers: dict) -> list[tuple[str, ...]]:
    lines = []
    for name, row in numbers["runtimes"].items():
        run, top1 = ("", "") if lines else (numbers["run"], f"{numbers['student']['top1']:.2f}")
        if "not_run" in row:
            lines.append((run, top1, name, row["not_run"], *[""] * 4))
            continue
        shares = (
            row["student"]["top1_agreement"],
            row["integer_student"]["top1_agreement"],
            row["operators"]["equal_codes"],
            row["integer_student"]["off_by_one"],
        )
        lines.append((run, top1, name, f"**{row['top1']:.2f}**", *(f"{share:.2f}" for share in shares)))
    return lines


def measure(run_dir: pathlib.Path) -> dict:
    verification = export(run_dir, "phone")
    verification.pop("tensors")
    return {"run": run_dir.name, **verification}


def main(run_dirs: list[str]) -> None:
    kept_results.of_runs(run_dirs, measure, RESULTS, HEADER, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
