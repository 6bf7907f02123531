"""Measures what each phase contributes: python -m qkd_tf.ablation --flagfile=FILE --bits=w2a2,w4a4 --seeds=0,1,2.

The flag file's three phases are the plan: the epochs of self-studying, co-studying and tutoring. Each of --rows gives
these epochs to the phases in its own way, so that every row trains equally long. A cell (row, bits, seed) is an
ordinary run folder in --run_dir, trained and exported by the ordinary commands. Its numbers are written to a small file
in --results_dir, and a cell that has such a file is not run again.
"""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import itertools
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping

from qkd_tf import flags
from qkd_tf.console import command_line
from qkd_tf.console.words import require_flags_only
from qkd_tf.experiment import Experiment, ExperimentError, bit_widths, require, require_known
from qkd_tf.storage.durable import write_whole
from qkd_tf.storage.run_folder import differing_flags, what_matters

PLAN = ("self_studying", "co_studying", "tutoring")
# Row -> the phase that takes the plan's epochs of self-studying, of co-studying, of tutoring.
ROWS: Mapping[str, tuple[str, str, str]] = {
    "qat": ("self_studying", "self_studying", "self_studying"),
    "fixed_teacher": ("self_studying", "tutoring", "tutoring"),
    "cs_tu": ("co_studying", "co_studying", "tutoring"),
    "ss_cs": ("self_studying", "co_studying", "co_studying"),
    "ss_cs_tu": PLAN,
}
OVERRIDDEN = ("run_dir", "seed", "bits", "weight_bits", "activation_bits", "phases", "epochs", "learning_rates")
BASELINE = "qat"  # what the other rows are compared with, seed by seed

FLAGS = flags.FLAGS.extended()  # those of the training, and its own
FLAGS.DEFINE_list("rows", list(ROWS), f"Rows to run, any of {', '.join(ROWS)}.")
# In the place of the training's --bits, which is one pair of widths.
FLAGS.DEFINE_list(
    "bits",
    ["w4a4"],
    "Bit widths of weights and activations to run, such as w2a2,w4a4.",
    allow_override=True,
)
FLAGS.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to run, whole numbers.")
FLAGS.DEFINE_string(
    "results_dir", "", "Folder for the result files; empty: results/NAME, where NAME is that of --run_dir."
)


def schedule(row: str, experiment: Experiment) -> list[tuple[str, int, float]]:
    """(phase, epochs, learning rate) of a row; neighbours with the same name are merged into one phase.

    Args:
      experiment: with the phases of PLAN; phases before them, such as full_precision, stay as they are.

    Raises:
      ExperimentError: other phases, or widths of single phases.
    """
    require(
        not experiment.training.bits,
        "--phase_bits gives each phase its own bit widths, and the rows divide epochs among phases; leave it out",
    )
    phases = [(phase.name, phase.epochs, phase.learning_rate) for phase in experiment.training.phases]
    names = tuple(name for name, _, _ in phases[-3:])
    require(
        names == PLAN,
        f"--phases={','.join(experiment.training.phase_names)} must end in {','.join(PLAN)}, "
        "because the rows of an ablation divide their epochs",
    )
    rates = {name: rate for name, _, rate in phases[-3:]}
    shares = zip(ROWS[row], (epochs for _, epochs, _ in phases[-3:]), strict=True)
    merged = [
        (name, sum(epochs for _, epochs in group), rates[name])
        for name, group in itertools.groupby(shares, key=lambda share: share[0])
    ]
    return phases[:-3] + merged


def changed_flags() -> list[str]:
    """The flags, of the command line and its flag file, that are not defaults and that a cell does not set itself."""
    lines = "\n".join(flags.flag_lines(FLAGS, changed_only=True)).splitlines()
    return [line for line in lines if line.split("=")[0].removeprefix("--") not in OVERRIDDEN]


