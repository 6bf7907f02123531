"""Draws the pictures of the README and of docs/results.md into docs/pictures: python -m docs.pictures."""

import json
import pathlib
import re
import statistics
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from docs.results import NAMES
from qkd_tf import ablation
from qkd_tf.console import page
from tflite_export.flatbuffer.compress import DECODE_CODE_BYTES

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
C = page.COLOURS
# Phase -> what happens to the teacher, and the losses of student and teacher.
PHASES = (
    ("1  self-studying", "absent", "cross-entropy", None),
    (
        "2  co-studying",
        "learning too",
        "cross-entropy + T² KL(teacher ‖ student)",
        "cross-entropy + T² KL(student ‖ teacher)",
    ),
    ("3  tutoring", "frozen", "cross-entropy + T² KL(teacher ‖ student)", None),
)
FIDELITY, STORAGE = (ROOT / "benchmarks" / name for name in ("fidelity", "storage"))
CAMPAIGN = ROOT / "results" / "cifar10_resnet8"
BITS = ("w2a2", "w3a3", "w4a4")
# Row of the ablation -> its colour and line.
ROWS = {
    "qat": (C["muted"], "-"),
    "fixed_teacher": (C["two"], "-"),
    "cs_tu": (C["one"], ":"),
    "ss_cs": (C["three"], ":"),
    "ss_cs_tu": (C["four"], "-"),
}


@page.in_style
def phases() -> str:
    """Who learns from whom in each phase."""
    drawn = page.axes((9, 2.5))
    drawn.set(xlim=(0, 9), ylim=(0, 2.6))
    drawn.axis("off")
    for number, (name, teacher, student_loss, teacher_loss) in enumerate(PHASES):
        x = 3 * number + 0.15
        drawn.text(x + 1.35, 2.42, name, ha="center", va="center", fontsize=11, fontweight="bold", color=C["ink"])
        _box(drawn, x, 0.1, f"low-bit student\n{_wrapped(student_loss)}", C["one"])
        if teacher != "absent":
            _box(drawn, x, 1.4, f"teacher, {teacher}\n{_wrapped(teacher_loss or '')}".strip(), C["two"])
            _arrow(drawn, x + 1.0, 1.4, 0.97, C["two"])
        if teacher_loss:
            _arrow(drawn, x + 1.7, 0.97, 1.4, C["one"])
    return page.svg(drawn, " ".join(_told()))


def _told() -> Iterator[str]:
    for name, teacher, student_loss, teacher_loss in PHASES:
        taught = f"; its loss is {teacher_loss}" if teacher_loss else ""
        yield f"{name}: the student's loss is {student_loss}; the teacher is {teacher}{taught}."


def _wrapped(loss: str) -> str:
    return loss.replace(" + ", "\n+ ")


def _box(drawn: Axes, x: float, y: float, text: str, colour: str) -> None:
    box = FancyBboxPatch(
        (x, y), 2.7, 0.87, boxstyle="round,pad=0,rounding_size=0.08", facecolor=C["shade"], edgecolor=colour, lw=1.4
    )
    drawn.add_patch(box)
    lines = text.splitlines()
    for number, line in enumerate(lines):  # one by one: a reader's letters are not Matplotlib's, and wider or narrower
        below = 0.24 * (number - (len(lines) - 1) / 2)
        drawn.text(x + 1.35, y + 0.435 - below, line, ha="center", va="center", fontsize=9, color=C["ink"])


def _arrow(drawn: Axes, x: float, start: float, end: float, colour: str) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    drawn.annotate("", (x, end), (x, start), arrowprops=style)


@page.in_style
def sizes() -> str:
    """Top-1 of integer files on CIFAR-10 against the flash of the smallest storage of that network at those bits."""
    drawn = page.axes()
    told = []
    for name, network, top1, colour in (
        ("ResNet-20, self-studying alone, 2 epochs", "resnet20", _of_resnet20, C["two"]),
        ("ResNet-8, all three phases, 20 epochs", "resnet8", _of_campaign, C["one"]),
    ):
        points = [(_bytes(network, bits) / 1000, top1(bits), bits) for bits in BITS]
        drawn.plot(*list(zip(*points, strict=True))[:2], "o-", color=colour, label=name, markersize=5)
        for kilobytes, percent, bits in points:
            place = {"xytext": (5, -9), "textcoords": "offset points", "fontsize": 8, "color": C["muted"]}
            drawn.annotate(bits.upper(), (kilobytes, percent), **place)
        told.append(f"{name}: " + ", ".join(f"{b.upper()} {t:.2f} % in {k:.1f} kB" for k, t, b in points))
    drawn.margins(x=0.14, y=0.16)
    drawn.set(xlabel="flash of the .tflite and of the code for its tables, kB", ylabel="top-1 of the file, %")
    drawn.legend(loc="lower right")
    return page.svg(drawn, f"CIFAR-10, top-1 on 10,000 test images. {'; '.join(told)}.")


