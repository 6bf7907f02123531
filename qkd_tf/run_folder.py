"""The folder of one run: what lies where, and whose it is."""

import json
import os
import pathlib
import shutil

from qkd_tf.experiment import ExperimentError

# Flags that may differ between two starts of the same experiment: they say where, not what.
PLACE_FLAGS = ("run_dir", "data_dir")


class RunFolder:
    """Paths of a run and its small JSON files, each written whole or not at all.

    Making the object only looks; `claim` makes the folder. So a start that fails before training
    leaves nothing behind.

    Args:
      path: the folder, there or not.
      flag_lines: the flags of this start, one "--name=value" a line.

    Raises:
      ExperimentError: the folder holds another experiment, or something that is not a run.
    """

    def __init__(self, path: str, flag_lines: list[str]):
        self.path = pathlib.Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.handoff = self.path / "handoff"
        self.results = self.path / "results.json"
        self._progress = self.checkpoints / "progress.json"
        self._flags = self.path / "flags.txt"
        self._flag_lines = flag_lines
        for ancestor in (self.path, *self.path.parents):
            if ancestor.exists() and not ancestor.is_dir():
                raise ExperimentError(f"--run_dir={path}: {ancestor} is a file; give a folder")
        if self._flags.exists():
            differing = _differing_flags(self._flags.read_text().splitlines(), flag_lines)
            if differing:
                raise ExperimentError(
                    f"--run_dir={path} holds another experiment, which differs in {', '.join(differing)}; "
                    "give another --run_dir, or move that folder away"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise ExperimentError(f"--run_dir={path} is not empty and has no flags.txt; give a new folder")

    def claim(self) -> None:
        """Makes the folder and writes flags.txt, where an earlier start has not done so."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._flags.exists():
            write_whole(self._flags, "\n".join(self._flag_lines) + "\n")
        self.checkpoints.mkdir(exist_ok=True)

    @property
    def what(self) -> dict[str, list[str]]:
        """Values of the flags that say what is run, by name."""
        return {name: values for name, values in _by_flag(self._flag_lines).items() if _says_what(name)}

    def copy(self, path: str) -> "RunFolder":
        """A run in the empty folder `path` that goes on where this one stopped."""
        if self.checkpoints.exists():
            shutil.copytree(self.checkpoints, pathlib.Path(path) / self.checkpoints.name)
            shutil.copy(self._flags, path)
        return RunFolder(path, self._flag_lines)

    def load_progress(self) -> dict | None:
        """What `save_progress` wrote last, or None in a new run."""
        return json.loads(self._progress.read_text()) if self._progress.exists() else None

    def save_progress(self, progress: dict) -> None:
        write_whole(self._progress, json.dumps(progress, indent=1) + "\n")


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a kill leaves the old text or the new one, never a part."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)


def _differing_flags(old: list[str], new: list[str]) -> list[str]:
    old_values, new_values = _by_flag(old), _by_flag(new)
    return [
        name
        for name in sorted(old_values.keys() | new_values.keys())
        if old_values.get(name) != new_values.get(name) and _says_what(name)
    ]


def _says_what(flag: str) -> bool:
    return flag.removeprefix("--") not in PLACE_FLAGS


def _by_flag(lines: list[str]) -> dict[str, list[str]]:
    """Values by flag name, in their order: a flag may be repeated."""
    values: dict[str, list[str]] = {}
    for line in "\n".join(lines).splitlines():
        name, _, value = line.partition("=")
        values.setdefault(name, []).append(value)
    return values
