"""What a user may have meant by an unknown name."""

import contextlib
import difflib
import pathlib
from collections.abc import Callable, Collection, Iterable

from qkd_tf.console import synonyms

NUM_NEAR = 3  # most names to suggest if several are equally near
SHORTEST = 3  # letters that an abbreviation of a name must have


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The most similar known name; "" if none is similar.

    Args:
      cutoff: least similarity, from 0 to 1, as difflib measures it.
    """
    return next(iter(_alike(name, list(known), cutoff)), "")


def meant(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of a message that refuses a name: the nearest known names, as a question.

    Args:
      otherwise: what to say if no known name is near; None lists all known names.
    """
    known = list(known)
    *others, last = _alike(name, known) or [""]
    if last:
        return f"did you mean {', '.join(others)}{' or ' * bool(others)}{last}?"
    return f"known are {', '.join(known)}" if otherwise is None else otherwise


def _alike(name: str, known: Collection[str], cutoff: float = 0.6) -> list[str]:
    """What other tools call so; else the most similar known names, all equally similar, in their order.

    Case does not matter. A name that is the beginning of one known name alone means that one.
    """
    if ours := [entry for entry in synonyms.ours(name) if entry in known]:
        return ours[:1]
    folded = {entry: entry.casefold() for entry in known}
    begun = [entry for entry, text in folded.items() if text.startswith(name.casefold())]
    if len(name) >= SHORTEST and len(begun) == 1:
        return begun
    near = difflib.get_close_matches(name.casefold(), folded.values(), n=NUM_NEAR, cutoff=cutoff)
    ratios = {entry: difflib.SequenceMatcher(None, entry, name.casefold()).ratio() for entry in near}
    return [entry for entry, text in folded.items() if text in ratios and ratios[text] == max(ratios.values())]


def meant_path(path: pathlib.Path, fits: Callable[[pathlib.Path], bool], otherwise: str, prefix: str = "") -> str:
    """The end of a message on a path where nothing is: what lies beside it under a similar name, or what to give; and
    where a relative path was looked for.

    Args:
      prefix: what stands before such a path, as in "folder:PICTURES".
    """
    files = beside(path, fits)
    near = nearest(path.name, files)
    told = f"did you mean {prefix}{files[near]}?" if near else otherwise
    return told if path.is_absolute() else f"{told} (paths are relative to {pathlib.Path.cwd()})"


def beside(path: pathlib.Path, fits: Callable[[pathlib.Path], bool]) -> dict[str, pathlib.Path]:
    """Files and folders beside `path` that fit, by name with and without ending."""
    with contextlib.suppress(OSError):
        entries = [entry for entry in path.parent.iterdir() if fits(entry)]
        return {entry.stem: entry for entry in entries} | {entry.name: entry for entry in entries}
    return {}
