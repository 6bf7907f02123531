"""Which options are worth being a default: successive halving, on images that no weights have seen.

    python -m benchmarks.defaults --base=FLAGFILE --bits=w2a2 --rounds=4,8,20x3 --results_dir=results/NAME

Each row of OPTIONS is a training with one thing changed, judged by its top-1 on the validation split: the test split
has no say in what a default is. A round trains all that is left, for its epochs and seeds; the better half goes on to
the next one, and with it the base. A cell (option, bits, epochs, seed) becomes a small file in --results_dir as soon as
it is done, and one that has a file is not run again. Of those in results/NAME, `python -m docs.results` makes the
table at <!-- halving NAME --> in docs/results.md.
"""

import itertools
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from absl import app
from absl import flags as absl_flags

from qkd_tf.experiment import ExperimentError, bit_widths, require, require_known
from qkd_tf.storage.durable import write_whole
from qkd_tf.storage.run_folder import what_matters

Schedule = Mapping[str, float]  # phase -> its share of the epochs
ALONE: Schedule = {"self_studying": 1.0}
FIXED: Schedule = {"self_studying": 0.15, "tutoring": 0.85}
QKD: Schedule = {"self_studying": 0.15, "co_studying": 0.5, "tutoring": 0.35}
BASE = "alone"  # stays in every round, since the others are told beside it
# Option -> its phases, and its flags behind those of the flag file.
OPTIONS: Mapping[str, tuple[Schedule, tuple[str, ...]]] = {
    BASE: (ALONE, ()),
    "full_range": (ALONE, ("--nonarrow_range",)),
    "init_lsq": (ALONE, ("--interval_init=lsq",)),
    "channels_equalized": (ALONE, ("--equalize_channels=on",)),
    "normalized_by_layer": (ALONE, ("--normalize_weights=layer",)),
    "normalized_by_channel": (ALONE, ("--normalize_weights=channel",)),
    "normalized_unmasked": (ALONE, ("--normalize_weights=channel", "--mask_weight_gradient=false")),
    "rate_0.03": (ALONE, ("--learning_rates=0.03",)),
    "rate_0.1": (ALONE, ("--learning_rates=0.1",)),
    "rate_0.003": (ALONE, ("--learning_rates=0.003",)),
    "adam": (ALONE, ("--optimizer=adam", "--learning_rates=0.001")),
    "batch_64": (ALONE, ("--batch_size=64",)),
    "batch_32": (ALONE, ("--batch_size=32",)),
    "weight_decay_2.5e-5": (ALONE, ("--weight_decay=0.000025",)),  # LSQ's at 2 bits
    "weight_decay_5e-4": (ALONE, ("--weight_decay=0.0005",)),
    "interval_rate_0.1": (ALONE, ("--weight_interval_lr_ratio=0.1", "--activation_interval_lr_ratio=0.1")),
    "relative_adam": (ALONE, ("--interval_optimizer=relative_adam",)),
    "relative_adam_0.1": (
        ALONE,
        (
            "--interval_optimizer=relative_adam",
            "--weight_interval_lr_ratio=0.1",
            "--activation_interval_lr_ratio=0.1",
        ),
    ),
    "interval_unbounded": (ALONE, ("--interval_max_change=0",)),
    "unmasked": (ALONE, ("--mask_weight_gradient=false",)),
    "all_examples": (ALONE, ("--interval_gradient_share=1",)),
    "weights_ema_0.99": (ALONE, ("--weights_ema=0.99",)),
    "weights_ema_0.999": (ALONE, ("--weights_ema=0.999",)),
    "dampening": (ALONE, ("--dampening=0.1",)),
    "freezing": (ALONE, ("--freeze_threshold_start=0.1",)),
    "label_smoothing": (ALONE, ("--label_smoothing=0.1",)),
    "crop_2": (ALONE, ("--crop_padding=2",)),
    "crop_0": (ALONE, ("--crop_padding=0",)),
    "fixed_teacher": (FIXED, ()),
    "fixed_teacher_temperature_4": (FIXED, ("--temperature=4",)),
    "fixed_teacher_distillation_0.25": (FIXED, ("--distillation_weight=0.25",)),
    "fixed_teacher_distillation_falls": (FIXED, ("--distillation_weight_end=0",)),
    "fixed_teacher_without_labels": (FIXED, ("--label_weight=0", "--temperature=4")),
    "qkd": (QKD, ()),
    "qkd_temperature_4": (QKD, ("--temperature=4",)),
    "qkd_teacher_rate_0.1": (QKD, ("--teacher_lr_ratio=0.1",)),
}
FLAGS = absl_flags.FLAGS
absl_flags.DEFINE_list("options", list(OPTIONS), f"Rows of OPTIONS to begin with; {BASE} is added.")
absl_flags.DEFINE_list("bits", ["w2a2"], "Bit widths of weights and activations, as w2a2; each is halved by itself.")
absl_flags.DEFINE_list("rounds", ["4", "8", "20x3"], "Epochs of each round, EPOCHS or EPOCHSxSEEDS.")
absl_flags.DEFINE_string(
    "results_dir", "runs/defaults", "Folder of the small result files: results/NAME for a table in docs."
)
absl_flags.DEFINE_string("base", "benchmarks/defaults/resnet8.flags", "Flag file of all cells.")
absl_flags.DEFINE_string("more", "", "Further flags of all cells, behind those of the flag file, with spaces between.")
absl_flags.DEFINE_integer("jobs", 1, "Trainings at a time, each on one core if there are several.", lower_bound=1)
# Of all cells: what is looked at, and the last epoch's student, since the best of several is a matter of chance.
COMMON = ("--validation_fraction=0.1", "--max_eval_images=5000", "--keep_epoch=last")


