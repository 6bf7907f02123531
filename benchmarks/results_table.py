"""The README's results: python -m benchmarks.results_table runs/NAME ...

Writes benchmarks/results/NAME.json for each finished and exported run, and prints a table of all
that lie there.
"""

import json
import pathlib
import sys

from benchmarks import kept_results

RESULTS = pathlib.Path(__file__).parent / "results"
HEADER = (
    "run",
    "student ← teacher",
    "bits",
    "TFLite top-1, %",
    "Keras student, on integer steps",
    "agreement",
    "bytes",
    "training, s",
    "machine",
)


def summary(run_dir: pathlib.Path) -> dict:
    """The numbers of one run, from its results.json and verification.json."""
    results = json.loads((run_dir / "results.json").read_text())
    verification = json.loads((run_dir / "export" / "verification.json").read_text())
    judged = verification["runtimes"][verification["judge"]]
    experiment = results["experiment"]
    phases = [
        {key: value for key, value in phase.items() if key not in ("history", "first_intervals")}
        for phase in results["phases"]
    ]
    return {
        "run": run_dir.name,
        "student": experiment["student"]["name"],
        "teacher": experiment["teacher"] and experiment["teacher"]["name"],
        "bits": "W{weight_bits}A{activation_bits}".format(**experiment["quantization"]),
        "passed": verification["passed"],
        "num_images": verification["num_images"],
        "tflite": {
            "runtime": judged["title"],
            "top1": judged["top1"],
            **{key: judged["student"][key] for key in ("top1_agreement", "equal_logits", "max_step_error")},
        },
        "student_top1": verification["student"]["top1"],
        "file": verification["file"],
        "operators": verification["operators"],
        "phases": phases,
        "seconds": results["seconds"],
        "seed": results["seed"],
        "data": results["data"],
        "machine": results["machine"],
        "versions": results["versions"],
    }


def row(numbers: dict) -> tuple[str, ...]:
    tflite = numbers["tflite"]
    return (
        f"`configs/{numbers['run']}.flags`",
        f"{numbers['student']} ← {numbers['teacher'] or 'none'}",
        numbers["bits"],
        f"**{tflite['top1']:.2f}** of {numbers['num_images']:,} images",
        f"{numbers['student_top1']:.2f}",
        f"{tflite['top1_agreement']:.2f}",
        f"{numbers['file']['bytes']:,}",
        f"{numbers['seconds']:,.0f}",
        f"{numbers['machine']['cores']} cores",
    )


def main(run_dirs: list[str]) -> None:
    kept_results.of_runs(run_dirs, summary, RESULTS, HEADER, lambda numbers: [row(numbers)])


if __name__ == "__main__":
    main(sys.argv[1:])
