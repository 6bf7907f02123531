"""Checks whether a .tflite is what a run trained: python -m tflite_export.verify --tflite=F --handoff=DIR."""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import json
import pathlib
import sys

from qkd_tf.console import command_line
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.console.words import in_a_line, require_flags_only
from qkd_tf.contract.targets import TARGETS
from qkd_tf.storage import durable
from tflite_export.export_error import ExportError
from tflite_export.export_folder import target_of
from tflite_export.inference.runtimes import RUNTIMES, RUNTIMES_HELP, check_names
from tflite_export.proof.verdict import print_verdict

FLAGS = CommandFlags()
FLAGS.DEFINE_string("tflite", None, "The .tflite to check.")
FLAGS.DEFINE_string("handoff", None, "Folder handoff/ of the training run that the file should come from.")
FLAGS.DEFINE_string("json", None, "File to write the verification to. Default: none.")
FLAGS.DEFINE_enum(
    "target",
    None,
    list(TARGETS),
    "Device that the file is for, which decides which runtime is the judge. Default: the target in "
    "verification.json beside the file, or phone.",
)
FLAGS.DEFINE_list("runtimes", list(RUNTIMES), RUNTIMES_HELP)


def main(argv: list[str]) -> None:
    require_flags_only(argv, FLAGS, ("tflite", "handoff"))
    try:
        for name in ("tflite", "handoff"):
            if not FLAGS[name].value:
                raise ExportError(f"--{name} is missing; give --tflite=FILE and --handoff=DIR")
        if FLAGS.json and not pathlib.Path(FLAGS.json).parent.is_dir():
            raise ExportError(
                f"--json={FLAGS.json}: there is no folder {pathlib.Path(FLAGS.json).parent}; make it first"
            )
        path = pathlib.Path(FLAGS.tflite)
        if path.is_dir() and pathlib.Path(FLAGS.handoff).is_file():
            raise ExportError(f"--tflite={path} is a folder, and --handoff={FLAGS.handoff} a file; swap them")
        if not path.is_file():
            raise ExportError(f"--tflite={path} is not a file; give a file such as runs/demo/export/model.tflite")
        check_names(FLAGS.runtimes)
        # After all checks that need only flags and files: TensorFlow takes seconds to import.
        from qkd_tf.console import quiet  # noqa: F401, PLC0415
        from tflite_export.check import check  # noqa: PLC0415

        target = FLAGS.target or target_of(path.parent) or "phone"
        verification = check(path, pathlib.Path(FLAGS.handoff), target, FLAGS.runtimes)
        if FLAGS.json:
            durable.write_whole(pathlib.Path(FLAGS.json), json.dumps(verification, indent=1) + "\n")
    except (ExportError, OSError) as error:
        sys.exit(f"error: {in_a_line(error)}")
    if not print_verdict(verification, path):
        sys.exit(f"error: {path} was refused")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
