"""Correct files of a deep network of many classes pass: python -m benchmarks.deep_files --weights=NPZ --pictures=FOLDER

MobileNetV2 1.0 at 224 x 224 with 1,000 classes at W8A8, W6A6 and W4A4, after calibration alone, for a phone; data and
flags of benchmarks.calibration_alone, the exporter's gate as it is by default. Writes benchmarks/deep_files/*.json,
prints a table, and ends with 1 where a file is refused. Minutes; --folder keeps pictures and runs.
"""

if __name__ == "__main__":
    from qkd_tf import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import json
import pathlib
import sys
import tempfile

from benchmarks.calibration_alone import CHOSEN, lay_out, run

RESULTS = pathlib.Path(__file__).parent / "deep_files"
BITS = (8, 6, 4)


def measure(run_dir: pathlib.Path) -> dict:
    """What came of a run that was exported."""
    results = json.loads((run_dir / "results.json").read_text())
    verification = json.loads((run_dir / "export" / "verification.json").read_text())
    row = verification["runtimes"][verification["judge"]]
    return {
        "full_precision_top1": results["full_precision"]["test_top1"],
        "student": results["student"],
        "passed": verification["passed"],
        "failures": verification["failures"],
        "gate": verification["gate"],
        "num_images": verification["num_images"],
        "top1_agreement": row["student"]["top1_agreement"],
        "equal_logits": row["integer_student"]["equal_logits"],
        "accuracy": row["accuracy"],
        "bytes": verification["file"]["bytes"],
        "versions": results["versions"],
        "machine": results["machine"],
    }


def line(num_bits: int, numbers: dict) -> str:
    found = numbers["accuracy"]
    cells = (
        f"W{num_bits}A{num_bits}",
        "passed" if numbers["passed"] else "REFUSED",
        f"{found['top1']:.2f}",
        f"{found['student_top1']:.2f}",
        f"{numbers['top1_agreement']:.2f}",
        f"{numbers['equal_logits']:.2f}",
        f"{found['only_student_right']} / {found['only_file_right']}",
        f"{found['p']:.2g}",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="MobileNetV2 1.0 224, pixels / 127.5 - 1")
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="folder of LABEL/*.jpg")
    parser.add_argument("--folder", type=pathlib.Path, help="where to work; default: a temporary one")
    given = parser.parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        lay_out(given.pictures, folder / "pictures")
        for num_bits in BITS:
            run_dir = folder / f"mobilenet_v2_w{num_bits}a{num_bits}"
            paths = (f"--dataset=folder:{folder / 'pictures'}", f"--student_weights={given.weights}")
            bits = (f"--weight_bits={num_bits}", f"--activation_bits={num_bits}")  # the last of two flags holds
            if not (run_dir / "results.json").exists():
                run("qkd_tf.train", *CHOSEN, *bits, *paths, f"--run_dir={run_dir}")
            (run_dir / "export" / "verification.json").unlink(missing_ok=True)
            run("tflite_export", f"--run_dir={run_dir}", "--runtimes=", may_refuse=True)
            rows[num_bits] = measure(run_dir)
            (RESULTS / f"mobilenet_v2_w{num_bits}a{num_bits}.json").write_text(
                json.dumps(rows[num_bits], indent=1) + "\n"
            )
    print("| bits | gate | file, top-1, % | in real numbers | same class, % | logits as predicted, % |", end="")
    print(" right in real numbers / in the file alone | p |\n" + "|---" * 8 + "|")
    print(*(line(num_bits, numbers) for num_bits, numbers in rows.items()), sep="\n")
    if refused := [num_bits for num_bits, numbers in rows.items() if not numbers["passed"]]:
        sys.exit(f"error: refused at {', '.join(map(str, refused))} bits")


if __name__ == "__main__":
    main(sys.argv[1:])
