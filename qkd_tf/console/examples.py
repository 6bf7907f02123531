"""Rewrites messages for users of signals: all texts are written for pictures, and here they say examples instead."""

import contextlib
import re
from collections.abc import Iterator

from qkd_tf.console.translation import translated

UNIT = re.compile(r"(?<![A-Za-z])image/s\b")  # of progress
# The word alone: no part of a path, a flag, a name in code or a media type; nor where signals are told from pictures.
WORD = re.compile(
    r"(?<![\w/.\-=:\\])(?<!\bfor )(?<!\bif they are )(?:(?P<article>[Aa])n? )?(?P<word>[Ii]mage|[Pp]icture)(?P<s>s?)"
    r"(?![\w\-=(\[\\/]|\.\w| or maps)"
)
TEXT = re.compile(r">[^<]+<")  # of a page, between tags


def in_examples(text: str) -> str:
    """A text with examples instead of images and pictures."""

    def example(found: re.Match[str]) -> str:
        article = f"{found['article']}n " if found["article"] else ""
        return article + ("Example" if found["word"][0].isupper() else "example") + found["s"]

    return WORD.sub(example, UNIT.sub("example/s", text))


def page_in_examples(html: str) -> str:
    """The same for a page, whose tags and attributes stay as they are."""
    return TEXT.sub(lambda found: in_examples(found[0]), html)


@contextlib.contextmanager
def speaking_of_examples(are_signals: bool, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """A context in which what is printed, and messages of `errors`, are put `in_examples` if data are signals."""
    if not are_signals:
        yield
        return
    try:
        with translated(in_examples):
            yield
    except errors as error:
        error.args = (in_examples(str(error)),)
        raise
