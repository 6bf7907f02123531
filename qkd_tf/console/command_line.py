"""Flags that belong to one command: absl's global ones are the program's, which may be a user's own.

A module of a command has `FLAGS = CommandFlags()` and defines by `FLAGS.DEFINE_integer(...)`, never by absl's
`flags.DEFINE_integer(...)`, which would define for every program that imports it.
"""

import functools
import sys
from collections.abc import Callable, Sequence

from absl import app, flags


class CommandFlags(flags.FlagValues):
    """Flags of their own, with absl's DEFINE functions as methods."""

    def __getattr__(self, name: str):
        if name.startswith("DEFINE_"):
            return functools.partial(getattr(flags, name), flag_values=self)
        return super().__getattr__(name)


def run(main: Callable[[list[str]], None], values: CommandFlags, argv: Sequence[str] | None = None) -> None:
    """Runs a command as the program: `values` become flags of the program, beside absl's such as --help.

    Args:
      main: takes the arguments that are no flags; what it returns is the exit code.
      argv: the command line; None for that of the process.

    Raises:
      SystemExit: the command's end.
    """

    def parse(arguments: Sequence[str]) -> list[str]:
        rest = app.parse_flags_with_usage(arguments)
        values.mark_as_parsed()
        return rest

    _adopt(values)
    app.run(main, argv=argv, flags_parser=parse)


def _adopt(values: CommandFlags) -> None:
    """Makes absl's global flags of `values`, the very objects, and shows them by --help."""
    for module, defined in values.flags_by_module_dict().items():
        for flag in defined:
            if flag.name not in flags.FLAGS or flags.FLAGS[flag.name] is not flag:
                flags.FLAGS[flag.name] = flag
                flags.FLAGS.register_flag_by_module(module, flag)
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
