"""report.html: one file that opens offline and says what was trained, and whether the .tflite is that."""

import base64
import io
import json
import pathlib

import jinja2
import matplotlib
import numpy as np

from qkd_tf import durable

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend must be chosen first)

TEMPLATE = "report.html.j2"
COLUMNS = 4


def write(run_dir: pathlib.Path, verification: dict) -> None:
    """Writes `run_dir`/report.html from results.json, the handoff's integers and the verification."""
    results = json.loads((run_dir / "results.json").read_text())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    with np.load(run_dir / "handoff" / "weights.npz", allow_pickle=False) as weights:
        integers = {name: weights[name] for name in weights.files}
    html = environment.get_template(TEMPLATE).render(
        name=run_dir.name,
        results=results,
        verification=verification,
        flags=(run_dir / "flags.txt").read_text(errors="replace").splitlines(),
        training_plot=_png(_training_figure(results["phases"])) if results["phases"] else None,
        integers_plot=_png(_integers_figure(integers)),
    )
    durable.write_whole(run_dir / "report.html", html)


def _training_figure(phases: list[dict]) -> pyplot.Figure:
    """Losses and validation top-1 by epoch, phases side by side."""
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9, 5.5), sharex=True, layout="constrained")
    start = 0
    colours = {"student_loss": "tab:blue", "teacher_loss": "tab:orange"}
    for number, phase in enumerate(phases):
        history = phase["history"]
        epochs = np.arange(start + 1, start + len(history) + 1)
        for name, colour in colours.items():
            values = [row[name] for row in history if name in row]
            if values:
                upper.plot(epochs, values, ".-", color=colour, label=name.replace("_", " "))
        lower.plot(epochs, [row["validation_top1"] for row in history], ".-", color="tab:blue")
        best = start + phase["best_epoch"]
        lower.plot(
            best, phase["best_validation_top1"], "o", color="tab:green", label="best epoch" if not number else None
        )
        for axes in (upper, lower):
            if number % 2:
                axes.axvspan(start + 0.5, start + len(history) + 0.5, color="0.94", zorder=0)
        upper.annotate(
            phase["phase"].replace("_", "-"), (start + 0.6, 1.01), xycoords=("data", "axes fraction"), fontsize=8
        )
        start += len(history)
    handles = dict(zip(*reversed(upper.get_legend_handles_labels()), strict=True))
    if handles:
        upper.legend(handles.values(), handles.keys(), fontsize=8)
    lower.legend(fontsize=8)
    upper.set_ylabel("training loss")
    lower.set_ylabel("validation top-1, %")
    lower.set_xlabel("epoch")
    return figure


def _integers_figure(integers: dict[str, np.ndarray]) -> pyplot.Figure:
    """Share of each integer in each kernel."""
    rows = -(-len(integers) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(9, 1.5 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(integers) :]:
        axis.axis("off")
    for axis, (name, codes) in zip(axes.flat, integers.items(), strict=False):
        values, counts = np.unique(codes, return_counts=True)
        axis.bar(values, 100 * counts / codes.size, width=0.9, color="tab:blue")
        axis.set_title(name, fontsize=7)
        axis.tick_params(labelsize=6)
    return figure


def _png(figure: pyplot.Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
