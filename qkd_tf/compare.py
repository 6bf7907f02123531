"""Finished runs side by side: python -m qkd_tf.compare RUN RUN ... [--output=FILE.html|FILE.md]."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import markupsafe
from absl import app, flags
from matplotlib import ticker

from qkd_tf.experiment import ExperimentError, require
from qkd_tf.page import COLOURS, axes, render, svg

FLAGS = flags.FLAGS
TEMPLATE = pathlib.Path(__file__).with_name("compare.html.j2")
FORMATS = (".html", ".md")
WIDE_RATIO = 5  # of costs, beyond which their axis is logarithmic

flags.DEFINE_string("output", None, "File to write, .html or .md; without it Markdown is printed.")


@dataclasses.dataclass(frozen=True)
class Run:
    """What one finished and exported run came to.

    Attributes:
      label: short name, of its own among the runs that are compared.
      data: what it was tested on, as people say it; runs of equal `fingerprint` were tested on the same images.
      top1: of the file on its judging runtime, in percent; `full_precision` of the float student, where it is known.
      bits: "W4A4", with "*" where single layers have others by rule.
      num_bytes: of model.tflite.
      milliseconds: of an image, on the `runtime` that judged, where the file was exported.
      arena: bytes that TFLM allocated, where it ran.
      machine: that the run was trained on.
      passed: whether the file was proven to be what was trained.
    """

    label: str
    student: str
    data: str
    fingerprint: tuple
    bits: str
    num_bytes: int
    top1: float
    full_precision: float | None
    milliseconds: float
    arena: int | None
    runtime: str
    machine: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class Cost:
    """What is paid for accuracy: less is better.

    Attributes:
      name: of the figure's axis, unit included.
      of: the number of a run, None where it is not known.
    """

    name: str
    of: Callable[[Run], float | None]


COSTS = (
    Cost("bytes", lambda run: run.num_bytes),
    Cost("ms an image", lambda run: run.milliseconds),
    Cost("arena, bytes", lambda run: run.arena),
)
HEADER = (
    "",
    "run",
    "student",
    "bits",
    "bytes",
    "top-1, %",
    "full precision, %",
    "ms an image",
    "arena, bytes",
    "Pareto",
)


def load(folders: Sequence[str]) -> list[Run]:
    """The runs in these folders, in their order.

    Raises:
      ExperimentError: a folder that is no finished and exported run, or that is given twice.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    require(len(paths) > 0, "no run is named; give folders of finished runs, such as runs/demo")
    twice = [folder for folder, path in zip(folders, paths, strict=True) if _places(paths).count(path.resolve()) > 1]
    require(not twice, f"{twice[0] if twice else ''} is given twice; give each run once")
    return [_load(path, label) for path, label in zip(paths, _labels(paths), strict=True)]


