"""Which layers bear few bits: python -m qkd_tf.sensitivity --run_dir=runs/NAME --try_bits=4,2 [--max_flash_bytes=N].

Takes the student of a finished run, gives one layer after the other fewer bits (kernel and input, intervals by
calibration), and looks at the validation split: never at the test split, which is for the final look. A run of 8 bits
after calibration alone (--phases=) is a good start. With a budget, --max_flash_bytes of the whole file or
--max_weight_bytes of kernels at their true widths, it suggests a --bits_rule for each layer that gives way, and
--output=NAME.flags writes the flag file that trains so.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import copy
import dataclasses
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from absl import app
from tqdm import tqdm

from qkd_tf import data, flags
from qkd_tf.console import command_line
from qkd_tf.contract.grid import load_params, weight_grid
from qkd_tf.evaluate import top1_of
from qkd_tf.experiment import Experiment, ExperimentError, require, require_bits
from qkd_tf.outcome.byte_budget import ByteBudget, bytes_beside_kernels
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.forward import QuantizedForward, quantized_forward
from qkd_tf.quantization.layer_table import kernel_bytes
from qkd_tf.quantization.standard_form import standard_form
from qkd_tf.storage import durable
from qkd_tf.storage.flag_file import run_of
from qkd_tf.storage.saved_model import load_model

FLAGS = flags.FLAGS.extended()  # those of the training, and its own
FLAGS.DEFINE_list("try_bits", ["4", "2"], "Bit widths to try on each layer, 2..8, a list.")
FLAGS.DEFINE_integer(
    "max_weight_bytes",
    0,
    "Bytes of all kernels at their widths, to suggest rules for; 0: none, or --max_flash_bytes, which counts the "
    "file as --target stores it.",
)
FLAGS.DEFINE_string(
    "output", None, "Flag file to write, NAME.flags: the run's flags with the rules found, for a run NAME."
)


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """One layer at one width.

    Attributes:
      num_bits: of the layer's kernel and of its input.
      top1: of the student on the validation split, in percent, all other layers as they were trained.
      loss: points of top-1 below the trained student's.
      saved_bytes: of the kernel at its true width; negative where `num_bits` is more than it was trained at.
    """

    layer: str
    num_bits: int
    top1: float
    loss: float
    saved_bytes: float

    @property
    def rule(self) -> str:
        return f"{re.escape(self.layer)}=w{self.num_bits}a{self.num_bits}"


class Subject:
    """The student of a finished run, to be quantized in other ways.

    Raises:
      ExperimentError: no finished run, or one whose handoff was changed.
    """

    def __init__(self, experiment: Experiment, splits: data.Splits):
        handoff, spec = pathlib.Path(experiment.run_dir) / "handoff", experiment.quantization
        try:
            durable.check(handoff)
        except durable.DamageError as damage:
            raise ExperimentError(f"{damage}; run python -m qkd_tf.train to its end first") from damage
        saved = load_model(handoff / "student.keras")
        self.plain = standard_form(saved, splits.image_shape, None, experiment.student.normalization).model
        self._spec, self._splits, self._seed = spec, splits, experiment.seed
        self._trained_kernels = load_params(handoff / "weight_params.json")
        self._trained_tensors = load_params(handoff / "tensor_params.json")
        self._images = [images for images, _ in splits.calibration.take(spec.calibration_batches)]
        self._target = experiment.target
        self.bits = {layer: params.grid.num_bits for layer, params in self._trained_kernels.items()}
        self.layers = list(self.bits)

    def top1(self, *rules: str) -> float:
        """On the validation split, in percent, with these bits rules after those of the run."""
        spec = dataclasses.replace(self._spec, bits_rule=self._spec.bits_rule + rules)
        student = quantized_forward(self.plain, spec)
        calibrate(student, self._images, spec.interval_init, self._seed, only=self._take_trained_intervals(student))
        self._take_trained_intervals(student)  # of a kernel whose layer hands on another tensor, or the reverse
        seen = [(student.logits(images).numpy(), np.asarray(labels)) for images, labels in self._splits.validation]
        return top1_of(*(np.concatenate(part) for part in zip(*seen, strict=True)))

    def _take_trained_intervals(self, student: QuantizedForward) -> set[str]:
        """Where the grid is the trained one. Returns the names of layers of which a grid is another."""
        others = set()
        pairs = ((student.weights, self._trained_kernels), (student.outputs, self._trained_tensors))
        for tensors, trained in pairs:
            for name, tensor in tensors.items():
                if name in trained and tensor.grid == trained[name].grid:
                    tensor.interval.assign(trained[name].scale)
                else:
                    others.add(name)
        return others

    def saved_bytes(self, layer: str, num_bits: int) -> float:
        return self.true_bytes(layer, self.bits[layer]) - self.true_bytes(layer, num_bits)

    def true_bytes(self, layer: str, num_bits: int) -> float:
        """Of a kernel at its width, with nothing between its integers."""
        return self._num_weights(layer) * num_bits / 8

    def stored_bytes(self, layer: str, num_bits: int) -> int:
        """Of a kernel as the run's target stores it by --weight_storage=auto."""
        fits_int4 = weight_grid(num_bits, self._spec.narrow_range).fits_int4
        return kernel_bytes(self._num_weights(layer), fits_int4, self._target)

    def _num_weights(self, layer: str) -> int:
        return int(tf.size(self.plain.get_layer(layer).get_weights()[0]))


