"""The folder of one run: its files, and the experiment to which it belongs."""

import hashlib
import pathlib
import shutil
from collections.abc import Mapping

from qkd_tf.contract.origin import IN_MEMORY
from qkd_tf.contract.resuming import FLAGS_FILE, resuming
from qkd_tf.experiment import ExperimentError
from qkd_tf.storage.durable import PART, DamageError, read_json, write_json, write_whole
from qkd_tf.storage.folder_lock import LOCK, require_unlocked
from qkd_tf.storage.writable import require_writable

# Flags that may differ between two starts of the same experiment: they say where and how safely, not what.
PLACE_FLAGS = ("run_dir", "data_dir", "checkpoint_every_steps", "allow_weak_teacher")
IDENTITY_FILE = "identity.json"
NUM_TOLD = 5  # flags that a message names


class RunFolder:
    """Paths of a run, and the flags of its experiment.

    Creating the object writes nothing; `claim` creates the folder. So a run that fails before training leaves nothing
    behind.

    Args:
      path: the folder; it need not exist.
      flag_lines: the flags of this call, one "--name=value" per line.

    Raises:
      ExperimentError: the folder contains another experiment, or something that is not a run.

    Attributes:
      experiment: digest of the flags that decide the outcome.
    """

    def __init__(self, path: str, flag_lines: list[str]):
        self.path = pathlib.Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.full_precision = self.path / "full_precision"
        self.handoff = self.path / "handoff"
        self.results = self.path / "results.json"
        self.diagnosis = self.path / "diagnosis.json"
        self.start = self.path / "start.json"
        self.bits = self.path / "bits.json"
        self._flags = self.path / FLAGS_FILE
        self._identity = self.path / IDENTITY_FILE
        self._flag_lines = flag_lines
        deciding = {name: values for name, values in _by_flag(flag_lines).items() if _decides(name)}
        self.experiment = hashlib.sha256(repr(sorted(deciding.items())).encode()).hexdigest()
        for ancestor in (self.path, *self.path.parents):
            if ancestor.exists() and not ancestor.is_dir():
                raise ExperimentError(f"--run_dir={path}: {ancestor} is a file; give a folder")
        self._require_own()

    def require_free(self) -> None:
        """Looks, before slow work, whether a run can be written here.

        Raises:
          ExperimentError: the folder, or the one in which it is to be made, cannot be written.
          FolderInUseError: another process uses it.
        """
        there = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        require_writable(there, f"--run_dir={self.path}")
        require_unlocked(self.path)

    @property
    def has_checkpoint(self) -> bool:
        return self.checkpoints.is_dir() and any(not entry.name.endswith(PART) for entry in self.checkpoints.iterdir())

    @property
    def at_next_start(self) -> str:
        """What the same command or call does, once this one has ended."""
        return "resumes from the last checkpoint" if self.has_checkpoint else "starts again: there is no checkpoint yet"

    @property
    def is_finished(self) -> bool:
        """Whether training wrote all that an export reads; checkpoints may then be deleted."""
        return self.results.is_file() and (self.handoff / "manifest.json").is_file()

    def claim(self, contents: Mapping[str, str] = {}, words: Mapping[str, str] = {}) -> None:
        """Creates the folder and writes flags.txt and identity.json, unless an earlier call did.

        Args:
          contents: digests of what the experiment is made of, besides its flags.
          words: names of `contents` for messages.

        Raises:
          ExperimentError: another experiment has meanwhile taken the folder, or this run began with other contents.
          OSError: it cannot be written.
        """
        self._require_own()
        if self._flags.exists():
            self._require_same(contents, words)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._flags.exists():  # before anything else but the identity: it is what makes the folder a run
            write_json(self._identity, {"contents": dict(contents)})
            write_whole(self._flags, "\n".join(self._flag_lines) + "\n")
        self.checkpoints.mkdir(exist_ok=True)

    def copy(self, path: str) -> "RunFolder":
        """A run in the empty folder `path` that resumes where this one stopped."""
        if self.checkpoints.exists():
            shutil.copytree(self.checkpoints, pathlib.Path(path) / self.checkpoints.name)
            shutil.copy(self._flags, path)
            shutil.copy(self._identity, path)
            if self.bits.exists():
                shutil.copy(self.bits, path)
        return RunFolder(path, self._flag_lines)

    def _require_own(self) -> None:
        if self._flags.exists():
            written = self._flags.read_text(errors="replace").splitlines()
            differing = differing_flags(written, self._flag_lines)
            if differing:
                resume = "" if self.is_finished else resuming(self.path)
                raise ExperimentError(
                    f"--run_dir={self.path} contains another experiment, which differs in "
                    f"{', '.join(differing)}; "
                    + f"to resume it, run {resume}; otherwise " * bool(resume)
                    + "give another --run_dir, or move that folder away"
                )
        elif self.path.exists() and any(entry.name not in _OF_A_CLAIM for entry in self.path.iterdir()):
            raise ExperimentError(f"--run_dir={self.path} is not empty and has no flags.txt; give a new folder")

    def _require_same(self, contents: Mapping[str, str], words: Mapping[str, str]) -> None:
        remedy = "give another --run_dir, or move that folder away"
        if not self._identity.exists():
            raise ExperimentError(
                f"--run_dir={self.path} has no {IDENTITY_FILE}: it was deleted, or an earlier version of qkd_tf began "
                "this run; without it qkd_tf cannot tell whether networks, weights and pictures are still the same; "
                + remedy
            )
        try:
            begun = read_json(self._identity)["contents"]
        except DamageError as damage:
            raise ExperimentError(f"{damage}; {remedy}") from damage
        changed = [words.get(name, name) for name in [*words, *contents] if begun.get(name) != contents.get(name)]
        if changed:
            raise ExperimentError(
                f"--run_dir={self.path} began with contents that have changed since: "
                f"{', '.join(dict.fromkeys(changed))}; {remedy}"
            )


