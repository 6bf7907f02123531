"""The table of runtimes in docs/fidelity.md: python -m benchmarks.fidelity_table runs/NAME ...

Exports each finished run for a phone and asks every runtime for the whole test split. Writes the verification into
benchmarks/fidelity/NAME.json and prints a table of all that lie there. Minutes a run; what else runs does not matter.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import json
import pathlib
import sys

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


def main(run_dirs: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    for run_dir in map(pathlib.Path, run_dirs):
        verification = export(run_dir, "phone")
        verification.pop("tensors")
        (RESULTS / f"{run_dir.name}.json").write_text(
            json.dumps({"run": run_dir.name, **verification}, indent=1) + "\n"
        )
    lines = [HEADER, ("---",) * len(HEADER)]
    for file in sorted(RESULTS.glob("*.json")):
        lines += rows(json.loads(file.read_text()))
    for cells in lines:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
