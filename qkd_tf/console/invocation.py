"""How this command was started, and so how messages spell the next one.

All texts say "python -m MODULE". Copied into a terminal, that may start another Python than the one that runs now.
"""

import contextlib
import dataclasses
import pathlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

from qkd_tf.console.scripts import COMMANDS
from qkd_tf.console.translation import translated

SPOKEN = re.compile(r"(?<![\w/.-])python -m ((?:qkd_tf|tflite_export|pip)(?:\.\w+)*)\b")


@dataclasses.dataclass(frozen=True)
class Invocation:
    """The words that started a command.

    Attributes:
      python: the interpreter, as it was called; "python" if that is the one that PATH finds.
      script: path of the console script that was called; None for `python -m`.
    """

    python: str
    script: pathlib.Path | None = None

    @classmethod
    def of(
        cls, words: Sequence[str], executable: str, which: Callable[[str], str | None] = shutil.which
    ) -> "Invocation":
        """From the command line of the process.

        Args:
          words: the interpreter and all that followed, as in `sys.orig_argv`.
          executable: the interpreter's path, as in `sys.executable`.
          which: finds a command on PATH.
        """
        found = which("python")
        python = "python" if found and _is_same(found, executable) else (words or [executable])[0]
        script = pathlib.Path(words[1]) if len(words) > 1 else None
        if script is None or script.name not in COMMANDS:
            return cls(python)
        found = which(script.name)
        is_on_path = found is not None and _is_same(found, str(script))
        path = script if script.parent.name else script.absolute()  # of the current folder: a name alone is not found
        return cls(python, pathlib.Path(script.name) if is_on_path else path)

    def spelled(self, text: str) -> str:
        """A text with this interpreter, or a console script, in the place of each "python -m"."""
        return SPOKEN.sub(lambda found: self._command(found[1]), text)

    def _command(self, module: str) -> str:
        scripts = [name for name, row in COMMANDS.items() if row.module == module]
        if self.script is not None and scripts:
            return shlex.quote(str(self.script.with_name(scripts[0])))
        return f"{shlex.quote(self.python)} -m {module}"


@contextlib.contextmanager
def spelled_as_called() -> Iterator[None]:
    """A context in which everything printed, and the line with which a command ends, is `Invocation.spelled`."""
    invocation = Invocation.of(sys.orig_argv, sys.executable)
    try:
        with translated(invocation.spelled):
            yield
    except SystemExit as end:
        if isinstance(end.code, str):  # Python prints it, behind this context
            end.code = invocation.spelled(end.code)
        raise


def _is_same(one: str, other: str) -> bool:
    """Whether two paths name one command. Of one folder, as two environments may link to one interpreter."""
    paths = [pathlib.Path(path).absolute() for path in (one, other)]
    return len({path.parent for path in paths}) == 1 and len({path.resolve() for path in paths}) == 1
