"""Draws the README's pictures into docs/pictures: python -m docs.pictures."""

import json
import pathlib
import re
import statistics
from collections.abc import Iterable, Iterator

from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch

from qkd_tf import page

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
C = page.COLOURS
# Phase -> what happens to the teacher, and the losses of student and teacher.
PHASES = (
    ("1  self-studying", "absent", "cross-entropy", None),
    (
        "2  co-studying",
        "learns too",
        "cross-entropy + T² KL(teacher ‖ student)",
        "cross-entropy + T² KL(student ‖ teacher)",
    ),
    ("3  tutoring", "frozen", "cross-entropy + T² KL(teacher ‖ student)", None),
)
RESULTS = ROOT / "results" / "cifar10_resnet8"
STORAGE = ROOT / "benchmarks" / "storage"
ROWS = {"qat": ("quantization-aware training alone", C["two"]), "ss_cs_tu": ("QKD, three phases", C["one"])}


def phases() -> str:
    """Who learns from whom in each phase."""
    drawn = pyplot.subplots(figsize=(9, 2.5), layout="constrained")[1]
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


def _box(drawn: pyplot.Axes, x: float, y: float, text: str, colour: str) -> None:
    box = FancyBboxPatch(
        (x, y), 2.7, 0.87, boxstyle="round,pad=0,rounding_size=0.08", facecolor=C["shade"], edgecolor=colour, lw=1.4
    )
    drawn.add_patch(box)
    drawn.text(x + 1.35, y + 0.435, text, ha="center", va="center", fontsize=9, color=C["ink"], linespacing=1.35)


def _arrow(drawn: pyplot.Axes, x: float, start: float, end: float, colour: str) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    drawn.annotate("", (x, end), (x, start), arrowprops=style)


def sizes() -> str:
    """Top-1 of ResNet-8 on CIFAR-10 against the bytes of its smallest file, at each bit width that was trained."""
    drawn = page.axes()
    told = []
    for row, (name, colour) in ROWS.items():
        points = sorted((_bytes(bits) / 1000, _top1(row, bits), bits) for bits in _bits(row))
        if points:
            x, y, bits = zip(*points, strict=True)
            drawn.plot(x, y, "o-", color=colour, label=name)
            told.append(f"{name}: " + ", ".join(f"{b.upper()} {t:.2f} % in {k:.1f} kB" for k, t, b in points))
    if not told:
        raise SystemExit(f"{RESULTS} has no results; run python -m qkd_tf.ablation")
    for kilobytes, top1, bits in points:
        drawn.annotate(bits.upper(), (kilobytes, top1), (0, 6), textcoords="offset points", ha="center", color=C["ink"])
    drawn.margins(x=0.12, y=0.2)
    drawn.set(xlabel="bytes of the smallest .tflite, thousands", ylabel="top-1 of the file, %")
    drawn.legend(loc="lower right")
    return page.svg(drawn, f"ResNet-8 on CIFAR-10, 10,000 test images. {'; '.join(told)}.")


def _bits(row: str) -> Iterable[str]:
    return sorted({re.fullmatch(rf"{row}_(w\da\d)_seed\d+", path.stem)[1] for path in RESULTS.glob(f"{row}_w*.json")})


def _top1(row: str, bits: str) -> float:
    return statistics.fmean(json.loads(p.read_text())["tflite_top1"] for p in RESULTS.glob(f"{row}_{bits}_*.json"))


def _bytes(bits: str) -> int:
    """Of the smallest storage that was measured."""
    storages = json.loads((STORAGE / f"cifar10_resnet8_{bits}.json").read_text())["storages"]
    return min(storage["bytes"] for storage in storages.values())


PICTURES = {"phases": phases, "sizes": sizes}


def standing_alone(element: str) -> str:
    """A page's figure as a file of its own, with the page's colours of light and dark."""
    template = (ROOT / "qkd_tf" / "page.html.j2").read_text()
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
