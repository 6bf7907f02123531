"""Flags of one command only. absl's global flags belong to the whole program, which may be a user's own.

A command's module has `FLAGS = CommandFlags()` and defines flags by `FLAGS.DEFINE_integer(...)`. absl's own
`flags.DEFINE_integer(...)` would define them for every program that imports the module.
"""

import contextlib
import copy
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags

from qkd_tf.console import help_page, invocation
from qkd_tf.console.nearest import beside, meant, nearest
from qkd_tf.console.scripts import COMMANDS
from qkd_tf.process import call_depth

FLAG_FILES = (".flags", ".txt")  # endings: ours, and a run's flags.txt
UNITS = {"k": 1024, "m": 1024**2}
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([km])i?b?(?:ytes)?", re.IGNORECASE)  # of memory, as data sheets write it

flags.disclaim_key_flags()  # flags are those of the module that defines them here


class _Choice(flags.EnumParser):
    """One of a table's names."""

    def parse(self, argument: str) -> str:
        try:
            return super().parse(argument)
        except ValueError as error:
            told = meant(argument, self.enum_values, str(error)) if isinstance(argument, str) else str(error)
            raise ValueError(told) from None


class _WholeNumber(flags.IntegerParser):
    """absl's parser with a clearer message: absl's own is that of Python's int()."""

    def convert(self, argument: str | int) -> int:
        size = SIZE.fullmatch(argument) if isinstance(argument, str) else None
        in_full = f"{float(size[1]) * UNITS[size[2].lower()]:.0f}" if size else ""
        with _expecting(f"a whole number, such as {in_full} for {argument}," if size else "a whole number"):
            return super().convert(argument)


class _Number(flags.FloatParser):
    """absl's parser with a clearer message: absl's own is that of Python's float()."""

    def convert(self, argument: str | float) -> float:
        with _expecting("a number"):
            return super().convert(argument)


class _List(flags.ListParser):
    """absl's parser, but it refuses an empty entry, as after a comma at the end: absl accepts it without a message."""

    def parse(self, argument: str | list[str] | None) -> list[str]:
        entries = super().parse(argument)
        if len(entries) > 1 and not all(map(str, entries)):
            raise ValueError("an entry is empty; write the list without spaces, and without a comma at its end")
        return entries


class _TruthValue(flags.BooleanParser):
    """absl's parser with a clearer message: absl's own is a tuple."""

    def parse(self, argument: str | int | bool) -> bool:
        with _expecting("true or false"):
            return super().parse(argument)


@contextlib.contextmanager
def _expecting(what: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, AttributeError):
        raise ValueError(f"{what} is expected") from None


def _plain(parser: flags.ArgumentParser) -> flags.ArgumentParser:
    """A parser that takes what absl's takes, and refuses in plain words."""
    if isinstance(parser, flags.EnumParser):  # absl's own lists all names, whatever was meant
        return _Choice(parser.enum_values)
    if isinstance(parser, flags.BooleanParser):
        return _TruthValue()
    if isinstance(parser, flags.ListParser):
        return _List()
    for plain in (_WholeNumber, _Number):
        if isinstance(parser, plain.__base__):
            return plain(parser.lower_bound, parser.upper_bound)
    return parser


class CommandFlags(flags.FlagValues):
    """Flags of one command, with absl's DEFINE functions as methods.

    Attributes:
      sections: flag name -> section of the flag tables, in the order of definition.
      inherited: the same for the flags that `extended` took over.
      common: names of the flags that --help shows; None for all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.update(sections={}, inherited={}, common=None)
        self.begin("")

    def extended(self) -> "CommandFlags":
        """A copy to which a command adds its own flags; only these have sections in it."""
        extended = copy.deepcopy(self)
        extended.__dict__.update(sections={}, inherited={**self.inherited, **self.sections}, section="")
        return extended

    def show_first(self, names: Sequence[str]) -> None:
        """Lets --help show only these flags; --helpfull shows all."""
        self.__dict__["common"] = frozenset(names)

    def hide(self, name: str) -> None:
        """Leaves a retired flag out of --help, --helpfull and docs/flags.md; it is still accepted."""
        del self.__dict__["sections"][name]

    def help(self, doc: str, full: bool) -> str:
        """What --help or --helpfull prints, for the terminal's width; `doc` as in `help_page.page`."""
        common = self.common or frozenset()
        shown: dict[str, list[flags.Flag]] = {}
        for name, section in (*self.sections.items(), *self.inherited.items()):
            is_own = name in self.sections and (self.inherited or self.common is None)
            if full or is_own or name in common:
                shown.setdefault(section, []).append(self[name])
        num_hidden = len(self.sections) + len(self.inherited) - sum(map(len, shown.values()))
        return help_page.page(doc, shown, num_hidden, shutil.get_terminal_size().columns)

    def begin(self, section: str) -> None:
        """Starts a section for the flags that are defined from now on."""
        self.__dict__["section"] = section

    def __getattr__(self, name: str) -> Any:
        if name.startswith("DEFINE_"):
            return functools.partial(self.define, getattr(flags, name))
        return super().__getattr__(name)

    def define(self, define: Callable, name: str, *args: Any, **kwargs: Any) -> flags.FlagHolder:
        """Defines a flag by one of absl's functions, or one like them that takes `flag_values`."""
        self.__dict__["sections"][name] = self.__dict__["section"]
        self.__dict__["inherited"].pop(name, None)  # a command's own flag may take the place of an inherited one
        defined = define(name, *args, flag_values=self, **kwargs)
        self[name].parser = _plain(self[name].parser)
        return defined