def overrides(row: str, bits: tuple[int, int], seed: int, experiment: Experiment, run_dir: pathlib.Path) -> list[str]:
    """What a cell sets itself: the flags of OVERRIDDEN. Rates that were left open are left to the cell's training."""
    names, epochs, rates = zip(*schedule(row, experiment), strict=True)
    are_open = all(phase.rate_is_default for phase in experiment.training.phases)
    return [
        f"--run_dir={run_dir}",
        f"--seed={seed}",
        f"--weight_bits={bits[0]}",
        f"--activation_bits={bits[1]}",
        f"--phases={','.join(names)}",
        f"--epochs={','.join(map(str, epochs))}",
        *([] if are_open else [f"--learning_rates={','.join(map(str, rates))}"]),
    ]


def run_cell(command_flags: list[str], run_dir: pathlib.Path) -> dict:
    """Trains and exports one cell; a run folder that is there resumes where it stopped.

    Returns:
      `numbers_of` its run folder.

    Raises:
      ExperimentError: the training ended with an error; its last line.
    """
    _start(["qkd_tf.train", *command_flags])
    _start(["tflite_export", f"--run_dir={run_dir}", "--runtimes="], may_refuse=True)
    return numbers_of(run_dir)


def numbers_of(run_dir: pathlib.Path) -> dict:
    """The numbers that a cell's file takes from its run folder, trained and exported.

    Returns:
      Top-1 of the full-precision network, of the integer file and of the Keras student in percent; whether the file
      passed its verification; and what results.json has of each phase, with validation top-1 after each epoch as its
      history.
    """
    results = json.loads((run_dir / "results.json").read_text())
    verification = json.loads((run_dir / "export" / "verification.json").read_text())
    file = verification["runtimes"][verification["judge"]]
    return {
        "full_precision_top1": (results.get("full_precision") or {}).get("test_top1"),
        "tflite_top1": file["accuracy"]["top1"],
        "student_top1": verification["student"]["top1"],
        "top1_agreement": file["student"]["top1_agreement"],
        "passed": verification["passed"],
        "num_images": verification["num_images"],
        "bytes": verification["file"]["bytes"],
        "phases": [_without_intervals(phase) for phase in results["phases"]],
        **{key: results[key] for key in ("seconds", "data", "machine", "versions")},
    }


def _without_intervals(phase: dict) -> dict:
    kept = {key: value for key, value in phase.items() if key not in ("history", "first_intervals")}
    for key in ("validation_top1", "teacher_validation_top1"):
        found = [epoch[key] for epoch in phase["history"] if key in epoch]
        kept |= {key: found} if found else {}
    return kept


def _start(module_and_flags: list[str], may_refuse: bool = False) -> None:
    done = subprocess.run([sys.executable, "-m", *module_and_flags], stderr=subprocess.PIPE, text=True)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    refused = may_refuse and "was refused" in last  # then its numbers are there, and "passed" is false
    require(done.returncode == 0 or refused, f"python -m {' '.join(module_and_flags)}: {last}")


def cells_of(results_dir: pathlib.Path) -> list[dict]:
    """The numbers of every cell that has a file; several processes may share a campaign."""
    return [json.loads(path.read_text()) for path in sorted(results_dir.glob("*_seed*.json"))]


def table(cells: list[dict], baseline: str = BASELINE) -> list[dict]:
    """A row for each row name and bit width, in the order of ROWS.

    Args:
      cells: as `cells_of` returns them.
      baseline: the row that the others are compared with.

    Returns:
      Dicts of "row", "bits", "seeds", "mean" and "std" of the file's top-1 (std over seeds, None for one seed), and
      "difference", "difference_std": mean and standard deviation of the paired difference to the baseline over the
      seeds that both have; None where there are none.
    """
    by_cell = {(cell["row"], cell["bits"], cell["seed"]): cell["tflite_top1"] for cell in cells}
    found = []
    for bits in sorted({cell["bits"] for cell in cells}):
        for row in ROWS:
            seeds = sorted(seed for r, b, seed in by_cell if (r, b) == (row, bits))
            if not seeds:
                continue
            values = [by_cell[row, bits, seed] for seed in seeds]
            pairs = [
                by_cell[row, bits, seed] - by_cell[baseline, bits, seed]
                for seed in seeds
                if row != baseline and (baseline, bits, seed) in by_cell
            ]
            found.append(
                {
                    "row": row,
                    "bits": bits,
                    "seeds": seeds,
                    "mean": statistics.fmean(values),
                    "std": _deviation(values),
                    "difference": statistics.fmean(pairs) if pairs else None,
                    "difference_std": _deviation(pairs),
                }
            )
    return found


