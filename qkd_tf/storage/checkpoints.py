"""Checkpoints of a training run: sealed folders, each complete in itself; the newest two are kept."""

import pathlib
import re
import shutil

import numpy as np
import tensorflow as tf

from qkd_tf.experiment import ExperimentError
from qkd_tf.storage import disk_errors, durable

NAME = re.compile(r"phase(\d+)_epoch(\d+)_step(\d+)")


class Checkpoints:
    """Folders phaseI_epochN_stepS: phase I is next, with N of its epochs and S steps of the following one done.

    Each holds `state.*`, which tf.train.Checkpoint writes, `best.npz`, arrays by their number, and `progress.json`. The
    names say which is newest, so clocks do not matter.

    Args:
      folder: an existing folder.
      experiment: identifies the experiment; stored in each checkpoint.
    """

    def __init__(self, folder: pathlib.Path, experiment: str):
        self._folder = folder
        self._experiment = experiment
        self._last: pathlib.Path | None = None  # written, or found to be sound

    def write(self, progress: dict, state: tf.train.Checkpoint, best: list[np.ndarray]) -> None:
        """Writes a checkpoint, and keeps only the last of the others, in case this one is damaged.

        Args:
          progress: JSON object with "phase", "epoch" and "step".

        Raises:
          OSError: it cannot be written; earlier ones are kept.
        """
        path = self._folder / "phase{phase}_epoch{epoch}_step{step}".format(**progress)
        with durable.whole_folder(path) as part:
            with disk_errors.writing(path):
                state.write(str(part / "state"))
            np.savez(part / "best.npz", *best)
            durable.write_json(part / "progress.json", {**progress, "experiment": self._experiment})
        for entry in self._folder.iterdir():
            if NAME.match(entry.name) and entry not in (path, self._last):
                shutil.rmtree(entry, ignore_errors=True)
        self._last = path

    def newest(self) -> tuple[pathlib.Path, dict] | None:
        """(Folder, progress) of the newest sound checkpoint; prints a note on skipped ones. None if there are none.

        Raises:
          ExperimentError: there are checkpoints, and none of them is sound.
        """
        reasons = []
        for path in self._newest_first():
            try:
                durable.check(path)
                progress = durable.read_json(path / "progress.json")
                if progress.pop("experiment") != self._experiment:
                    raise durable.DamageError(f"{path} belongs to another experiment")
            except durable.DamageError as damage:
                reasons.append(str(damage))
                continue
            for reason in reasons:
                print(f"note: {reason}; resuming from {path.name}, the newest intact checkpoint")
            self._last = path
            return path, progress
        if reasons:
            raise ExperimentError(
                f"no checkpoint can be used: {'; '.join(reasons)}; move {self._folder} away to train from the start"
            )
        return None

    def _newest_first(self) -> list[pathlib.Path]:
        found = [entry for entry in self._folder.iterdir() if NAME.fullmatch(entry.name)]
        return sorted(found, key=_position, reverse=True)


def restore(path: pathlib.Path, state: tf.train.Checkpoint) -> list[np.ndarray]:
    """Restores `state` from a checkpoint, and returns the arrays that were written with it."""
    state.read(str(path / "state")).assert_existing_objects_matched().expect_partial()
    with np.load(path / "best.npz", allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


def _position(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(map(int, NAME.match(path.name).groups()))
