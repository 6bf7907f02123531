"""Commands in this process: one start of TensorFlow serves all."""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Sequence
from unittest import mock

from docs import flags as pages_of_flags
from qkd_tf.console.command_line import CommandFlags
from tests.saved_flags import saved_flags


def values_of(module: str) -> CommandFlags | None:
    """The flags that a command takes; None where it takes none of absl."""
    command = importlib.import_module(_name(module))
    values = getattr(command, "FLAGS", None) or getattr(getattr(command, "flags", None), "FLAGS", None)
    return values if isinstance(values, CommandFlags) else None


def start(module: str, arguments: Sequence[str] = ()) -> None:
    """What `python -m module arguments` does.

    Raises:
      SystemExit: the command ended with a line; its code is that line.
    """
    command, values = importlib.import_module(_name(module)), values_of(module)
    with contextlib.ExitStack() as stack:
        if values is not None:
            stack.enter_context(saved_flags(values))
            command.main(values([module, *arguments]))
            return
        stack.enter_context(mock.patch.object(sys, "argv", [module, *arguments]))
        command.main(*([list(arguments)] if inspect.signature(command.main).parameters else []))


def _name(module: str) -> str:
    return f"{module}.__main__" if pages_of_flags.path_of(module).name == "__main__.py" else module
