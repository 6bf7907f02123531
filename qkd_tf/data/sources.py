"""The table of data sets: `--dataset` -> `Source`."""

import dataclasses
import importlib
import os
import types

from qkd_tf.data import array_files, folder
from qkd_tf.data.source import Source
from qkd_tf.experiment import IN_MEMORY, DataSpec, require, require_no_path

# Beginning of --dataset -> the module that knows it, imported when it is asked for: importing TFDS takes a second.
KINDS = {
    "digits": "digits",
    "folder": "folder",
    "in_memory": "memory_set",
    **dict.fromkeys(("npz", "npy"), "array_files"),
}
OTHERS = "tfds_set"  # every other name is that of a TFDS set
OF_SIGNALS = ("array_files", "memory_set")
PATHS = (folder.PREFIX, array_files.FILE, array_files.FOLDER)  # beginnings behind which there is a path


def open_source(spec: DataSpec) -> Source:
    """Opens a data set without reading it: at most one image is decoded.

    Raises:
      ExperimentError: an unknown set, one that is not prepared or not laid out as expected, or no --image_size where it
        is needed.
    """
    return _kind(spec).open_source(spec)


def describe(spec: DataSpec) -> tuple[tuple[int, int, int], list[str]]:
    """Image shape (H, W, C) and label names of a data set; its pictures need not exist, and nothing is written.

    For a TFDS set, its own description has them; a folder must exist.

    Raises:
      ExperimentError: as `open_source`, except for sets that are not prepared.
    """
    return _kind(spec).describe(spec)


def lasting(spec: DataSpec) -> DataSpec | None:
    """The same set for a process that starts in another folder; None if the set cannot be opened again."""
    if spec.name.startswith(IN_MEMORY):
        return None
    name = spec.name
    for prefix in PATHS:
        if name.startswith(prefix):
            name = prefix + _absolute(name.removeprefix(prefix))
    data_dir = spec.data_dir and _absolute(spec.data_dir)
    return dataclasses.replace(spec, name=name, data_dir=data_dir, augment="")  # which no test split is


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _kind(spec: DataSpec) -> types.ModuleType:
    name = spec.name
    known = KINDS.get(name.partition(":")[0])
    kind = importlib.import_module(f"qkd_tf.data.{known or OTHERS}")
    if known or kind.knows(spec):
        flags = ", ".join(f"--{flag}" for flag in spec.of_signals)
        require(
            not flags or known in OF_SIGNALS,
            f"{flags}: only for signals, and --dataset={name} has pictures; leave it out",
        )
    else:
        require_no_path(name)
    return kind
