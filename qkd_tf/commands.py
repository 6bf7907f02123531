"""The commands of an installed package: what `pip install` puts beside Python, and the module that each runs."""

import os
import pathlib
import runpy
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """A row of the help.

    Attributes:
      module: what `python -m` runs.
    """

    module: str
    what: str


COMMANDS = {
    "qkd-doctor": Command("qkd_tf.doctor", "whether this machine can do the job, and what to mend"),
    "qkd-new": Command("qkd_tf.new", "writes a flag file for your own model and data"),
    "qkd-preflight": Command("qkd_tf.preflight", "every layer with its bits and size, before anything is trained"),
    "qkd-train": Command("qkd_tf.train", "trains a low-bit student by QKD"),
    "qkd-export": Command("tflite_export", "writes the integer .tflite of a run, and proves it"),
    "qkd-verify": Command("tflite_export.verify", "whether a file is what was trained"),
    "qkd-sensitivity": Command("qkd_tf.sensitivity", "what each layer loses at fewer bits"),
    "qkd-compare": Command("qkd_tf.compare", "runs side by side"),
    "qkd-ablation": Command("qkd_tf.ablation", "what each phase brings"),
    "qkd-prepare": Command("qkd_tf.data.prepare", "prepares a data set of TFDS"),
}


def main() -> None:
    """Runs the command by whose name the program was started, as `python -m` runs its module."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())  # for nets:build, which lies where the user works
    runpy.run_module(COMMANDS[pathlib.Path(sys.argv[0]).stem].module, run_name="__main__", alter_sys=True)


def overview() -> str:
    """All commands, one per line."""
    rows = [f"  {name:<17} python -m {row.module:<21} {row.what}" for name, row in COMMANDS.items()]
    return "\n".join(
        ["qkd_tf: low-bit students for Keras, proven as integer .tflite. Commands, each with --help:", *rows]
    )
