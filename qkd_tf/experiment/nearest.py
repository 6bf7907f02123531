"""What a user may have meant by an unknown name."""

import contextlib
import difflib
import pathlib
from collections.abc import Callable, Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar known name; "" if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def beside(path: pathlib.Path, fits: Callable[[pathlib.Path], bool]) -> dict[str, pathlib.Path]:
    """Files and folders beside `path` that fit, by name with and without ending."""
    with contextlib.suppress(OSError):
        entries = [entry for entry in path.parent.iterdir() if fits(entry)]
        return {entry.stem: entry for entry in entries} | {entry.name: entry for entry in entries}
    return {}
