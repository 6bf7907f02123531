"""Messages that the page quotes are those of the code, and every error of the code is on the page.

A message is compared with "…" in the place of each value, so an f-string is its constant parts.
"""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = [path for package in ("qkd_tf", "tflite_export") for path in sorted((ROOT / package).rglob("*.py"))]
TREES = [ast.parse(path.read_text()) for path in SOURCES]
VALUE = "…"
# What ends a command with a line -> which argument is that line.
ERRORS = {
    "ExperimentError": 0,
    "ExportError": 0,
    "DamageError": 0,
    "MissingResultError": 0,
    "AmplifiedError": 0,
    "UnreadableError": 0,
    "FolderInUseError": 0,
    "OSError": 0,
    "exit": 0,
    "require": 1,
}
LETTERS = 8


def text_of(node):
    """A string expression with VALUE for what is known when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return VALUE


def errors():
    """(place, message) of each line with which the code ends a command."""
    found = []
    for path, tree in zip(SOURCES, TREES, strict=True):
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            index = ERRORS.get(call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", ""))
            if index is not None and len(call.args) > index:
                found.append((f"{path.relative_to(ROOT)}:{call.lineno}", text_of(call.args[index])))
    return [(place, message) for place, message in found if is_telling(message)]


def is_telling(message):
    """Whether it has words of its own: else it hands on a message that is found where it is made."""
    return len(re.findall(r"\w", message.removeprefix("error: "))) >= LETTERS


def quoted():
    """What stands in code in the first column of the page's tables."""
    lines = (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
    first_cells = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    return [message for cell in first_cells for message in re.findall("`(.+?)`", cell)]


@pytest.fixture(scope="module")
def told():
    """All that the program may say: strings of the code, and files that are not Python."""
    strings = [text_of(n) for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.Constant | ast.JoinedStr)]
    sums = [text_of(node) for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
    others = [ROOT / "Makefile", *(ROOT / "tflite_export").rglob("*.j2")]
    return strings + sums + [path.read_text() for path in others]


def test_what_is_quoted_is_said_by_the_code(told):
    assert [message for message in quoted() if not any(message in text for text in told)] == []


def test_every_error_is_on_the_page():
    parts = [part for part in quoted() if is_telling(part)]
    assert [(place, text) for place, text in errors() if not any(part in text for part in parts)] == []


def test_the_errors_are_found():
    messages = [message for _, message in errors()]
    assert "--run_dir=…: … is a file; give a folder" in messages  # an f-string in parts
    assert "--…=… must be 0 or a positive, finite number…" in messages  # by require
    assert len(messages) > 130
