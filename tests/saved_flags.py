"""What absl's flagsaver does for the global flags, for those of a command."""

import contextlib
from collections.abc import Iterator

from absl.testing import flagsaver

from qkd_tf import flags
from qkd_tf.console.command_line import CommandFlags


@contextlib.contextmanager
def saved_flags(values: CommandFlags = flags.FLAGS) -> Iterator[None]:
    """A context in which `values` may be parsed; other tests see none of it."""
    before = flagsaver.save_flag_values(values)
    try:
        yield
    finally:
        flagsaver.restore_flag_values(before, values)
