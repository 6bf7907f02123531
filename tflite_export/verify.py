"""Checks a .tflite against a handoff any time: python -m tflite_export.verify --tflite=F --handoff=DIR."""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import json
import pathlib
import sys

from absl import app

from qkd_tf.console import command_line
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.contract.targets import TARGETS
from qkd_tf.storage import durable
from tflite_export.check import check
from tflite_export.export_folder import target_of
from tflite_export.inference.runtimes import RUNTIMES, RUNTIMES_HELP, check_names
from tflite_export.load import ExportError
from tflite_export.proof.verdict import print_verdict

FLAGS = CommandFlags()
FLAGS.DEFINE_string("tflite", None, "The file to check.")
FLAGS.DEFINE_string("handoff", None, "Folder handoff/ of the training run that it is said to come from.")
FLAGS.DEFINE_string("json", None, "Where to write the verification, if anywhere.")
FLAGS.DEFINE_enum(
    "target",
    None,
    list(TARGETS),
    "What the file is for; it decides which runtime judges. Default: what verification.json beside it says, or phone.",
)
FLAGS.DEFINE_list("runtimes", list(RUNTIMES), RUNTIMES_HELP)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        for name in ("tflite", "handoff"):
            if not FLAGS[name].value:
                raise ExportError(f"--{name} is missing; --tflite=FILE --handoff=DIR name what to compare")
        if FLAGS.json and not pathlib.Path(FLAGS.json).parent.is_dir():
            raise ExportError(f"--json={FLAGS.json} lies in no folder; make {pathlib.Path(FLAGS.json).parent} first")
        path = pathlib.Path(FLAGS.tflite)
        target = FLAGS.target or target_of(path.parent) or "phone"
        verification = check(path, pathlib.Path(FLAGS.handoff), target, check_names(FLAGS.runtimes))
        if FLAGS.json:
            durable.write_whole(pathlib.Path(FLAGS.json), json.dumps(verification, indent=1) + "\n")
    except (ExportError, OSError) as error:
        sys.exit(f"error: {error}")
    if not print_verdict(verification, path):
        sys.exit(f"error: {path} was refused")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
