"""Compares finished runs: python -m qkd_tf.compare RUN RUN ... [--output=FILE.html|FILE.md]."""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

import markupsafe
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from qkd_tf.console import command_line
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.console.counting import counted
from qkd_tf.console.page import COLOURS, axes, in_style, render, svg
from qkd_tf.console.words import in_a_line
from qkd_tf.experiment import ExperimentError, require, require_known
from qkd_tf.outcome.finished_runs import Run, groups, load, title
from qkd_tf.storage.durable import write_whole

FLAGS = CommandFlags()
TEMPLATE = pathlib.Path(__file__).with_name("compare.html.j2")
FORMATS = (".html", ".md")
NOISE = 1.1  # ratio of two latencies that other work on the computer explains
WIDE_RATIO = 5  # of costs, beyond which their axis is logarithmic


@dataclasses.dataclass(frozen=True)
class Cost:
    """A cost of accuracy; less is better.

    Attributes:
      name: label of the figure's axis, with the unit.
      of: a run's number, or None if it is not known.
    """

    name: str
    of: Callable[[Run], float | None]


COSTS: Mapping[str, Cost] = {
    "bytes": Cost("bytes", lambda run: run.num_bytes),
    "deflated": Cost("deflated, bytes", lambda run: run.deflated),
    "true_width": Cost("true width, bytes", lambda run: run.true_width),
    "flash": Cost("flash without TFLM, bytes", lambda run: run.flash),
    "latency": Cost("ms per inference", lambda run: run.milliseconds),
    "arena": Cost("arena, bytes", lambda run: run.arena),
}
SHOWN = ("bytes", "latency", "arena")
FLAGS.DEFINE_string(
    "output", None, "File to write, .html or .md; without it the tables are printed, as Markdown unless on a terminal."
)
FLAGS.DEFINE_list(
    "costs",
    list(SHOWN),
    f"Costs that top-1 is compared with, each with a Pareto front and a figure: {', '.join(COSTS)}. deflated is the "
    "size of a download, true_width that of the kernels alone at their trained bits, flash what a microcontroller "
    "needs besides TFLM: the file, and the code that reads its lookup tables, if any.",
)
HEADER = (
    "",
    "run",
    "top-1, %",
    "Pareto",
    "student",
    "bits",
    "bytes",
    "deflated",
    "true width",
    "flash without TFLM",
    "full precision, %",
    "ms per inference",
    "arena, bytes",
)
NUMBERS = (2, *range(6, len(HEADER)))  # columns that are aligned as such
NEAR = (16, 11)  # pixels of a figure, across and up, within which the numbers of two dots would overlap


PARETO = "Pareto: no other run in the table is at least as good in top-1 and in this cost, and better in one of them."


def pareto(runs: Sequence[Run], cost: Cost) -> list[Run]:
    """The Pareto front, by rising cost: no other run is at least as good in top-1 and cost, and better in one.

    Refused files, and those whose cost is not known, are left out.
    """
    known = [run for run in runs if run.passed and cost.of(run) is not None]

    def beaten(run: Run) -> bool:
        return any(
            other.top1 >= run.top1
            and cost.of(other) <= cost.of(run)
            and (other.top1 > run.top1 or cost.of(other) < cost.of(run))
            for other in known
        )

    return sorted((run for run in known if not beaten(run)), key=lambda run: (cost.of(run), run.label))