class Cell(NamedTuple):
    """One training."""

    option: str
    bits: str
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.option}_{self.bits}_{self.epochs}_epochs_seed{self.seed}"

    def flags(self) -> list[str]:
        """What the cell has of its own, behind the flags of all cells."""
        schedule, options = OPTIONS[self.option]
        phases = epochs_of(schedule, self.epochs)
        return [f"--phases={','.join(phases)}", f"--epochs={','.join(map(str, phases.values()))}", *options]


def epochs_of(schedule: Schedule, epochs: int) -> dict[str, int]:
    """Phase -> its epochs: the shares, rounded so that they sum to `epochs`; a phase of none is left out."""
    ends = [round(epochs * share + 1e-9) for share in itertools.accumulate(schedule.values())]
    lengths = (end - begin for begin, end in itertools.pairwise([0, *ends]))
    return {phase: length for phase, length in zip(schedule, lengths, strict=True) if length}


def better_half(top1: Mapping[str, float]) -> list[str]:
    """The options that go on: half of them, rounded up, by their top-1, best first; BASE beside them if it is not."""
    ranked = sorted(top1, key=lambda option: -top1[option])
    kept = ranked[: math.ceil(len(ranked) / 2)]
    return kept if BASE in kept or BASE not in ranked else [*kept, BASE]


def round_of(text: str) -> tuple[int, int]:
    """Epochs and seeds of an item of --rounds.

    Raises:
      ExperimentError: neither EPOCHS nor EPOCHSxSEEDS.
    """
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    require(found is not None, f"--rounds has {text!r}; expected EPOCHS or EPOCHSxSEEDS, as 20x3")
    epochs, seeds = found.groups(default="1")
    return int(epochs), int(seeds)


def common() -> list[str]:
    return [*COMMON, *FLAGS.more.split()]


def train(cell: Cell) -> dict:
    """Trains a cell in a folder that is thrown away.

    Returns:
      Top-1 on validation in percent, that of the last phase's last epoch; the teacher's; and seconds.

    Raises:
      ExperimentError: the training ended with an error; its last line.
    """
    weight_bits, activation_bits = bit_widths(cell.bits, "--bits")
    threads = {name: "1" for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS") if FLAGS.jobs > 1}
    with tempfile.TemporaryDirectory() as run_dir:
        command = [
            *(f"--flagfile={FLAGS.base}", f"--run_dir={run_dir}/run", f"--seed={cell.seed}", *common()),
            *(f"--weight_bits={weight_bits}", f"--activation_bits={activation_bits}", *cell.flags()),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "qkd_tf.train", *command],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | threads,
        )
        require(done.returncode == 0, (done.stderr.strip().splitlines() or ["no message"])[-1])
        results = json.loads((pathlib.Path(run_dir) / "run" / "results.json").read_text())
    taught = [row for phase in results["phases"] for row in phase["history"] if "teacher_validation_top1" in row]
    return {
        "validation_top1": results["phases"][-1]["history"][-1]["validation_top1"],
        "teacher_validation_top1": taught[-1]["teacher_validation_top1"] if taught else None,
        "seconds": results["seconds"],
    }


def measured(cell: Cell) -> float | None:
    """Top-1 of a cell on validation, from its file if there is one; None, told, where its training fails."""
    path = pathlib.Path(FLAGS.results_dir) / f"{cell.name}.json"
    if not path.exists():
        head = cell._asdict() | {
            "base": FLAGS.base,
            "common_flags": what_matters(common()),
            "flags": cell.flags(),
        }
        try:
            write_whole(path, json.dumps(head | train(cell), indent=1) + "\n")
        except ExperimentError as error:
            print(f"{cell.name}: {error}", flush=True)
            return None
    top1 = json.loads(path.read_text())["validation_top1"]
    print(f"{cell.name}: {top1:.2f}", flush=True)
    return top1


def halve(bits: str, pool: ThreadPoolExecutor) -> None:
    """All rounds of one pair of bit widths. An option any of whose trainings fails goes no further."""
    options = list(dict.fromkeys([BASE, *FLAGS.options]))
    for epochs, num_seeds in map(round_of, FLAGS.rounds):
        cells = [Cell(option, bits, epochs, seed) for seed in range(num_seeds) for option in options]
        found = list(zip(cells, pool.map(measured, cells), strict=True))
        of_option = {option: [top1 for cell, top1 in found if cell.option == option] for option in options}
        means = {option: statistics.fmean(top1) for option, top1 in of_option.items() if None not in top1}
        for option in sorted(means, key=lambda option: -means[option]):
            print(f"{bits}, {epochs} epochs, {num_seeds} seeds: {means[option]:.2f} {option}", flush=True)
        options = better_half(means)


def require_flags() -> None:
    """Raises ExperimentError for a flag that would stop the search only when its turn comes."""
    for option in FLAGS.options:
        require_known(option, OPTIONS, "option in --options")
    for bits in FLAGS.bits:
        bit_widths(bits, "--bits")
    for text in FLAGS.rounds:
        round_of(text)


def main(argv: list[str]) -> None:
    del argv
    try:
        require_flags()
    except ExperimentError as error:
        sys.exit(f"error: {error}")
    pathlib.Path(FLAGS.results_dir).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(FLAGS.jobs) as pool:
        for bits in FLAGS.bits:
            halve(bits, pool)


if __name__ == "__main__":
    app.run(main)