def run(main: Callable[[list[str]], None], values: CommandFlags, argv: Sequence[str] | None = None) -> None:
    """Runs a command as the program: `values` become flags of the program, beside absl's.

    If the reader closes the pipe early, as `head` does, the command ends silently.

    Args:
      main: takes the arguments that are not flags, and returns the exit code.
      argv: the command line; None takes that of the process.

    Raises:
      SystemExit: the command's end.
    """

    def parse(arguments: Sequence[str]) -> list[str]:
        try:
            rest = flags.FLAGS(arguments)
        except (flags.Error, UnicodeDecodeError) as error:
            sys.exit(f"error: {_mistake(error)}; --help and --helpfull show the flags")
        values.mark_as_parsed()
        return rest

    doc = sys.modules[main.__module__].__doc__ or ""
    asked = set(sys.argv if argv is None else argv)
    try:
        try:
            with invocation.spelled_as_called(), call_depth.for_deep_networks():
                for arguments in (help_page.SHORT, help_page.FULL):
                    if asked & set(arguments):
                        print(values.help(doc, full=arguments is help_page.FULL), end="")
                        sys.exit(0)
                _register(values)
                app.run(main, argv=argv, flags_parser=parse)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has nowhere to go
        sys.exit(1)


def _mistake(error: Exception) -> str:
    """What is wrong with a command line, in one line."""
    if isinstance(error, flags.CantOpenFlagFileError):  # whose own text is that of the system's error
        cause = error.__context__
        path = pathlib.Path(cause.filename)
        files = beside(path, lambda file: file.suffix in FLAG_FILES and file.is_file())
        near = nearest(path.stem, files)  # endings alone are alike
        hint = f"did you mean {files[near]}?" if near else f"paths are relative to {os.getcwd()}"
        return f"--flagfile={cause.filename} cannot be read: {cause.strerror}; {hint}"
    if isinstance(error, flags.UnrecognizedFlagError):  # whose own text may list many
        if others := _commands_with(error.flagname):
            return f"--{error.flagname} is a flag of {', '.join(others)}, not of this command"
        hint = meant(error.flagname, flags.FLAGS, "")
        return f"Unknown command line flag '{error.flagname}'{hint and '; '}{hint}"
    if isinstance(error, UnicodeDecodeError):
        return "a flag file is not text in UTF-8, one flag a line; --flagfile takes files such as mine.flags"
    return " ".join(str(error).split())


def _commands_with(name: str) -> list[str]:
    """The commands that have a flag of that name, by the modules of their own flags."""
    found = []
    for module, _ in COMMANDS.values():
        is_package = importlib.util.find_spec(module).submodule_search_locations
        command = importlib.import_module(f"{module}.__main__" if is_package else module)
        own = getattr(command, "FLAGS", None) or getattr(getattr(command, "flags", None), "FLAGS", None)
        if isinstance(own, CommandFlags) and {name, name.removeprefix("no")} & own.sections.keys():
            found.append(module)
    return found


def _register(values: CommandFlags) -> None:
    """Turns `values` into absl's global flags, the same objects, and lets --help show them."""
    for module, defined in values.flags_by_module_dict().items():
        for flag in defined:
            if flag.name not in flags.FLAGS or flags.FLAGS[flag.name] is not flag:
                flags.FLAGS[flag.name] = flag
                flags.FLAGS.register_flag_by_module(module, flag)
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
