"""Writes docs/flags.md from the code: python -m docs.flags.

A module's source is run under another name, since that of a package's command is `__main__`.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import ast
import pathlib
import re
import runpy
from typing import NamedTuple

from absl import flags

from qkd_tf.console.command_line import CommandFlags
from qkd_tf.console.help_page import ADDED_BY_ABSL
from qkd_tf.flags import OPTIONS

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "flags.md"

# Title -> the module that defines the flags, and what is to know of them.
TABLES = {
    "Training": (
        "qkd_tf.flags",
        "`python -m qkd_tf.train` takes these. `python -m qkd_tf.preflight`, `python -m qkd_tf.sensitivity` and\n"
        "`python -m qkd_tf.ablation` take them too, in addition to their own.",
    ),
    "Writing a flag file": (
        "qkd_tf.new",
        "`python -m qkd_tf.new --student=MODEL --dataset=folder:PICTURES --output=NAME.flags`. It also takes the\n"
        "training flags, and writes them into the file unchanged.",
    ),
    "Pre-flight": (
        "qkd_tf.preflight",
        "`python -m qkd_tf.preflight --flagfile=FILE`. It also takes the training flags.",
    ),
    "Export": ("tflite_export", "`python -m tflite_export --run_dir=RUN`"),
    "Verification": ("tflite_export.verify", "`python -m tflite_export.verify --tflite=FILE --handoff=RUN/handoff`"),
    "Comparison": ("qkd_tf.compare", "`python -m qkd_tf.compare RUN RUN …`"),
    "Sensitivity": (
        "qkd_tf.sensitivity",
        "`python -m qkd_tf.sensitivity --run_dir=RUN`. It also takes the training flags, which override those of the\n"
        "run.",
    ),
    "Ablation": ("qkd_tf.ablation", "`python -m qkd_tf.ablation --flagfile=FILE`. It also takes the training flags."),
    "Doctor": ("qkd_tf.doctor", "`python -m qkd_tf.doctor`"),
    "Preparing a data set": ("qkd_tf.data.prepare", "`python -m qkd_tf.data.prepare NAME`"),
}

INTRODUCTION = """# Every flag

Generated from the code by `make docs`; do not edit. [Settings](settings.md) groups the main flags by purpose.
[Method](method.md) says how the flags of the method enter its equations.

Each command's `--help` shows the most common flags, `--helpfull` all of them. Write a flag as `--weight_bits=2`, a
boolean as `--horizontal_flip` or `--nohorizontal_flip`, a list with commas. A flag without a default is empty, or its
meaning says how it is decided. `--flagfile=FILE` reads flags from a file, one per line (not in `qkd_tf.doctor` and
`qkd_tf.data.prepare`). The last value of a flag counts, so flags after the file override it.
[Troubleshooting](troubleshooting.md#flags) explains the messages about wrong values.
"""


class Row(NamedTuple):
    """A flag as a user sees it."""

    section: str
    name: str
    kind: str
    default: str
    meaning: str


def path_of(module: str) -> pathlib.Path:
    """The file that `python -m module` runs; it need not exist."""
    path = ROOT / module.replace(".", "/")
    package = path / "__main__.py"
    return package if package.is_file() else path.with_suffix(".py")


def rows(module: str) -> list[Row]:
    """The flags that a module defines itself, of absl or of argparse."""
    path = path_of(module)
    if calls := _declaring_calls(ast.parse(path.read_text())):
        return [_of_argparse(action) for action in _actions(calls)]
    values = _absl_flags(path)
    return [_of_absl(values[name], section) for name, section in values.sections.items()]


def names(module: str) -> set[str]:
    """Those of the flags that a module defines itself."""
    source = path_of(module).read_text()
    written = re.findall(r'(?:DEFINE_\w+|add_argument)\(\s*"(?:--)?(\w+)"', source)
    return {*written, *(option.name for option in OPTIONS if module == "qkd_tf.flags")}


def _absl_flags(path: pathlib.Path) -> CommandFlags:
    """absl's flags of a module, which is run for that under another name."""
    return runpy.run_path(str(path), run_name=f"docs.{path.stem}")["FLAGS"]


def page() -> str:
    """docs/flags.md."""
    parts = [INTRODUCTION]
    for title, (module, text) in TABLES.items():
        parts.append(f"## {title}\n\n{text}\n")
        found = rows(module)
        for section in dict.fromkeys(row.section for row in found):
            lines = [("flag", "values", "default", "meaning"), ("---",) * 4]
            lines += [row[1:] for row in found if row.section == section]
            table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
            parts.append((f"### {section}\n\n" if section else "") + table + "\n")
    return "\n".join(parts)


def _declaring_calls(tree: ast.Module) -> list[ast.Call]:
    """Calls such as parser.add_argument(...), in the order of the source."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return sorted((call for call in calls if call.func.attr == "add_argument"), key=lambda call: call.lineno)


def _of_absl(flag: flags.Flag, section: str) -> Row:
    kind = " \\| ".join(f"`{value}`" for value in getattr(flag.parser, "enum_values", ())) or KINDS[flag.flag_type()]
    meaning = ADDED_BY_ABSL.sub("", flag.help)
    return Row(section, f"`--{flag.name}`", kind, _default(flag.default), _cell(meaning))


KINDS = {
    "string": "text",
    "multi string": "text, repeatable",
    "comma separated list of strings": "list",
    "int": "whole number",
    "float": "number",
    "bool": "boolean",
    "size": "pixels",
}


def _actions(calls: list[ast.Call]) -> list[argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    return [
        parser.add_argument(
            *map(ast.literal_eval, call.args), **{k.arg: ast.literal_eval(k.value) for k in call.keywords}
        )
        for call in calls
    ]


def _of_argparse(action: argparse.Action) -> Row:
    name = action.option_strings[0] if action.option_strings else action.dest.upper()
    return Row("", f"`{name}`", "text", _default(action.default), _cell(action.help))


def _default(value: object) -> str:
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    text = text[0].upper() + text[1:].rstrip(".")
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(page())
