"""The figures of report.html: curves over epochs and layers, and small drawings in tables."""

from collections.abc import Sequence

import markupsafe
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from qkd_tf.console.counting import counted
from qkd_tf.console.page import COLOURS, axes, in_style, svg

MANY_EPOCHS = 40  # more have no room for a dot each
# (title, reference, key of its row in diagnosis.json, colour)
ERRORS = (
    ("own grid only", "unrounded", "own_sqnr", "three"),
    ("compared with unrounded weights", "unrounded", "sqnr", "one"),
    ("compared with full precision", "full_precision", "sqnr", "two"),
)
SERIES = {"student": COLOURS["one"], "teacher": COLOURS["two"]}
VALIDATED = {"student": "validation_top1", "teacher": "teacher_validation_top1"}


@in_style
def losses(phases: list[dict]) -> markupsafe.Markup:
    """Training loss by epoch, of student and teacher."""
    drawn = axes()
    texts = []
    for role, colour in SERIES.items():
        seen: list[float] = []
        for start, phase in _starts(phases):
            values = [row.get(f"{role}_loss", np.nan) for row in phase["history"]]
            _curve(drawn, start, values, colour, role if not seen and np.isfinite(values).any() else None, phases)
            seen += [value for value in values if np.isfinite(value)]
        if seen:
            texts.append(f"{role} from {seen[0]:.3g} to {seen[-1]:.3g}")
    _epochs(drawn, phases)
    drawn.set_ylabel("training loss")
    if texts:
        drawn.legend(loc="upper right")
    return svg(
        drawn,
        f"Training loss over {counted(_num_epochs(phases), 'epoch')}: {'; '.join(texts) or 'no network was trained'}.",
    )


@in_style
def validation(phases: list[dict]) -> markupsafe.Markup:
    """Validation top-1 by epoch, of the student and of a teacher that learns, with the student's best epochs."""
    drawn = axes()
    named = set()
    for number, (start, phase) in enumerate(_starts(phases)):
        for role, name in VALIDATED.items():
            values = [row.get(name, np.nan) for row in phase["history"]]
            if np.isfinite(values).any():
                _curve(drawn, start, values, SERIES[role], None if role in named else role, phases)
                named.add(role)
        best = start + phase["best_epoch"], phase["best_validation_top1"]
        drawn.plot(
            *best, "o", color=COLOURS["three"], label="best epoch" if not number else None, markersize=5, clip_on=False
        )
    _epochs(drawn, phases)
    drawn.set_ylabel("validation top-1, %")
    drawn.legend(loc="lower right")
    top1 = "; ".join(f"{p['phase'].replace('_', '-')} {p['best_validation_top1']:.2f} %" for p in phases)
    return svg(drawn, f"Validation top-1 over {counted(_num_epochs(phases), 'epoch')}. Best of each phase: {top1}.")


@in_style
def intervals(phases: list[dict], chosen: Sequence[bool], what: str) -> markupsafe.Markup:
    """Intervals as multiples of their first value.

    Args:
      phases: those of results.json; full precision has no intervals.
      chosen: which of the intervals to draw.
      what: name of the tensors.
    """
    drawn = axes()
    first, lowest, highest = None, 1.0, 1.0
    for start, phase in _starts(phases):
        values = interval_rows(phase)
        if not len(values):
            continue
        first = values[0] if first is None else first
        ratios = (values / first)[:, chosen]
        lowest, highest = min(lowest, ratios.min()), max(highest, ratios.max())
        epochs = start + len(phase["history"]) + 1 - len(values) + np.arange(len(values))
        drawn.plot(epochs, ratios, color=COLOURS["one"], linewidth=1, alpha=0.8 if sum(chosen) < 20 else 0.4)
    drawn.set_yscale("log", base=2)
    drawn.set_ylim(min(lowest / 1.05, 0.8), max(highest * 1.05, 1.25))
    drawn.yaxis.set_major_locator(ticker.MaxNLocator(6))
    drawn.yaxis.set_minor_locator(ticker.NullLocator())
    drawn.yaxis.set_major_formatter("{x:.3g}")
    drawn.set_ylabel(f"interval of {what},\nmultiple of its first")
    _epochs(drawn, phases)
    text = f"Intervals of {sum(chosen)} {what} over the epochs, each as a multiple of its first value: from "
    return svg(drawn, f"{text}{lowest:.2f} to {highest:.2f}.")


def interval_rows(phase: dict) -> np.ndarray:
    """Intervals at the start of a phase and after each epoch, [1 + epochs, intervals]; empty if none were kept."""
    rows = [row["intervals"] for row in phase["history"] if "intervals" in row]
    return np.array([phase.get("first_intervals") or rows[0], *rows]) if rows else np.zeros((0, 0))


