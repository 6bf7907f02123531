"""Measures which layers tolerate few bits: python -m qkd_tf.sensitivity --run_dir=runs/NAME [--max_flash_bytes=N].

It takes the student of a finished run, gives one layer after the other fewer bits (kernel and input, intervals by
calibration), and measures top-1 on the validation split; the test split is kept for the final test. A run of 8 bits
that was calibrated without training (--phases=) is a good start. With a budget, --max_flash_bytes of the whole file or
--max_weight_bytes of kernels at their bit widths, it suggests a --bits_rule for each layer that gets fewer bits.
--output=NAME.flags writes the flag file that trains with these rules.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import copy
import dataclasses
import itertools
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping

from absl import app

from qkd_tf import data, flags
from qkd_tf.console import command_line
from qkd_tf.contract.grid import load_params
from qkd_tf.experiment import Experiment, ExperimentError, TargetSpec, require, require_bits
from qkd_tf.quantization.standard_form import standard_form
from qkd_tf.quantization.stored_bytes import StoredWidths
from qkd_tf.search.byte_budget import ByteBudget
from qkd_tf.search.subject import Examples, Sensitivity, Subject, measure, of_kernel, table
from qkd_tf.storage import durable
from qkd_tf.storage.flag_file import run_of
from qkd_tf.storage.saved_model import load_model

FLAGS = flags.FLAGS.extended()  # those of the training, and its own
FLAGS.DEFINE_list("try_bits", ["4", "2"], "Bit widths to try on each layer, 2..8.")
FLAGS.DEFINE_integer(
    "max_weight_bytes",
    0,
    "Budget for all kernels at their bit widths, in bytes; the suggested rules meet it. 0: no budget, or that of "
    "--max_flash_bytes, which counts the file as --target stores it.",
)
FLAGS.DEFINE_string(
    "output", None, "Flag file to write, NAME.flags: the flags of the run with the suggested rules, for a new run NAME."
)


def subject_of(experiment: Experiment, splits: data.Splits) -> Subject:
    """The student of a finished run, with the intervals that were trained.

    Raises:
      ExperimentError: no finished run, or one whose handoff was changed.
    """
    handoff, spec = pathlib.Path(experiment.run_dir) / "handoff", experiment.quantization
    try:
        durable.check(handoff)
    except durable.DamageError as damage:
        raise ExperimentError(f"{damage}; run python -m qkd_tf.train to its end first") from damage
    saved = load_model(handoff / "student.keras")
    plain = standard_form(saved, splits.image_shape, None, experiment.student.normalization).model
    kernels, tensors = (load_params(handoff / f"{what}_params.json") for what in ("weight", "tensor"))
    if spec.finds_bits:
        found = tuple(of_kernel(layer, params.grid.num_bits) for layer, params in kernels.items())
        spec = dataclasses.replace(spec, finds_bits=False, bits_rule=found + spec.bits_rule)
    images = [images for images, _ in splits.calibration.take(spec.calibration_batches)]
    return Subject(plain, spec, Examples(images, splits.validation), experiment.seed, kernels, tensors)


def budget_of(subject: Subject, stored: StoredWidths, target: TargetSpec, max_weight_bytes: int) -> ByteBudget | None:
    """What flags ask for; None where they ask for nothing.

    Raises:
      ExperimentError: two budgets.
    """
    require(
        not (max_weight_bytes and target.max_flash_bytes),
        f"--max_weight_bytes={max_weight_bytes} and --max_flash_bytes={target.max_flash_bytes} are two budgets; give "
        "one, and 0 for the other",
    )
    if target.max_flash_bytes:
        return ByteBudget("max_flash_bytes", target.max_flash_bytes, stored.kernel_bytes, stored.other_bytes)
    return ByteBudget("max_weight_bytes", max_weight_bytes, subject.true_bytes) if max_weight_bytes else None


def suggest(rows: list[Sensitivity], trained: Mapping[str, int], budget: ByteBudget) -> list[Sensitivity]:
    """The rows of layers that give way, for the least sum of losses within the budget; train with them, and look.

    Args:
      trained: bits by layer.

    Raises:
      ExperimentError: even all layers at their fewest bits are too large.
    """
    found = budget.widths(trained, rows)
    return [row for row in rows if found[row.layer] == row.num_bits != trained[row.layer]]


def flag_file(
    values: flags.flags.FlagValues, rules: Iterable[str], chosen: list[Sensitivity], run_dir: pathlib.Path
) -> str:
    """The experiment that `values` describe, in another folder and with the rules of these rows behind its `rules`."""
    spec = flags.experiment_from_flags(values).quantization
    changed = {"run_dir": str(run_dir), "bits": None, "bits_rule": [*rules, *(row.rule for row in chosen)]}
    changed |= {name: getattr(spec, name) for name in flags.WIDTHS}
    values = copy.deepcopy(values)
    for name, value in changed.items():
        values[name].value = value
    return "\n".join(filter(None, flags.flag_lines(values))) + "\n"


def flags_of_run() -> None:
    """Puts the flags of the run of --run_dir below those that the command line gave."""
    require(FLAGS.run_dir is not None, "--run_dir is missing; give the folder of a finished run, such as runs/demo")
    file = pathlib.Path(FLAGS.run_dir) / "flags.txt"
    require(file.is_file(), f"--run_dir={FLAGS.run_dir} is not a run: it has no flags.txt")
    given = "\n".join(FLAGS[name].serialize() for name in FLAGS if FLAGS[name].present)
    FLAGS.unparse_flags()
    FLAGS(["sensitivity", *file.read_text().splitlines(), *given.splitlines()])


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        flags_of_run()
        require(
            all(bits.isdecimal() for bits in FLAGS.try_bits),
            f"--try_bits={','.join(FLAGS.try_bits)}: give whole numbers from 2 to 8",
        )
        widths = [int(bits) for bits in FLAGS.try_bits]
        for width in widths:
            require_bits(width, "try_bits")
        experiment = flags.experiment_from_flags(FLAGS)
        run_dir = pathlib.Path(experiment.run_dir)
        require(
            not FLAGS.output or bool(FLAGS.max_weight_bytes or FLAGS.max_flash_bytes),
            f"--output={FLAGS.output} needs a budget; give --max_flash_bytes or --max_weight_bytes",
        )
        new_run = run_of(pathlib.Path(FLAGS.output), run_dir) if FLAGS.output else None
        splits = data.load(dataclasses.replace(experiment.data, augment=""))  # nothing is trained
        subject = subject_of(experiment, splits)
        stored = StoredWidths(subject.plain, subject.plan, experiment.target, subject.spec)
        budget = budget_of(subject, stored, experiment.target, FLAGS.max_weight_bytes)
        identity = {"quantization": dataclasses.asdict(experiment.quantization), "data": splits.fingerprint}
        identity["max_eval_images"] = experiment.data.max_eval_images
        cells = list(itertools.product(subject.layers, widths))
        rows = measure(subject, cells, run_dir / "sensitivity.json", json.loads(json.dumps(identity)))
        print(table(rows, stored.kernel_bytes, subject.bits))
        for words, count in (
            ("at their bit widths", subject.true_bytes),
            (f"as {experiment.target.target} stores them", stored.kernel_bytes),
        ):
            print(f"kernels {words}: {ByteBudget('', 0, count).needed(subject.bits):,.0f} bytes")
        if budget is None:
            return
        chosen = suggest(rows, subject.bits, budget)
        needed = budget.needed(subject.bits | {row.layer: row.num_bits for row in chosen})
        loss = sum(max(row.loss, 0.0) for row in chosen)
        print(f"rules for {budget.num_bytes:,} bytes: about {needed:,.0f} bytes, sum of losses {loss:.2f} points")
        print(
            *([f"--bits_rule='{row.rule}'" for row in chosen] or ["no rule is needed: the run fits as it is"]), sep="\n"
        )
        if new_run:
            durable.write_whole(pathlib.Path(FLAGS.output), flag_file(FLAGS, subject.spec.bits_rule, chosen, new_run))
            print(f"flags written for {new_run}; next: python -m qkd_tf.train --flagfile={FLAGS.output}")
    except ExperimentError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