def _of_resnet20(bits: str) -> float:
    told = json.loads((FIDELITY / f"cifar10_resnet20_{bits}.json").read_text())
    return told["runtimes"][told["judge"]]["top1"]


def _of_campaign(bits: str) -> float:
    """The mean over seeds of all three phases."""
    return statistics.fmean(cell["tflite_top1"] for cell in _cells("ss_cs_tu", bits))


def _cells(row: str, bits: str) -> list[dict]:
    """Of all seeds of the campaign."""
    return [cell for cell in ablation.cells_of(CAMPAIGN) if (cell["row"], cell["bits"]) == (row, bits)]


def _bytes(network: str, bits: str) -> int:
    """Of flash that the smallest storage takes: lookup tables need code that nothing else does."""
    storages = json.loads((STORAGE / f"cifar10_{network}_{bits}.json").read_text())["storages"]
    return min(row["bytes"] + DECODE_CODE_BYTES * (storage == "tables") for storage, row in storages.items())


@page.in_style
def rows() -> str:
    """Top-1 of the campaign's integer files: a dot a seed, a bar the mean."""
    drawn = page.axes()
    told = []
    for number, (row, (colour, _)) in enumerate(ROWS.items()):
        for group, bits in enumerate(BITS):
            found = [cell["tflite_top1"] for cell in _cells(row, bits)]
            if not found:
                continue
            x, mean = group + 0.15 * (number - 2), statistics.fmean(found)
            label = None if any(text.startswith(NAMES[row]) for text in told) else NAMES[row]
            drawn.plot([x] * len(found), found, "o", color=colour, markersize=4, label=label)
            drawn.plot([x - 0.05, x + 0.05], [mean, mean], color=colour, lw=2)
            told.append(f"{NAMES[row]}, {bits.upper()}: {mean:.2f} % over {len(found)} seeds")
    published = ablation.cells_of(CAMPAIGN)[0]["full_precision_top1"]
    drawn.axhline(published, color=C["muted"], lw=1, ls="--")
    drawn.annotate("float", (2.4, published), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8)
    drawn.set(xlim=(-0.5, 2.5), ylabel="top-1 of the file, %")
    drawn.set_xticks(range(len(BITS)), [bits.upper() for bits in BITS])
    drawn.legend(loc="lower right")
    return page.svg(drawn, f"ResNet-8 on CIFAR-10, float {published:.2f} %. {'; '.join(told)}.")


@page.in_style
def epochs() -> str:
    """Top-1 on validation after each epoch of the campaign's rows at 2 bits, the mean over seeds."""
    drawn = page.axes()
    told = []
    for row, (colour, line) in ROWS.items():
        curves = [
            [top1 for phase in cell["phases"] for top1 in phase["validation_top1"]] for cell in _cells(row, "w2a2")
        ]
        if not curves:
            continue
        means = [statistics.fmean(epoch) for epoch in zip(*curves, strict=True)]
        drawn.plot(range(1, len(means) + 1), means, line, color=colour, label=NAMES[row], lw=1.4)
        told.append(
            f"{NAMES[row]}: {means[0]:.1f} % after the first and {means[-1]:.1f} % after the last of {len(means)}"
        )
    drawn.set(xlabel="epochs", ylabel="top-1 on validation, %")
    drawn.xaxis.get_major_locator().set_params(integer=True)
    drawn.legend(loc="lower right")
    return page.svg(drawn, f"ResNet-8 at W2A2, top-1 on validation after each epoch. {'; '.join(told)}.")


PICTURES = {"phases": phases, "sizes": sizes, "rows": rows, "epochs": epochs}


def standing_alone(element: str) -> str:
    """A page's figure as a file of its own, with the page's colours of light and dark."""
    template = (ROOT / "qkd_tf" / "console" / "page.html.j2").read_text()
    light, dark = re.findall(r":root \{.*?\}", template, re.S)
    style = (
        f"<style>{light} @media (prefers-color-scheme: dark) {{ {dark} }} text {{ font-family: sans-serif }}</style>"
    )
    head, body = element.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{style}{body}\n'


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(standing_alone(draw()))


if __name__ == "__main__":
    main()
