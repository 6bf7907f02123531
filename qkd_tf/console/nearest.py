"""What a user may have meant by a name that is not there."""

import contextlib
import difflib
import pathlib
from collections.abc import Callable, Iterable

NUM_NEAR = 3  # names that are told where several are equally near


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like it; "" where none is like it."""
    return next(iter(_alike(name, known)), "")


def meant(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The question whether the nearest of the known names was meant, the end of a message that refuses a name.

    Args:
      otherwise: what is said where no known name is near; None lists all of them.
    """
    known = list(known)
    *others, last = _alike(name, known) or [""]
    if last:
        return f"did you mean {', '.join(others)}{' or ' * bool(others)}{last}?"
    return f"known are {', '.join(known)}" if otherwise is None else otherwise


def _alike(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are most like it, all equally, in their order; capitals make no difference."""
    folded = {entry: entry.casefold() for entry in known}
    near = difflib.get_close_matches(name.casefold(), folded.values(), n=NUM_NEAR)
    ratios = {entry: difflib.SequenceMatcher(None, entry, name.casefold()).ratio() for entry in near}
    return [entry for entry, text in folded.items() if text in ratios and ratios[text] == max(ratios.values())]


def beside(path: pathlib.Path, fits: Callable[[pathlib.Path], bool]) -> dict[str, pathlib.Path]:
    """By name, with its ending and without, what fits of the files and folders that lie where `path` would."""
    with contextlib.suppress(OSError):
        entries = [entry for entry in path.parent.iterdir() if fits(entry)]
        return {entry.stem: entry for entry in entries} | {entry.name: entry for entry in entries}
    return {}
