"""The error of a user's mistake, and checks that raise it."""

import math
import re
from collections.abc import Iterable

from qkd_tf.console.nearest import meant


class ExperimentError(ValueError):
    """A user's mistake, in one line: what was given, what was expected, how to fix it."""

    __module__ = "qkd_tf"  # where users find it, and what tracebacks say

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # values of flags may have lines


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ExperimentError(message)


def printable(name: str) -> str:
    """A name from the file system, with escapes for bytes that are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def require_known(value: str, known: Iterable[str], what: str, where: str = "") -> None:
    """Raises ExperimentError for a name that is not in a table, with the name that was probably meant."""
    require(value in known, f"unknown {what} {value!r}{where and f' in {where}'}; {meant(value, known)}")


def require_count(value: int, flag: str, lowest: int = 0, highest: int = 1_000_000, why: str = "") -> None:
    """Raises ExperimentError unless `value` is a whole number in range; counts have an upper limit, too."""
    expected = f"{lowest:,} to {highest:,} are possible{why and '; '}{why}"
    require(lowest <= value <= highest, f"--{flag}={value} is out of range; {expected}")


def require_factor(value: float, flag: str, why: str = "") -> None:
    require(0 <= value < math.inf, f"--{flag}={value} must be 0 or a positive, finite number{why}")


def require_bits(value: int, flag: str) -> None:
    require(2 <= value <= 8, f"--{flag}={value} is out of range; bit widths of 2 to 8 are possible")


def bit_widths(text: str, name: str) -> tuple[int, int]:
    """Bit widths (weights, activations) from "w2a4", or from "4" for both.

    Args:
      name: the option's name, for messages.

    Raises:
      ExperimentError: another form, or impossible bit widths.
    """
    found = re.fullmatch(r"w(\d{1,4})a(\d{1,4})|(\d{1,4})", text.lower())
    if found is None:
        raise ExperimentError(f"{name}={text} is not understood; write w4a8, or 4 for weights and activations alike")
    weights, activations, both = found.groups()
    widths = int(weights or both), int(activations or both)
    require(
        all(2 <= width <= 8 for width in widths), f"{name}={text} is out of range; bit widths of 2 to 8 are possible"
    )
    return widths
