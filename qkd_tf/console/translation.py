"""What is printed, in other words: each text is translated on its way to the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

Translate = Callable[[str], str]


@contextlib.contextmanager
def translated(translate: Translate) -> Iterator[None]:
    """A context or decorator in which everything printed is translated."""
    with (
        contextlib.redirect_stdout(_Stream(sys.stdout, translate)),
        contextlib.redirect_stderr(_Stream(sys.stderr, translate)),
    ):
        yield


class _Stream:
    """A stream whose text is translated; all else is passed to the stream itself."""

    def __init__(self, stream: TextIO, translate: Translate):
        self._stream, self._translate = stream, translate

    def write(self, text: str) -> int:
        return self._stream.write(self._translate(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
