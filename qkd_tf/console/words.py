"""Lines with which a command ends: on words that are not flags, and on errors of the system."""

import re
import sys
from collections.abc import Iterator, Sequence

from qkd_tf.console.command_line import CommandFlags

# How a word looks -> the flag that was probably meant.
LOOKS = (
    (r".*\.flags", "flagfile"),
    (r"(folder|npz|npy):.*", "dataset"),
    (r".*\.tflite", "tflite"),
    (r".*\.(keras|h5|hdf5)|[\w.]+:[\w.]+", "student"),
    (r"runs/.*", "run_dir"),
)
PART_OF_A_LIST = re.compile(r"[\d.,=]+|,.*|.*,")  # --epochs=1, 2


def in_a_line(error: Exception) -> str:
    """An error as the line that a command prints; for an error of the system, its file and reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def require_flags_only(argv: Sequence[str], values: CommandFlags, usual: Sequence[str]) -> None:
    """Ends a command that was given words other than flags.

    Args:
      argv: the command and the words.
      values: its flags.
      usual: names of the flags to suggest first, for words that do not look like another flag's value.

    Raises:
      SystemExit: there are such words; its code is a line with the flags that were probably meant.
    """
    words = argv[1:]
    if not words:
        return
    meant = [_meant(word, values) for word in words]
    left = _left(usual, values, meant)
    meant = [flag or _next(left, word) for flag, word in zip(meant, words, strict=True)]
    hint = "give each value as --name=value, without spaces; --help shows the flags"
    if all(meant):
        hint = f"did you mean {' '.join(meant)}?"
    sys.exit(f"error: unexpected argument{'s' * (len(words) > 1)} {' '.join(words)}; {hint}")


def _meant(word: str, values: CommandFlags) -> str:
    """A word as the flag whose name or values it resembles; "" if there is none that was not given yet."""
    name, is_told, value = word.lstrip("-–—").partition("=")
    if is_told and name in values:
        return _flag(name, value)
    found = (name for look, name in LOOKS if re.fullmatch(look, word))
    return next((_flag(name, word) for name in found if _is_open(name, values)), "")


def _left(usual: Sequence[str], values: CommandFlags, meant: Sequence[str]) -> Iterator[str]:
    told = {flag.removeprefix("--").partition("=")[0] for flag in meant}
    return (name for name in usual if name not in told and _is_open(name, values))


def _is_open(name: str, values: CommandFlags) -> bool:
    """Whether a command has a flag that was not given a value."""
    return name == "flagfile" or (name in values and not (values[name].present and values[name].value))


def _next(names: Iterator[str], word: str) -> str:
    name = "" if PART_OF_A_LIST.fullmatch(word) else next(names, "")
    return name and _flag(name, word)


def _flag(name: str, value: str) -> str:
    return f"--{name}={value}"
