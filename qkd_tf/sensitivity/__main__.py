"""Measures which layers tolerate few bits: python -m qkd_tf.sensitivity --run_dir=runs/NAME [--max_flash_bytes=N].

It takes the student of a finished run, gives one layer after another fewer bits (kernel and input, with calibrated
intervals), and measures top-1 on the validation split; the test split is kept for the final test. An 8-bit run that was
calibrated without training (--phases=) is a good start. With a budget, --max_flash_bytes for the whole file or
--max_weight_bytes for kernels at their bit widths, it suggests a --bits_rule for each layer that gets fewer bits.
--output=NAME.flags writes the flag file that trains with these rules.
"""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import copy
import pathlib
import sys
from collections.abc import Iterable

from qkd_tf import flags
from qkd_tf.console import command_line
from qkd_tf.console.words import require_flags_only
from qkd_tf.contract.resuming import to_its_end
from qkd_tf.experiment import Experiment, ExperimentError, require, require_bits, require_set
from qkd_tf.storage import durable
from qkd_tf.storage.flag_file import run_of

FLAGS = flags.FLAGS.extended()  # those of the training, and its own
FLAGS.DEFINE_list("try_bits", ["4", "2"], "Bit widths to try on each layer, 2..8.")
FLAGS.DEFINE_integer(
    "max_weight_bytes",
    0,
    "Budget for all kernels at their bit widths, in bytes; the suggested rules meet it. 0: no budget, or that of "
    "--max_flash_bytes, which counts the file as --target stores it.",
)
FLAGS.DEFINE_string(
    "output",
    None,
    "Flag file to write, NAME.flags: the flags of the run and the suggested rules, for training a new run NAME.",
)


def flag_file(values: flags.flags.FlagValues, rules: Iterable[str], run_dir: pathlib.Path) -> str:
    """A flag file for the experiment of `values`, with another folder, and these rules instead of its own."""
    spec = flags.experiment_from_flags(values).quantization
    changed = {"run_dir": str(run_dir), "bits": None, "bits_rule": list(rules)}
    changed |= {name: getattr(spec, name) for name in flags.WIDTHS}
    values = copy.deepcopy(values)
    for name, value in changed.items():
        values[name].value = value
    return "\n".join(filter(None, flags.flag_lines(values))) + "\n"


def flags_of_run() -> None:
    """Reads the flags of the run in --run_dir; those on the command line override them."""
    require(FLAGS.run_dir is not None, "--run_dir is missing; give the folder of a finished run, such as runs/demo")
    file = pathlib.Path(FLAGS.run_dir) / "flags.txt"
    require(file.is_file(), f"--run_dir={FLAGS.run_dir} is not a run: it has no flags.txt")
    present = [name for name in FLAGS if FLAGS[name].present]
    given = "\n".join(FLAGS[name].serialize() for name in present)
    replaced = [f"--{other}=" for name, others in flags.INSTEAD.items() if name in present for other in others]
    of_run = [line for line in file.read_text().splitlines() if not line.startswith(tuple(replaced))]
    flags.unparse(FLAGS)
    FLAGS(["sensitivity", *of_run, *given.splitlines()])


def require_finished(run_dir: str) -> None:
    """Raises ExperimentError if there is no finished run, or its handoff was changed."""
    try:
        durable.check(pathlib.Path(run_dir) / "handoff")
    except durable.DamageError as damage:
        raise ExperimentError(f"{damage}; {to_its_end(run_dir)}") from damage


def tried_widths() -> list[int]:
    """The bit widths in --try_bits."""
    require(
        all(bits.isdecimal() for bits in FLAGS.try_bits),
        f"--try_bits={','.join(FLAGS.try_bits)}: give whole numbers from 2 to 8",
    )
    widths = [int(bits) for bits in FLAGS.try_bits]
    for width in widths:
        require_bits(width, "try_bits")
    return widths


def new_run(experiment: Experiment) -> pathlib.Path | None:
    """The folder into which the flag file --output trains; None without --output."""
    budgets = FLAGS.max_weight_bytes, experiment.target.max_flash_bytes
    require(
        not all(budgets),
        f"--max_weight_bytes={budgets[0]} and --max_flash_bytes={budgets[1]} are two budgets; give one, and 0 for the "
        "other",
    )
    require(
        not FLAGS.output or any(budgets),
        f"--output={FLAGS.output} needs a budget; give --max_flash_bytes or --max_weight_bytes",
    )
    return run_of(pathlib.Path(FLAGS.output), pathlib.Path(experiment.run_dir)) if FLAGS.output else None


def main(argv: list[str]) -> None:
    require_flags_only(argv, FLAGS, ("run_dir", "output"))
    try:
        flags_of_run()
        widths = tried_widths()
        experiment = flags.experiment_from_flags(FLAGS)
        run_dir = new_run(experiment)
        require_finished(experiment.run_dir)
        require_set(experiment.data)
        # After all checks that need only flags and files: TensorFlow takes seconds to import.
        from qkd_tf.console import quiet  # noqa: F401, PLC0415
        from qkd_tf.sensitivity.look import look  # noqa: PLC0415

        rules = look(experiment, widths, FLAGS.max_weight_bytes)
        if run_dir and not rules:
            print(f"{FLAGS.output} is not written: it would train {experiment.run_dir} again")
        elif run_dir:
            durable.write_whole(pathlib.Path(FLAGS.output), flag_file(FLAGS, rules, run_dir))
            print(f"flags written for {run_dir}; next: python -m qkd_tf.train --flagfile={FLAGS.output}")
    except ExperimentError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