def notes(runs: Sequence[Run]) -> list[str]:
    """Why some numbers cannot be compared, one reason per line."""
    lines = []
    if len(groups(runs)) > 1:
        options = {name for run in runs for name in run.read_as}
        differing = [f"--{name}" for name in sorted(options) if len({repr(run.read_as.get(name)) for run in runs}) > 1]
        why = f" (they differ in {', '.join(differing)})" if differing else ""
        lines.append(f"The runs have different test splits{why}: compare accuracies only within a table.")
    if any(len({run.data for run in group}) > 1 for group in groups(runs)):
        lines.append("Data sets joined by = have the same test split; their training data may differ.")
    if len({run.runtime for run in runs}) > 1:
        judged: dict[str, list[str]] = {}
        for run in runs:
            judged.setdefault(run.runtime, []).append(run.label)
        by = "; ".join(f"{runtime}: {', '.join(labels)}" for runtime, labels in judged.items())
        lines.append(f"Top-1 and latency are from different runtimes, the judge of each file ({by}).")
    latencies = [sorted(run.milliseconds for run in group) for group in groups(runs)]
    if any(less < more < NOISE * less for of_group in latencies for less, more in itertools.pairwise(of_group)):
        lines.append(
            f"Latencies that differ by less than {100 * (NOISE - 1):.0f} % may do so by chance: each is a median, "
            "measured on the computer that exported the run."
        )
    if len({run.machine for run in runs}) > 1:
        lines.append(
            "The runs were trained on different machines: if they were exported there too, do not compare latencies."
        )
    if refused := [run.label for run in runs if run.is_less_accurate]:
        lines.append(f"Refused for accuracy, and on no front: {', '.join(refused)}.")
    if refused := [run.label for run in runs if not (run.passed or run.is_less_accurate)]:
        lines.append(f"Refused, not proven to be what was trained, and on no front: {', '.join(refused)}.")
    if any(run.bits.endswith("*") for run in runs):
        lines.append("*: single layers have other bit widths (--bits_rule, --bits=auto).")
    return lines


def table(runs: Sequence[Run], costs: Sequence[str] = SHOWN) -> list[tuple[str, ...]]:
    """Cells of each run, in the order of HEADER; the cell Pareto lists the costs on whose front the run is."""
    fronts = {COSTS[word].name.split(",")[0]: pareto(runs, COSTS[word]) for word in costs}
    return [
        (
            str(number),
            run.label,
            f"{run.top1:.2f}" + (" (refused)" if not run.passed else ""),
            ", ".join(name for name, front in fronts.items() if run in front),
            run.student,
            run.bits,
            *("" if size is None else f"{size:,}" for size in (run.num_bytes, run.deflated, run.true_width, run.flash)),
            "" if run.full_precision is None else f"{run.full_precision:.2f}",
            f"{run.milliseconds:.3g}",
            "" if run.arena is None else f"{run.arena:,}",
        )
        for number, run in enumerate(runs, 1)
    ]


def markdown(runs: Sequence[Run], costs: Sequence[str] = SHOWN) -> str:
    """The comparison as Markdown, a table for each set of test images."""
    lines = []
    for group in groups(runs):
        rows = [HEADER, ("---",) * len(HEADER), *table(group, costs)]
        lines += [f"**{_escaped(title(group))}**", ""]
        lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
        lines.append("")
    lines += [PARETO, ""]
    lines += [f"* {_escaped(note)}" for note in notes(runs)]
    return "\n".join(lines) + "\n"


