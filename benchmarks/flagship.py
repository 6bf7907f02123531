"""MobileNetV2 from published weights to an accepted file: python -m benchmarks.flagship --weights=NPZ --pictures=FOLDER

MobileNetV2 1.0 at 224 x 224 with 1,000 classes at W8A8, W6A6 and W4A4, for a phone: by calibration alone, tutored by
its own float network for some epochs of 540 pictures, and by all three phases. Rates, quantization and the exporter's
gate are the defaults; beside that --equalize_channels=off. Writes benchmarks/flagship/*.json, prints a table, and ends
with 1 if a file is refused. Forty minutes on two cores; --folder keeps pictures and runs, and resumes what is there.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Mapping

from benchmarks import kept_results
from benchmarks.calibration_alone import lay_out, run

RESULTS = pathlib.Path(__file__).parent / "flagship"
NUM_TRAIN, NUM_VALIDATION = 540, 60  # the rest, 311 of the 911 pictures at hand, is the test
NETWORK = (
    "--student=mobilenet_v2_1.0",
    "--student_weights_mean=127.5",
    "--student_weights_std=127.5",
    "--student_pixel_mean=128",
    "--student_pixel_std=127.5",
)
TEACHER = ("--teacher=mobilenet_v2_1.0", "--teacher_pixel_mean=127.5", "--teacher_pixel_std=127.5")
TRAINING = ("--batch_size=32",)
CALIBRATION = ("--phases=", "--batch_size=25")
# Bits -> epochs of tutoring alone; few bits take longer. Then the same, cut into the three phases.
TUTORING = {bits: ("--phases=tutoring", f"--epochs={epochs}") for bits, epochs in ((8, 2), (6, 3), (4, 8))}
PHASES = {bits: (f"--epochs={epochs}",) for bits, epochs in ((8, "1,1,1"), (6, "1,1,1"), (4, "2,2,4"))}
# How -> the flags of each width.
KINDS = {
    "calibration": {bits: CALIBRATION for bits in TUTORING},
    "trained": {bits: (*TEACHER, *TRAINING, *flags) for bits, flags in TUTORING.items()},
    "all_phases": {bits: (*TEACHER, *TRAINING, *flags) for bits, flags in PHASES.items()},
    "not_equalized": {
        bits: (*TEACHER, *TRAINING, *flags, "--equalize_channels=off") for bits, flags in TUTORING.items()
    },
}


def measure(run_dir: pathlib.Path, names: Mapping[str, str]) -> dict:
    """What came of a run that was exported.

    Args:
      names: what stands for a path of this machine in the flags that are kept.
    """
    flags = (run_dir / "flags.txt").read_text()
    for path, name in names.items():
        flags = flags.replace(path, name)
    results = json.loads((run_dir / "results.json").read_text())
    verification = json.loads((run_dir / "export" / "verification.json").read_text())
    row = verification["runtimes"][verification["judge"]]
    return {
        "flags": flags.splitlines(),
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
        "training_seconds": results["seconds"],
        "versions": results["versions"],
        "machine": results["machine"],
    }


def line(num_bits: int, kind: str, numbers: dict) -> str:
    found = numbers["accuracy"]
    cells = (
        f"W{num_bits}A{num_bits}",
        kind.replace("_", " "),
        "passed" if numbers["passed"] else "REFUSED",
        f"{found['top1']:.2f}",
        f"{found['top1'] - numbers['full_precision_top1']:+.2f}",
        f"{found['student_top1']:.2f}",
        f"{numbers['equal_logits']:.2f}",
        f"{found['only_student_right']} / {found['only_file_right']}",
        f"{found['p']:.2g}",
        f"{numbers['training_seconds'] / 60:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="MobileNetV2 1.0 224, pixels / 127.5 - 1")
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="folder of LABEL/*.jpg")
    parser.add_argument("--folder", type=pathlib.Path, help="where to work; default: a temporary one")
    given, rows = parser.parse_args(arguments), {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        lay_out(given.pictures, folder / "pictures", NUM_TRAIN, NUM_VALIDATION)
        paths = (f"--dataset=folder:{folder / 'pictures'}", f"--student_weights={given.weights}")
        for kind, widths in KINDS.items():
            teacher = (f"--teacher_weights={given.weights}",) if kind != "calibration" else ()
            for num_bits, options in widths.items():
                run_dir = folder / f"{kind}_w{num_bits}a{num_bits}"
                bits = (f"--weight_bits={num_bits}", f"--activation_bits={num_bits}")
                if not (run_dir / "export" / "verification.json").exists():
                    run("qkd_tf.train", *NETWORK, *teacher, *options, *bits, *paths, f"--run_dir={run_dir}")
                    run("tflite_export", f"--run_dir={run_dir}", "--runtimes=", may_refuse=True)
                names = {str(folder): "FOLDER", str(given.weights.parent): "MODELS"}
                rows[num_bits, kind] = measure(run_dir, names)
                kept_results.keep(RESULTS / f"{run_dir.name}.json", rows[num_bits, kind])
    print("| bits | how | gate | file, top-1, % | beside float | in floating point | logits as predicted, % |", end="")
    print(" right in floating point / in the file alone | p | training, minutes |\n" + "|---" * 10 + "|")
    print(*(line(num_bits, kind, rows[num_bits, kind]) for num_bits, kind in sorted(rows, reverse=True)), sep="\n")
    if refused := [f"{kind} at {num_bits} bits" for (num_bits, kind), numbers in rows.items() if not numbers["passed"]]:
        sys.exit(f"error: refused: {', '.join(refused)}")


if __name__ == "__main__":
    main(sys.argv[1:])