@in_style
def errors(rows: list[dict], what: str) -> markupsafe.Markup:
    """SQNR of tensors in the order of the network.

    Args:
      rows: all kernels or all activations of diagnosis.json.
      what: which of the two, in words.
    """
    drawn = axes()
    worst: dict[str, tuple[float, str]] = {}
    shown: list[np.ndarray] = []
    for title, reference, key, colour in ERRORS:
        values = np.array([row.get(reference, {}).get(key) for row in rows], float)
        hidden = any(np.array_equal(values, earlier, equal_nan=True) for earlier in shown)
        if np.isfinite(values).any() and not hidden:
            shown.append(values)
            places = np.arange(1, len(values) + 1)
            drawn.plot(places, values, ".-", color=COLOURS[colour], linewidth=1, markersize=4, label=title)
            worst[title] = (np.nanmin(values), rows[int(np.nanargmin(values))]["layer"])
    drawn.set_xlabel(f"{what}, in the order of the network")
    drawn.set_ylabel("SQNR, dB")
    drawn.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    if worst:
        drawn.legend(loc="lower left", bbox_to_anchor=(0, 1), labelspacing=0.2)  # above: lines are everywhere
    texts = [f"{title}: at least {value:.1f} dB, at {name}" for title, (value, name) in worst.items()]
    return svg(drawn, f"SQNR of {len(rows)} {what}. {'; '.join(texts) or 'none has an error'}.")


def histogram(counts: np.ndarray, text: str) -> markupsafe.Markup:
    """Bars of how often each integer of a grid occurs, with gaps for those that never do."""
    width, height = 120, 40
    step, tallest = width / len(counts), max(1, counts.max())
    bars = [
        f"M{i * step:.4g} {height}v-{max(0.6, count / tallest * height):.3g}h{max(0.4, step * 0.86):.3g}V{height}z"
        for i, count in enumerate(counts)
        if count
    ]
    body = f'<path d="{"".join(bars)}" fill="var(--one)"/><path d="M0 {height}H{width}" stroke="var(--muted)"/>'
    return _small(width, height + 1, body, text)


def spark(values: Sequence[float], text: str) -> markupsafe.Markup:
    """One interval over time, from its smallest to its largest value."""
    series = np.asarray(values)
    low, span = series.min(), np.ptp(series)
    heights = 18 - 16 * (series - low) / (span or 1)
    places = np.linspace(1, 99, len(series)) if len(series) > 1 else [50]
    points = " ".join(f"{x:.4g},{y:.3g}" for x, y in zip(places, heights, strict=True))
    return _small(100, 20, f'<polyline points="{points}" fill="none" stroke="var(--one)" stroke-width="1.5"/>', text)


def ranges(grid: tuple[float, float], seen: tuple[float, float], text: str) -> markupsafe.Markup:
    """A thick bar for what a grid can hold, and a thin line for what was seen."""
    low, high = min(grid[0], seen[0]), max(grid[1], seen[1])

    def place(value: float) -> float:
        return 2 + 96 * (value - low) / (high - low)

    (a, b), (c, d) = map(place, grid), map(place, seen)
    body = (
        f'<path d="M{a:.4g} 4h{b - a:.4g}v10H{a:.4g}z" fill="var(--one)" opacity=".35"/>'
        f'<path d="M{c:.4g} 9H{d:.4g}" stroke="var(--ink)" stroke-width="1.5"/>'
        f'<path d="M{place(0.0):.4g} 2v14" stroke="var(--two)"/>'
    )
    return _small(100, 18, body, text)


def _small(width: int, height: int, body: str, text: str) -> markupsafe.Markup:
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{markupsafe.escape(text)}">'
    return markupsafe.Markup(f"{head}{body}</svg>")  # noqa: S704  (numbers, and the text is escaped)


def _starts(phases: list[dict]) -> list[tuple[int, dict]]:
    """(epochs before it, phase)."""
    ends = np.cumsum([0, *(len(phase["history"]) for phase in phases)])
    return list(zip(ends.tolist(), phases, strict=False))


def _num_epochs(phases: list[dict]) -> int:
    return sum(len(phase["history"]) for phase in phases)


def _curve(drawn: Axes, start: int, values: list[float], colour: str, label: str | None, phases: list[dict]) -> None:
    style = "-" if _num_epochs(phases) > MANY_EPOCHS and len(values) > 1 else ".-"
    epochs = np.arange(start + 1, start + len(values) + 1)
    drawn.plot(epochs, values, style, color=colour, label=label, linewidth=1.3, markersize=4)


def _epochs(drawn: Axes, phases: list[dict]) -> None:
    """Draws the axis of epochs, with every other phase shaded and phase numbers on top."""
    for number, (start, phase) in enumerate(_starts(phases), 1):
        end = start + len(phase["history"])
        if number % 2 == 0:
            drawn.axvspan(start + 0.5, end + 0.5, color=COLOURS["shade"], zorder=0, linewidth=0)
        place = ((start + end + 1) / 2, 1.02)
        drawn.annotate(str(number), place, xycoords=("data", "axes fraction"), ha="center", color=COLOURS["muted"])
    drawn.grid(axis="x", visible=False)
    drawn.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    drawn.set_xlim(0, _num_epochs(phases) + 0.5)
    drawn.set_xlabel("epoch")