def terminal(runs: Sequence[Run], costs: Sequence[str] = SHOWN) -> str:
    """The comparison for a terminal, in aligned columns. Other costs are left out, and what all runs share is printed
    above the table.
    """
    others = {COSTS[word].name.split(",")[0] for word in COSTS if word not in costs}
    lines = []
    for group in groups(runs):
        columns = list(zip(HEADER, *table(group, costs), strict=True))
        shown = [column for column in columns if any(column[1:]) and column[0].split(",")[0] not in others]
        same = [column for column in shown[2:] if len(group) > 1 and len(set(column[1:])) == 1]
        shown = [column for column in shown if column not in same]
        widths = [max(map(len, column)) for column in shown]
        lines += [title(group), *([f"all: {'; '.join(f'{name} {cell}' for name, cell, *_ in same)}"] if same else [])]
        for row in zip(*shown, strict=True):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines.append("")
    return "\n".join([*lines, PARETO, *(f"note: {note}" for note in notes(runs))]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def html(runs: Sequence[Run], costs: Sequence[str] = SHOWN) -> str:
    """The comparison as one page that opens offline, with a figure for each cost."""
    chosen = [COSTS[word] for word in costs]
    parts = [
        {
            "title": title(group),
            "rows": table(group, costs),
            "figures": [figure(group, cost) for cost in chosen if any(cost.of(run) is not None for run in group)],
        }
        for group in groups(runs)
    ]
    return render(TEMPLATE, header=HEADER, numbers=NUMBERS, groups=parts, notes=notes(runs), num_runs=len(runs))


@in_style
def figure(runs: Sequence[Run], cost: Cost) -> markupsafe.Markup:
    """Top-1 over a cost, each run by its number in the table; the front is a line."""
    drawn, front = axes(), pareto(runs, cost)
    values = [cost.of(run) for run in runs]
    numbers: dict[tuple[float, float], list[str]] = {}  # by place: of equal runs only one dot is seen
    for number, (run, value) in enumerate(zip(runs, values, strict=True), 1):
        if value is not None:
            colour = COLOURS["one" if run in front else "muted"]
            drawn.plot(value, run.top1, "o" if run.passed else "x", color=colour, markersize=5)
            numbers.setdefault((value, run.top1), []).append(str(number))
    points = [(cost.of(run), run.top1) for run in front]
    if points:
        drawn.step(*zip(*points, strict=True), where="post", color=COLOURS["one"], linewidth=1)
    known = [value for value in values if value is not None]
    drawn.xaxis.set_major_locator(ticker.MaxNLocator(5))
    if max(known) > WIDE_RATIO * min(known):
        drawn.set_xscale("log")
        drawn.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
        drawn.xaxis.set_minor_locator(ticker.NullLocator())
    drawn.xaxis.set_major_formatter("{x:,.6g}")
    drawn.margins(0.12, 0.2)
    for place, near in _labels(drawn, numbers).items():
        drawn.annotate(", ".join(near), place, (4, 4), textcoords="offset points", color=COLOURS["ink"])
    drawn.set_xlabel(cost.name)
    drawn.set_ylabel("top-1, %")
    named = "; ".join(f"{run.label} {run.top1:.2f} % at {cost.of(run):,.4g}" for run in front)
    return svg(drawn, f"Top-1 over {cost.name} of {counted(len(runs), 'run')}. On the front: {named or 'none'}.")


def _labels(drawn: Axes, numbers: Mapping[tuple[float, float], list[str]]) -> dict[tuple[float, float], list[str]]:
    """Numbers by the place where they are written; dots near each other share one place."""
    drawn.autoscale_view()
    found: dict[tuple[float, float], list[str]] = {}
    for place, equal in sorted(numbers.items(), key=lambda row: -row[0][1]):  # written at the highest: above all
        others = drawn.transData.transform([*found, place])
        near = (np.abs(others[:-1] - others[-1]) < NEAR).all(axis=1)
        at = list(found)[int(near.argmax())] if near.any() else place
        found[at] = found.get(at, []) + equal
    return found


def main(argv: list[str]) -> None:
    try:
        require(
            not FLAGS.output or pathlib.Path(FLAGS.output).suffix in FORMATS,
            f"--output={FLAGS.output} ends in neither .html nor .md; give a file with one of these endings",
        )
        for word in FLAGS.costs:
            require_known(word, COSTS, "cost", "--costs")
        runs = load(argv[1:])
        if not FLAGS.output:
            print((terminal if sys.stdout.isatty() else markdown)(runs, FLAGS.costs), end="")
            return
        output = pathlib.Path(FLAGS.output)
        write_whole(output, (html if output.suffix == ".html" else markdown)(runs, FLAGS.costs))
    except (ExperimentError, OSError) as error:
        sys.exit(f"error: {in_a_line(error)}")
    print(f"comparison of {counted(len(runs), 'run')}: {output}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