def _places(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    return [path.resolve() for path in paths]


def _labels(paths: list[pathlib.Path]) -> list[str]:
    """Names of the folders, with those above them as far as they are equal."""
    parts = [path.parts for path in _places(paths)]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _load(path: pathlib.Path, label: str) -> Run:
    require(path.is_dir(), f"{path} is no folder; give folders of finished runs, such as runs/demo")
    results = _json(path / "results.json", f"{path} is no finished run; run python -m qkd_tf.train to its end first")
    again = f"{path} is not exported; run python -m tflite_export --run_dir={path} first"
    verification = _json(path / "export" / "verification.json", again)
    try:
        return _run(label, results, verification)
    except (KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(
            f"{path} has no {error} in results.json or verification.json: its file was not run, or it is of another "
            f"version; run python -m tflite_export --run_dir={path} again"
        ) from None


def _json(path: pathlib.Path, otherwise: str) -> dict:
    require(path.is_file(), f"{otherwise} ({path.name} is missing)")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExperimentError(f"{path} cannot be read: {error}; {otherwise.partition('; ')[2]}") from None


def _run(label: str, results: dict, verification: dict) -> Run:
    data, asked = results["data"], results["experiment"]["quantization"]
    judged = verification["runtimes"][verification["judge"]]
    fingerprint = tuple(data.get(key) for key in ("name", "num_test", "digested", "test_sha256"))
    return Run(
        label=label,
        student=results["experiment"]["student"]["name"],
        data=f"{data['name']}, {data['num_test']:,} test images",
        fingerprint=fingerprint,
        bits=f"W{asked['weight_bits']}A{asked['activation_bits']}" + "*" * bool(asked.get("bits_rule")),
        num_bytes=verification["file"]["bytes"],
        top1=judged["top1"],
        full_precision=(results.get("full_precision") or {}).get("test_top1"),
        milliseconds=1000 * judged["median_seconds"],
        arena=verification["runtimes"].get("tflm", {}).get("arena_bytes"),
        runtime=judged["title"],
        machine=f"{results['machine']['platform']}, {results['machine']['cores']} cores",
        passed=verification["passed"],
    )


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that were tested on the same images, together: only their accuracies can be compared."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        found.setdefault(run.fingerprint, []).append(run)
    return list(found.values())


def pareto(runs: Sequence[Run], cost: Cost) -> list[Run]:
    """Runs with no other that is at least as good in top-1 and in cost, and better in one; by rising cost.

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
    """What keeps numbers from being compared, a line each."""
    lines = []
    if len(groups(runs)) > 1:
        lines.append("The runs were tested on different images: accuracies can be compared within a table only.")
    if len({run.runtime for run in runs}) > 1:
        by = "; ".join(f"{run.label}: {run.runtime}" for run in runs)
        lines.append(f"Top-1 and latency are of different runtimes, each file's own judge ({by}).")
    if len({run.machine for run in runs}) > 1:
        lines.append(
            "The runs were trained on different machines: where they were exported there, latencies do not compare."
        )
    if refused := [run.label for run in runs if not run.passed]:
        lines.append(f"Refused, not proven to be what was trained: {', '.join(refused)}; no front counts them.")
    if any(run.bits.endswith("*") for run in runs):
        lines.append("*: single layers have other bit widths (--bits_rule).")
    return lines


def table(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Cells of each run, as HEADER names them; the last are the costs whose front it is on."""
    fronts = {cost.name.split(",")[0]: pareto(runs, cost) for cost in COSTS}
    return [
        (
            str(number),
            run.label,
            run.student,
            run.bits,
            f"{run.num_bytes:,}",
            f"{run.top1:.2f}" + (" (refused)" if not run.passed else ""),
            "" if run.full_precision is None else f"{run.full_precision:.2f}",
            f"{run.milliseconds:.3g}",
            "" if run.arena is None else f"{run.arena:,}",
            ", ".join(name for name, front in fronts.items() if run in front),
        )
        for number, run in enumerate(runs, 1)
    ]


def markdown(runs: Sequence[Run]) -> str:
    """The comparison as Markdown, a table for each set of test images."""
    lines = []
    for group in groups(runs):
        rows = [HEADER, ("---",) * len(HEADER), *table(group)]
        lines += [f"**{_escaped(group[0].data)}**", ""]
        lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
        lines.append("")
    lines.append("Pareto: no other run here has both more accuracy and less of this.")
    lines += ["", *(f"* {_escaped(note)}" for note in notes(runs))] if notes(runs) else []
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def html(runs: Sequence[Run]) -> str:
    """The comparison as one page that opens offline, with a figure for each cost."""
    parts = [
        {
            "title": group[0].data,
            "rows": table(group),
            "figures": [figure(group, cost) for cost in COSTS if any(cost.of(run) is not None for run in group)],
        }
        for group in groups(runs)
    ]
    return render(TEMPLATE, header=HEADER, groups=parts, notes=notes(runs), num_runs=len(runs))


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
    for place, equal in numbers.items():
        drawn.annotate(", ".join(equal), place, (4, 4), textcoords="offset points", color=COLOURS["ink"])
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
    drawn.set_xlabel(cost.name)
    drawn.set_ylabel("top-1, %")
    named = "; ".join(f"{run.label} {run.top1:.2f} % at {cost.of(run):,.4g}" for run in front)
    return svg(drawn, f"Top-1 over {cost.name} of {len(runs)} runs. On the front: {named or 'none'}.")


def main(argv: list[str]) -> None:
    try:
        require(
            not FLAGS.output or pathlib.Path(FLAGS.output).suffix in FORMATS,
            f"--output={FLAGS.output} ends in neither .html nor .md; give a file of one of these",
        )
        runs = load(argv[1:])
        if not FLAGS.output:
            print(markdown(runs), end="")
            return
        output = pathlib.Path(FLAGS.output)
        output.write_text(html(runs) if output.suffix == ".html" else markdown(runs), encoding="utf-8")
    except (ExperimentError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"comparison of {len(runs)} runs: {output}")


if __name__ == "__main__":
    app.run(main)
