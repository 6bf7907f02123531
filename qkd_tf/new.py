"""Writes a flag file for your own model and data: python -m qkd_tf.new --student=MODEL --dataset=SET --output=my.flags.

It opens both and chooses what fits: size and channels of pictures, batch size, phases, epochs. Flags that you give are
kept. A comment above each flag in the file says why it is there. The file is written once the pre-flight has accepted
it.
"""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import contextlib
import copy
import dataclasses
import io
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING

from qkd_tf import flags
from qkd_tf.console import command_line
from qkd_tf.console.words import in_a_line, require_flags_only
from qkd_tf.experiment import ExperimentError, has_test, require, require_networks, require_set
from qkd_tf.proposal.draft import Draft
from qkd_tf.storage import durable
from qkd_tf.storage.flag_file import require_new

if TYPE_CHECKING:  # it needs TensorFlow
    from qkd_tf.proposal.proposal import Proposal

FLAGS = flags.FLAGS.extended()  # those of the training, and its own
FLAGS.DEFINE_string(
    "output", None, "Flag file to write, NAME.flags; a training with it writes into runs/NAME, or into --run_dir."
)
FLAGS.DEFINE_bool("overwrite", False, "Replace --output if it exists; a run folder is left alone.")
RUNS = pathlib.Path("runs")
NEEDED = {
    "student": "your saved model, such as model.keras, package.module:builder, or a network's name, such as "
    "mobilenet_v2_0.25",
    "dataset": "your pictures, such as --dataset=folder:PICTURES",
    "output": "the file to write, such as --output=my.flags",
}


def begun(values: command_line.CommandFlags) -> Draft:
    """A draft with what the user gave, and a run folder.

    Raises:
      ExperimentError: a required flag is missing, or the file or the folder exists already.
    """
    for name, remedy in NEEDED.items():
        require(values[name].present and bool(values[name].value), f"--{name} is missing; give {remedy}")
    output = pathlib.Path(values.output)
    run_dir = pathlib.Path(values.run_dir) if values.run_dir else RUNS / output.stem
    require_new(output, run_dir, values.overwrite)
    draft = Draft(values)
    draft.choose("run_dir", str(run_dir), "Folder of the run, which the same command resumes.")
    return draft


def accepted(text: str, proposal: "Proposal") -> tuple[str, list[str]]:
    """Runs the pre-flight on a flag file's text.

    Args:
      proposal: has the flags that are assumed in addition, and the data set.

    Returns:
      The totals of the student's table, and the notes.

    Raises:
      ExperimentError: it was refused; the table of layers is printed.
    """
    from qkd_tf.preflight.look import look  # noqa: PLC0415

    values = copy.deepcopy(flags.FLAGS)
    values(["qkd_tf.train", *[line for line in text.splitlines() if line.startswith("--")], *proposal.assumed])
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            totals = look(flags.experiment_from_flags(values), source=proposal.source)
    except ExperimentError:
        print(told.getvalue(), end="")
        raise
    _, _, totals = totals.partition(": ")  # behind the name, which Keras counts up where it builds a network twice
    return totals, [line for line in told.getvalue().splitlines() if line.startswith("note: ")]


def header(values: command_line.CommandFlags, run_dir: str) -> list[str]:
    """The first lines of the file."""
    return [
        f"Command:   {training(values)}",
        f"Then:      {exporting(values, run_dir)}",
        f"Shows:     {values.student} at low bit widths on {values.dataset}; written by python -m qkd_tf.new",
    ]


def training(values: command_line.CommandFlags) -> str:
    return shlex.join(["python", "-m", "qkd_tf.train", f"--flagfile={values.output}"])


def exporting(values: command_line.CommandFlags, run_dir: str) -> str:
    return shlex.join(["python", "-m", "tflite_export", f"--run_dir={run_dir}", f"--target={values.target}"])


def write(values: command_line.CommandFlags) -> None:
    """Writes the file of --output, and prints what was found and what to type next."""
    draft = begun(values)
    require_networks(draft.experiment)
    data = draft.experiment.data
    require_set(data if has_test(data) else dataclasses.replace(data, test_fraction=0.5))  # chosen later: any will do
    # After all checks that need only flags and files: TensorFlow takes seconds to import.
    from qkd_tf.console import quiet  # noqa: F401, PLC0415
    from qkd_tf.proposal.proposal import propose  # noqa: PLC0415

    proposal = propose(draft)
    print(*proposal.found, sep="\n")
    run_dir = draft.experiment.run_dir
    text = draft.text(header(values, run_dir))
    totals, notes = accepted(text, proposal)
    told = dict.fromkeys(proposal.found)
    print(*(note for note in dict.fromkeys(notes) if note not in told), f"pre-flight: accepted: {totals}", sep="\n")
    durable.write_whole(pathlib.Path(values.output), text)
    for line in proposal.undecided:
        print(f"to decide in {values.output}: {line}")
    print(f"{values.output} written; next: {training(values)}", f"then: {exporting(values, run_dir)}", sep="\n")


def main(argv: list[str]) -> None:
    require_flags_only(argv, FLAGS, ("student", "dataset", "output"))
    try:
        write(FLAGS)
    except (ExperimentError, OSError) as error:
        sys.exit(f"error: {in_a_line(error)}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