def _deviation(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def markdown(rows: list[dict]) -> str:
    """The table for people: top-1 of the integer files in percent, mean ± standard deviation over seeds."""
    lines = [("bits", "row", "seeds", "top-1, %", f"difference to {BASELINE}"), ("---",) * 5]
    for row in rows:
        difference = plus_minus(row["difference"], row["difference_std"], "+.2f")
        mean = plus_minus(row["mean"], row["std"], ".2f")
        lines.append((row["bits"].upper(), row["row"], str(len(row["seeds"])), mean, difference))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plus_minus(mean: float | None, std: float | None, form: str) -> str:
    """A mean in a format such as "+.2f", with the standard deviation if there is one; empty without a mean."""
    if mean is None:
        return ""
    return format(mean, form) + ("" if std is None else f" ± {std:.2f}")


def run(
    experiment: Experiment, cells: list[tuple[str, str, int]], results_dir: pathlib.Path, train: Callable = run_cell
) -> list[dict]:
    """Runs the cells that have no file in `results_dir` yet, seed by seed: each seed is a complete comparison.

    Returns:
      The numbers of all cells, with "row", "bits" and "seed".
    """
    found = []
    results_dir.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is reported before hours of training
    for number, (row, bits, seed) in enumerate(cells, start=1):
        name = f"{row}_{bits}_seed{seed}"
        path = results_dir / f"{name}.json"
        print(f"cell {number} of {len(cells)}: {name}{' is done already' if path.exists() else ''}", flush=True)
        run_dir = pathlib.Path(experiment.run_dir) / name
        command = changed_flags() + overrides(row, bit_widths(bits, "--bits"), seed, experiment, run_dir)
        if not path.exists():
            cell = {"row": row, "bits": bits, "seed": seed, "flags": what_matters(command), **train(command, run_dir)}
            results_dir.mkdir(parents=True, exist_ok=True)  # it may have been moved away meanwhile
            write_whole(path, json.dumps(cell, indent=1) + "\n")
        found.append(json.loads(path.read_text()))
        differing = differing_flags(found[-1]["flags"], what_matters(command))
        require(
            not differing,
            f"{path} belongs to another experiment, which differs in {', '.join(differing)}; "
            "give another --results_dir",
        )
    return found


def main(argv: list[str]) -> None:
    require_flags_only(argv, FLAGS, ("flagfile",))
    try:
        experiment = flags.experiment_from_flags(FLAGS)
        for row in FLAGS.rows:
            require_known(row, ROWS, "--rows")
            schedule(row, experiment)
        for bits in FLAGS.bits:
            bit_widths(bits, "--bits")
        require(
            all(seed.isdecimal() for seed in FLAGS.seeds), f"--seeds={','.join(FLAGS.seeds)}: give whole numbers from 0"
        )
        cells = [(row, bits, int(seed)) for seed, bits, row in itertools.product(FLAGS.seeds, FLAGS.bits, FLAGS.rows)]
        results_dir = pathlib.Path(FLAGS.results_dir or f"results/{pathlib.Path(experiment.run_dir).name}")
        run(experiment, cells, results_dir)
    except ExperimentError as error:
        sys.exit(f"error: {error}")
    rows = table(cells_of(results_dir))
    write_whole(results_dir / "table.json", json.dumps(rows, indent=1) + "\n")
    write_whole(results_dir / "table.md", markdown(rows) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    command_line.run(main, FLAGS)
