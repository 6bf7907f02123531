"""Messages for a caller in Python, whose flags are keyword arguments. All texts are written for the command line."""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from qkd_tf.console.command_line import CommandFlags

# A command for a terminal, which stays; or a flag, and whether a value, or none, follows its "=".
SPOKEN = re.compile(r"python -m [\w.]+(?: [\w:/.]+)?(?: --[^\s;]+)+|(?<![\w-])--(\w+)(?:(=)(?=[^\s;,)])|(=))?")


def in_keywords(text: str, flags: CommandFlags, renamed: Mapping[str, str]) -> str:
    """A text with keyword arguments for flags: --seed=1 is seed=1, --phases= is phases=[], --nojit is jit=False.

    What `flags` does not have stays as it is, and so do commands, "python -m …".

    Args:
      renamed: arguments that have another name than their flag.
    """

    def keyword(found: re.Match) -> str:
        name, has_value, is_empty = found.groups()
        if name is None:
            return found[0]
        is_off = name not in flags.sections and name.startswith("no")
        name = name.removeprefix("no") if is_off else name
        if name not in flags.sections or (is_off and not flags[name].boolean):
            return found[0]
        value = "=False" if is_off else "=" if has_value else "=[]" if is_empty else ""
        return renamed.get(name, name) + (value or "=True" * flags[name].boolean)

    return SPOKEN.sub(keyword, text)


@contextlib.contextmanager
def speaking_python(
    flags: CommandFlags, renamed: Mapping[str, str], errors: tuple[type[Exception], ...]
) -> Iterator[None]:
    """A context in which all that is printed, and the messages of `errors` that leave it, are `in_keywords`."""
    try:
        with contextlib.redirect_stdout(_InKeywords(sys.stdout, flags, renamed)):
            yield
    except errors as error:
        error.args = (in_keywords(str(error), flags, renamed),)
        raise


class _InKeywords:
    """A stream that is written `in_keywords`; whatever else it is asked for is that of the stream itself."""

    def __init__(self, stream: TextIO, flags: CommandFlags, renamed: Mapping[str, str]):
        self._stream, self._flags, self._renamed = stream, flags, renamed

    def write(self, text: str) -> int:
        return self._stream.write(in_keywords(text, self._flags, self._renamed))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
