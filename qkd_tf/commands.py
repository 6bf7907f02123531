"""What the commands that `pip install` adds start."""

import os
import pathlib
import runpy
import sys

from qkd_tf.console.scripts import COMMANDS


def main() -> None:
    """Runs the module of the command that was started, as `python -m` does."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())  # for nets:build, which lies where the user works
    runpy.run_module(COMMANDS[pathlib.Path(sys.argv[0]).stem].module, run_name="__main__", alter_sys=True)


def overview() -> str:
    """All commands, one per line."""
    rows = [f"  {name:<17} {row.module:<21} {row.what}" for name, row in COMMANDS.items()]
    lines = (
        "qkd_tf: low-bit students for Keras, proven as integer .tflite",
        "Commands and their modules; run a module as python -m qkd_tf.doctor. Each has --help.",
    )
    return "\n".join([*lines, "", *rows])