# What a start that was killed in `claim` may have left.
_OF_A_CLAIM = (LOCK, FLAGS_FILE + PART, IDENTITY_FILE, IDENTITY_FILE + PART)


def _decides(flag: str) -> bool:
    """Whether a flag ("--name", or "--noname" for a false one) affects the outcome, not just where things are."""
    name = flag.removeprefix("--")
    return name not in PLACE_FLAGS and name.removeprefix("no") not in PLACE_FLAGS


def what_matters(lines: list[str]) -> list[str]:
    """Flags without those that only say where things are; weights by file name."""
    pairs = [line.partition("=") for line in lines if _decides(line.partition("=")[0])]
    return [f"{n}{equals}{pathlib.Path(v).name if n.endswith('_weights') else v}" for n, equals, v in pairs]


def differing_flags(old: list[str], new: list[str]) -> list[str]:
    """The flags in which two calls differ, except for those that only say where things are.

    Each is given as "--name (2 there, 4 now)"; for data and networks in memory only the flag is named. Beyond NUM_TOLD
    flags, only their number is given.
    """
    there, now = _readable(old), _readable(new)
    told = [
        _told(name, there.get(name, ["not given"]), now.get(name, ["not given"]))
        for name in sorted(there.keys() | now.keys())
        if there.get(name) != now.get(name) and _decides(name)
    ]
    return told if len(told) <= NUM_TOLD + 1 else [*told[:NUM_TOLD], f"{len(told) - NUM_TOLD} more flags"]


def _told(name: str, there: list[str], now: list[str]) -> str:
    if any(value.startswith(IN_MEMORY) for value in (*there, *now)):
        return name
    return f"{name} ({','.join(there)} there, {','.join(now)} now)"


def _readable(lines: list[str]) -> dict[str, list[str]]:
    """`_by_flag`, with --noNAME as NAME that is false, and another flag without a value, or with none, as given."""
    found = {}
    for name, values in _by_flag(lines).items():
        is_off = values == [""] and name.startswith("--no")
        name = f"--{name.removeprefix('--no')}" if is_off else name
        found[name] = ["false"] if is_off else ["given"] if values == [""] else values
    return found


def _by_flag(lines: list[str]) -> dict[str, list[str]]:
    """Flag name -> its values, in order; a flag may be repeated."""
    values: dict[str, list[str]] = {}
    for line in "\n".join(lines).splitlines():
        name, _, value = line.partition("=")
        values.setdefault(name, []).append(value)
    return values