def measure(subject: Subject, widths: list[int], path: pathlib.Path, identity: dict) -> list[Sensitivity]:
    """Each layer at each width. `path` has what is done; a second start of the same resumes from there.

    Args:
      identity: what else decides the numbers; a file of another one begins anew.
    """
    try:
        known = durable.read_json(path) if path.exists() else {}
    except durable.DamageError as damage:
        raise ExperimentError(f"{damage}; move it away, and it is measured anew") from damage
    done = known if known.get("identity") == identity else {"identity": identity, "rows": []}
    if "baseline_top1" not in done:
        done["baseline_top1"] = subject.top1()
    found = {(row["layer"], row["num_bits"]): Sensitivity(**row) for row in done["rows"]}
    cells = list(itertools.product(subject.layers, widths))
    for layer, num_bits in tqdm(cells, desc="sensitivity", unit="student"):
        if (layer, num_bits) in found:
            continue
        row = Sensitivity(layer, num_bits, 0.0, 0.0, subject.saved_bytes(layer, num_bits))
        value = subject.top1(row.rule)
        row = dataclasses.replace(row, top1=value, loss=done["baseline_top1"] - value)
        found[layer, num_bits] = row
        done["rows"].append(dataclasses.asdict(row))
        durable.write_json(path, done)
    return [found[cell] for cell in cells]


def budget_of(subject: Subject, experiment: Experiment, max_weight_bytes: int) -> ByteBudget | None:
    """What flags ask for; None where they ask for nothing.

    Raises:
      ExperimentError: two budgets, or one of a file that is not there.
    """
    target = experiment.target
    require(
        not (max_weight_bytes and target.max_flash_bytes),
        f"--max_weight_bytes={max_weight_bytes} and --max_flash_bytes={target.max_flash_bytes} are two budgets; give "
        "one, and 0 for the other",
    )
    if target.max_flash_bytes:
        others = bytes_beside_kernels(pathlib.Path(experiment.run_dir), target)
        return ByteBudget("max_flash_bytes", target.max_flash_bytes, subject.stored_bytes, others)
    return ByteBudget("max_weight_bytes", max_weight_bytes, subject.true_bytes) if max_weight_bytes else None


def suggest(rows: list[Sensitivity], trained: Mapping[str, int], budget: ByteBudget) -> list[Sensitivity]:
    """The rows of layers that give way, for the least sum of losses within the budget; train with them, and look.

    Args:
      trained: bits by layer.

    Raises:
      ExperimentError: even all layers at their fewest bits are too large.
    """
    found = budget.widths(trained, {(row.layer, row.num_bits): row.loss for row in rows})
    return [row for row in rows if found[row.layer] == row.num_bits != trained[row.layer]]


def flag_file(values: flags.flags.FlagValues, chosen: list[Sensitivity], run_dir: pathlib.Path) -> str:
    """The experiment that `values` describe, in another folder and with the rules of these rows behind its own."""
    changed = {"run_dir": str(run_dir), "bits_rule": [*values.bits_rule, *(row.rule for row in chosen)]}
    values = copy.deepcopy(values)
    for name, value in changed.items():
        values[name].value = value
    return "\n".join(filter(None, flags.flag_lines(values))) + "\n"


def table(rows: list[Sensitivity], stored: Callable[[str, int], float], trained: Mapping[str, int]) -> str:
    """Markdown, the most sensitive first.

    Args:
      stored: (layer, bits) -> bytes of a kernel as the target stores it.
      trained: bits by layer.
    """
    lines = [("layer", "bits", "top-1, %", "loss, points", "bytes saved", "as stored"), ("---",) * 6]
    for row in sorted(rows, key=lambda row: -row.loss):
        as_stored = stored(row.layer, trained[row.layer]) - stored(row.layer, row.num_bits)
        numbers = f"{row.top1:.2f}", f"{row.loss:+.2f}", f"{row.saved_bytes:,.0f}", f"{as_stored:,.0f}"
        lines.append((row.layer, str(row.num_bits), *numbers))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def flags_of_run() -> None:
    """Puts the flags of the run of --run_dir below those that the command line gave."""
    require(FLAGS.run_dir is not None, "--run_dir is missing; give the folder of a finished run, such as runs/demo")
    file = pathlib.Path(FLAGS.run_dir) / "flags.txt"
    require(file.is_file(), f"--run_dir={FLAGS.run_dir} is no run: it has no flags.txt")
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
            f"--try_bits={','.join(FLAGS.try_bits)}: whole numbers, 2..8",
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
        subject = Subject(experiment, splits)
        budget = budget_of(subject, experiment, FLAGS.max_weight_bytes)
        identity = {"quantization": dataclasses.asdict(experiment.quantization), "data": splits.fingerprint}
        identity["max_eval_images"] = experiment.data.max_eval_images
        rows = measure(subject, widths, run_dir / "sensitivity.json", json.loads(json.dumps(identity)))
        print(table(rows, subject.stored_bytes, subject.bits))
        for words, count in (
            ("at their widths", subject.true_bytes),
            (f"as {experiment.target.target} stores them", subject.stored_bytes),
        ):
            print(f"kernels {words}: {ByteBudget('', 0, count).needed(subject.bits):,.0f} bytes")
        if budget is None:
            return
        chosen = suggest(rows, subject.bits, budget)
        needed = budget.needed(subject.bits | {row.layer: row.num_bits for row in chosen})
        loss = sum(max(row.loss, 0.0) for row in chosen)
        print(f"for {budget.num_bytes:,} bytes, about {needed:,.0f} needed, sum of losses {loss:.2f} points:")
        print(*([f"--bits_rule='{row.rule}'" for row in chosen] or ["no rule; the run has room as it is"]), sep="\n")
        if new_run:
            durable.write_whole(pathlib.Path(FLAGS.output), flag_file(FLAGS, chosen, new_run))
            print(f"flags of {new_run}; next: python -m qkd_tf.train --flagfile={FLAGS.output}")
    except ExperimentError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
