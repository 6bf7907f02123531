"""What a user may have meant by a name that is not there."""

import contextlib
import difflib
import pathlib
from collections.abc import Callable, Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like it; "" where none is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def beside(path: pathlib.Path, fits: Callable[[pathlib.Path], bool]) -> dict[str, pathlib.Path]:
    """By name, with its ending and without, what fits of the files and folders that lie where `path` would."""
    with contextlib.suppress(OSError):
        entries = [entry for entry in path.parent.iterdir() if fits(entry)]
        return {entry.stem: entry for entry in entries} | {entry.name: entry for entry in entries}
    return {}
