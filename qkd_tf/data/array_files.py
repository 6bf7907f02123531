"""Pictures or signals as arrays: in one file, npz:FILE.npz, or in a folder with one .npy file each, npy:FOLDER.

Names are those in keras.datasets' files: x_train [N, ...] and y_train [N], x_test and y_test, and optionally
x_validation and y_validation. An array label_names [K] or a labels.txt in the folder names the classes.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from qkd_tf.data.folder import LABELS, given_labels
from qkd_tf.data.memory_set import source_of
from qkd_tf.data.signals import are_signals
from qkd_tf.data.source import Source
from qkd_tf.experiment import DataSpec, ExperimentError, require, require_set, set_path
from qkd_tf.storage.archive import NUMBERS, first_line, open_npz

FILE, FOLDER = "npz:", "npy:"
NAMES = "label_names"
TEXTS = "U"  # kind of dtype


def open_source(spec: DataSpec) -> Source:
    """Reads the arrays, and looks at all of them.

    Raises:
      ExperimentError: no such file, an array that is missing or holds no numbers, or what `source_of` raises.
    """
    require_set(spec)
    arrays, test = _opened(spec), spec.test_split or "test"
    needed = [f"{kind}_{split}" for split in ("train", test) for kind in "xy"]
    names = list(arrays)  # to ask the mapping would read the array
    missing = [name for name in needed if name not in names]
    require(
        not missing,
        f"--dataset={spec.name} lacks the arrays {', '.join(missing)}; it has {', '.join(names) or 'none'}; "
        f"{', '.join(needed)} are needed; see --test_split",
    )
    has_validation = {"x_validation", "y_validation"} <= set(names) and test != "validation"
    splits = ("train", test, *["validation"] * has_validation)
    features = {split: _read(arrays, f"x_{split}", spec) for split in splits}
    axed = _are_grey(features["train"], spec)
    pairs = [
        (found[..., np.newaxis] if axed and found.ndim == 3 else found, _read(arrays, f"y_{split}", spec))
        for split, found in features.items()
    ]
    source = source_of(*(pairs + [None])[:3], spec, _label_names(arrays, spec))
    unread = [name for name in names if name != NAMES and name.partition("_")[2] not in splits]
    notes = [f"note: arrays in {spec.name} that are not used: {', '.join(unread)}"] * bool(unread)
    notes += [
        f"note: arrays of shape {features['train'].shape} are read as grey pictures; for signals give --signals"
    ] * axed
    return dataclasses.replace(source, notes=source.notes + tuple(notes))


def describe(spec: DataSpec) -> tuple[tuple[int, ...], list[str]]:
    """Shape of an example and label names; the arrays must exist."""
    source = open_source(spec)
    return source.image_shape, source.label_names


def _opened(spec: DataSpec) -> Mapping[str, np.ndarray]:
    """The arrays by name, each read when it is asked for."""
    path = set_path(spec.name)
    if spec.name.startswith(FOLDER):
        return _Folder(path)
    try:
        return open_npz(path, NUMBERS + TEXTS)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ExperimentError(f"--dataset={spec.name} cannot be read as arrays: {first_line(error)}") from error


class _Folder(Mapping[str, np.ndarray]):
    """Arrays of a folder's .npy files, by file name; their contents stay on disk until they are needed."""

    def __init__(self, path: pathlib.Path):
        self._files = {file.stem: file for file in sorted(path.glob("*.npy")) if not file.name.startswith(".")}

    def __getitem__(self, name: str) -> np.ndarray:
        return np.load(self._files[name], mmap_mode="r", allow_pickle=False)

    def __iter__(self):
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _read(arrays: Mapping[str, np.ndarray], name: str, spec: DataSpec) -> np.ndarray:
    try:
        found = arrays[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ExperimentError(f"--dataset={spec.name}: {name} cannot be read: {first_line(error)}") from error
    require(found.ndim > 0, f"--dataset={spec.name}: {name} is one number; an array of examples is expected")
    return found


def _are_grey(train: np.ndarray, spec: DataSpec) -> bool:
    """Whether arrays are grey pictures [N, H, W], as keras.datasets' mnist.npz has them."""
    return train.ndim == 3 and not are_signals(train.shape[1:], train.dtype, spec)


def _label_names(arrays: Mapping[str, np.ndarray], spec: DataSpec) -> list[str] | None:
    """The label names that the set gives; None for numbers."""
    labels = set_path(spec.name) / LABELS
    if spec.name.startswith(FOLDER) and labels.is_file():
        return given_labels(labels)
    return [str(name) for name in _read(arrays, NAMES, spec).ravel()] if NAMES in list(arrays) else None
