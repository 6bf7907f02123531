"""What --help and --helpfull print: flags by section, with their values, defaults and meaning."""

import re
import textwrap
from collections.abc import Iterable, Mapping

from absl import flags

SHORT, FULL = ("--help", "-help", "--helpshort", "-helpshort", "-h"), ("--helpfull", "-helpfull")
INDENT, NARROWEST = 34, 72
ADDED_BY_ABSL = re.compile(r"^<.*?>: |;\s+repeat this option to specify a list of values$")


def page(doc: str, sections: Mapping[str, Iterable[flags.Flag]], num_hidden: int, width: int) -> str:
    """The help of a command.

    Args:
      doc: docstring of the command's module, "What it does: how it is called", and what follows.
      sections: flags by section, in the order in which they are shown.
      num_hidden: flags that only --helpfull shows.
      width: of the terminal, in columns.
    """
    width = max(width, NARROWEST)
    first, _, rest = doc.strip().partition("\n")
    what, _, usage = first.partition(": python -m ")
    parts = [f"{what.rstrip('.')}.", f"    python -m {usage.rstrip('.')}" if usage else "", rest.strip()]
    for section, shown in sections.items():
        rows = "\n".join(_row(flag, width) for flag in shown)
        parts.append(f"{section}\n{rows}" if section else rows)
    parts.append("--flagfile=FILE reads flags from a file, one per line; flags that follow it override them.")
    if num_hidden:
        parts.append(f"{num_hidden} more flags: see --helpfull or docs/flags.md.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(flag: flags.Flag, width: int) -> str:
    lead = f"  {_spelling(flag)}"
    meaning = ADDED_BY_ABSL.sub("", flag.help or "")
    if choices := getattr(flag.parser, "enum_values", ()):
        meaning += f" One of {', '.join(choices)}."
    lines = textwrap.wrap(meaning, width - INDENT) or [""]
    if len(lead) >= INDENT:
        lines.insert(0, "")
    first, *others = lines
    return "\n".join([f"{lead:{INDENT}}{first}".rstrip(), *(" " * INDENT + line for line in others)])


def _spelling(flag: flags.Flag) -> str:
    """A flag as it is typed, with its default."""
    if flag.boolean:
        return f"--[no]{flag.name}" if flag.default is None else f"--{'no' * (not flag.default)}{flag.name}"
    default = ",".join(flag.default) if isinstance(flag.default, list | tuple) else flag.default
    return f"--{flag.name}={'' if default is None else default}"
