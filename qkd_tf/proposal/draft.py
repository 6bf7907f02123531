"""A draft of a flag file: what the user gave, what was chosen for them, and what is left to them."""

import copy
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from qkd_tf import flags
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.console.help_page import ADDED_BY_ABSL
from qkd_tf.experiment import Experiment

WIDTH = 118  # of a line of comment
COMMENT = "# "
BY_PHASE = ("epochs", "learning_rates", "phase_bits")  # lists of an entry a phase
SECTIONS = ("Run", *(section for section in flags.SPECS if section != "Run"))


class Line(NamedTuple):
    """One flag of a file.

    Attributes:
      text: the flag as written in the file; "" for a comment alone.
      why: the comment above it, one sentence.
    """

    name: str
    text: str
    why: str


class Draft:
    """The flags of a training run, some of them given.

    Args:
      values: parsed flags; training flags that the user gave are kept, each with its help as comment.
    """

    def __init__(self, values: CommandFlags):
        self._values = copy.deepcopy(values)
        self._given = {name for name in flags.FLAGS if values[name].present}
        given = [name for name in flags.FLAGS if self.has(name)]
        self._lines = [self._line(name, ADDED_BY_ABSL.sub("", values[name].help)) for name in given]

    @property
    def experiment(self) -> Experiment:
        """The experiment that the flags so far describe.

        Raises:
          ExperimentError: as `flags.experiment_from_flags`.
        """
        values = copy.deepcopy(self._values)
        if values.phases is None:  # they are chosen last, and lists cannot fit them before
            for name in BY_PHASE:
                values[name].value = None
        return flags.experiment_from_flags(values)

    def has(self, name: str) -> bool:
        """Whether the user gave a flag."""
        return name in self._given

    def choose(self, name: str, value: object, why: str) -> None:
        """Sets a flag, unless the user gave it."""
        if not self.has(name):
            self._values[name].value = value
            self._lines.append(self._line(name, why))

    def offer(self, name: str, value: object, why: str) -> None:
        """Writes a flag, commented out, that the user may switch on, unless they gave it."""
        if not self.has(name):
            flag = copy.deepcopy(self._values[name])
            flag.value = value
            self._lines.append(Line(name, COMMENT + flag.serialize(), why))

    def remark(self, name: str, why: str) -> None:
        """Writes a comment on why a flag is not needed, unless the user gave it."""
        if not self.has(name):
            self._lines.append(Line(name, "", why))

    def text(self, header: Iterable[str]) -> str:
        """The file: a header, then the flags by section; flags that share a comment stand under it."""
        blocks = ["".join(map(_comment, header))]
        for section in SECTIONS:
            block, above = "", None
            for line in self._lines:
                if flags.FLAGS.sections[line.name] == section:
                    block += _comment(line.why) if line.why != above else ""
                    block += f"{line.text}\n" if line.text else ""
                    above = line.why
            blocks.append(block)
        return "\n".join(filter(None, blocks))

    def _line(self, name: str, why: str) -> Line:
        return Line(name, self._values[name].serialize(), why)


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - len(COMMENT), break_long_words=False, break_on_hyphens=False)
    return "".join(f"{COMMENT}{line}\n" for line in lines)
