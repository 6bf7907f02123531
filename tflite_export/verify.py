"""Checks a .tflite against a handoff any time: python -m tflite_export.verify --tflite=F --handoff=DIR."""

from qkd_tf import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import json
import pathlib
import sys

from absl import app, flags

from qkd_tf import durable
from tflite_export.convert import convert
from tflite_export.load import ExportError, load_handoff
from tflite_export.read_back import read_back
from tflite_export.rebuild import INPUT_TYPES, rebuild
from tflite_export.runtimes import RUNTIMES, check_names
from tflite_export.targets import TARGETS
from tflite_export.verdict import print_verdict
from tflite_export.verification import Gate, verify

MAX_SHARE, MAX_DESCRIPTION = 4, 1 << 20  # a larger file is not even read: so many times what is expected, and bytes

FLAGS = flags.FLAGS
flags.DEFINE_string("tflite", None, "The file to check.")
flags.DEFINE_string("handoff", None, "Folder handoff/ of the training run that it is said to come from.")
flags.DEFINE_string("json", None, "Where to write the verification, if anywhere.")
flags.DEFINE_enum("target", "phone", list(TARGETS), "What the file is for; it decides which runtime judges.")
flags.DEFINE_list(
    "runtimes", list(RUNTIMES), "Runtimes to ask, each for the whole test split; the target's judge is always asked."
)


def check(tflite: pathlib.Path, folder: pathlib.Path, target: str, runtimes: list[str]) -> dict:
    """The verification of a file against a handoff.

    Raises:
      ExportError: no file or no handoff there, or one that cannot be of the other.
    """
    if not tflite.is_file():
        raise ExportError(f"--tflite={tflite} is no file; give an exported one, such as runs/demo/export/model.tflite")
    handoff = load_handoff(folder)
    expected = rebuild(handoff, INPUT_TYPES[0])
    num_bytes, most = tflite.stat().st_size, MAX_SHARE * len(convert(expected, "")) + MAX_DESCRIPTION
    if num_bytes > most:
        raise ExportError(f"--tflite={tflite} has {num_bytes:,} bytes; what {folder} becomes has less than {most:,}")
    content = tflite.read_bytes()
    if b"TFLM_DECODE" in content:
        raise ExportError(
            f"--tflite={tflite} has lookup tables; its export held it against model.tflite, give that one"
        )
    if (dtype := input_type(content)) != INPUT_TYPES[0]:
        expected = rebuild(handoff, dtype)
    return verify(content, expected, handoff, Gate(), TARGETS[target], runtimes)


def input_type(content: bytes) -> str:
    """What the file takes, where that is something that we write; else our default, and it will differ."""
    try:
        found = read_back(content)
    except ValueError:
        return INPUT_TYPES[0]
    dtype = found.tensors[found.input].dtype
    return dtype if dtype in INPUT_TYPES else INPUT_TYPES[0]


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
        verification = check(path, pathlib.Path(FLAGS.handoff), FLAGS.target, check_names(FLAGS.runtimes))
        if FLAGS.json:
            durable.write_whole(pathlib.Path(FLAGS.json), json.dumps(verification, indent=1) + "\n")
    except (ExportError, OSError) as error:
        sys.exit(f"error: {error}")
    if not print_verdict(verification, path):
        sys.exit(f"error: {path} was refused")


if __name__ == "__main__":
    app.run(main)
