"""Exports and verifies a trained student: python -m tflite_export --run_dir=runs/NAME."""

import json
import pathlib
import shutil
import sys

from absl import app, flags, logging

from qkd_tf import __version__
from tflite_export import report
from tflite_export.convert import convert
from tflite_export.load import ExportError, load_handoff
from tflite_export.rebuild import INPUT_TYPES, rebuild
from tflite_export.verify import Gate, verify

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder of a finished training run; export/ and report.html are written there.")
flags.DEFINE_enum("input_type", "uint8", INPUT_TYPES, "uint8 takes pixels as a camera gives them, int8 pixel - 128.")
flags.DEFINE_float(
    "max_top1_difference", Gate.max_top1_difference, "Gate: points of top-1 between file and Keras student."
)
flags.DEFINE_float("min_top1_agreement", Gate.min_top1_agreement, "Gate: percent of images with the same top-1.")


def export(run_dir: pathlib.Path, input_type: str, gate: Gate) -> dict:
    """Writes export/model.tflite, export/labels.txt, export/verification.json and report.html.

    Returns:
      The verification, as in verification.json.

    Raises:
      ExportError: no finished training run there, or a student that cannot become integer.
    """
    handoff = load_handoff(run_dir / "handoff")
    if not (run_dir / "results.json").exists():
        raise ExportError(f"{run_dir} has no results.json; run python -m qkd_tf.train to its end first")
    graph = rebuild(handoff, input_type)
    content = convert(graph, description=f"qkd_tf {__version__}, {run_dir.name}")
    verification = verify(content, graph, handoff, gate)
    target = run_dir / "export"
    target.mkdir(exist_ok=True)
    (target / "model.tflite").write_bytes(content)
    shutil.copy(run_dir / "handoff" / "labels.txt", target)
    (target / "verification.json").write_text(json.dumps(verification, indent=1) + "\n")
    report.write(run_dir, verification)
    return verification


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    try:
        if not FLAGS.run_dir:
            raise ExportError("--run_dir is missing; give the folder of a finished run, such as runs/demo")
        run_dir = pathlib.Path(FLAGS.run_dir)
        verification = export(run_dir, FLAGS.input_type, Gate(FLAGS.max_top1_difference, FLAGS.min_top1_agreement))
    except ExportError as error:
        sys.exit(f"error: {error}")
    for note in verification.get("notes", ()):
        print(f"note: {note}")
    for failure in verification["failures"]:
        print(f"FAILED: {failure}", file=sys.stderr)
    if not verification["passed"]:
        sys.exit(f"error: {run_dir}/export/model.tflite is not what was trained; see verification.json")
    tflite = verification["tflite"]
    print(
        f"{run_dir}/export/model.tflite: {verification['file']['bytes']:,} bytes, "
        f"top-1 {tflite['top1']:.2f} % on {verification['num_images']:,} test images "
        f"(Keras student {verification['student']['top1']:.2f} %, agreement {tflite['top1_agreement']:.2f} %, "
        f"equal logits {tflite['equal_logits']:.2f} %)"
    )
    print(f"report: {run_dir}/report.html")


if __name__ == "__main__":
    app.run(main)
