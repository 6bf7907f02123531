"""What the pages hold: prose, code, and the commands in it."""

import pathlib
import re
from typing import NamedTuple

from docs import flags

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(p for folder in ("", "docs", "benchmarks") for p in (ROOT / folder).glob("*.md"))
BLOCK = re.compile(r"(?:^ {4}.*\n?)+", re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
MODULE = re.compile(r"(?:python -m )?((?:qkd_tf|tflite_export|benchmarks|docs)(?:\.\w+)*)(?: (.*))?")
PROGRAM = re.compile(
    r"(?:[A-Z]+=\S* )*(?:\S*/)?(\.ci/run|python|pip|pytest|make|tensorboard|g\+\+|west|idf\.py|export(?= \w+=)) "
)
NAMED = {"qkd_tf.train", *(module for module, _ in flags.TABLES.values())} - {"qkd_tf.flags"}


class Command(NamedTuple):
    """What Python is to run: `rest` is the line behind the module, "" where a page only names the command."""

    module: str
    rest: str = ""


def prose(page: pathlib.Path) -> str:
    """The text without code: of a link whose text is code the target stays."""
    return SPAN.sub("", BLOCK.sub("", page.read_text()))


def blocks(page: pathlib.Path) -> list[list[str]]:
    """Lines of each block of code, joined where they end in a backslash."""
    found = (block.replace("\\\n", " ").splitlines() for block in BLOCK.findall(page.read_text()))
    return [[_as_typed(line) for line in lines] for lines in found]


def spans(page: pathlib.Path) -> list[str]:
    """Inline code."""
    return [_as_typed(span) for span in SPAN.findall(BLOCK.sub("", page.read_text()))]


def code(page: pathlib.Path) -> list[str]:
    """Commands and names: lines of blocks, and inline code."""
    return [line for lines in blocks(page) for line in lines] + spans(page)


def _as_typed(text: str) -> str:
    return " ".join(text.replace("\\|", "|").split())


def command(part: str) -> Command | None:
    """What Python is to run by a line of code, if anything."""
    found = MODULE.fullmatch(part.removeprefix(".venv/bin/").partition(" #")[0])
    if found and ("python -m" in part or found[2] or found[1] in NAMED):
        return Command(found[1], found[2] or "")
    return None


def other_program(part: str) -> str:
    """The line without its comment, if it starts a program, or Python otherwise than by a module of ours; else ""."""
    line = part.removeprefix(".venv/bin/").partition(" #")[0].strip()
    return line if PROGRAM.match(line + " ") and not command(part) else ""


def recipe(target: str) -> list[str]:
    """Lines of a make target."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in found[1].splitlines()]
