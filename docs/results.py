"""Puts the tables of docs/results.md in their places, from the files in results/: python -m docs.results."""

import json
import pathlib
import re
from collections.abc import Callable, Mapping

from qkd_tf import ablation

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
CAMPAIGN, OPTIONS = ROOT / "results" / "cifar10_resnet8", ROOT / "results" / "defaults"
ORDER = list(ablation.ROWS)


def _read(folder: pathlib.Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*_seed*.json"))]


def runs() -> list[tuple[str, ...]]:
    """A line for each run of the campaign: test top-1 behind each of its phases, and of what became of it."""
    lines = [
        ("bits", "row", "seed", "behind each phase", "on integer steps", "file", "teacher", "agreement", "training, s")
    ]
    for run in sorted(_read(CAMPAIGN), key=lambda run: (run["bits"], ORDER.index(run["row"]), run["seed"])):
        phases = run["phases"]
        taught = [phase["teacher_test_top1"] for phase in phases if "teacher_test_top1" in phase]
        lines.append(
            (
                run["bits"].upper(),
                run["row"],
                str(run["seed"]),
                ", ".join(f"{phase['phase']} {phase['student_test_top1']:.2f}" for phase in phases),
                f"{run['student_top1']:.2f}",
                f"**{run['tflite_top1']:.2f}**" + ("" if run["passed"] else " (refused)"),
                f"{taught[-1]:.2f}" if taught else "",
                f"{run['top1_agreement']:.2f}",
                f"{run['seconds']:,.0f}",
            )
        )
    return lines


def options() -> list[tuple[str, ...]]:
    """A line for each option that was tried: top-1 on validation."""
    lines = [("bits", "option", "seed", "flags", "validation top-1, %")]
    for cell in sorted(_read(OPTIONS), key=lambda cell: (cell["bits"], -cell["validation_top1"])):
        flags = " ".join(f"`{flag}`" for flag in cell["flags"])
        lines.append((cell["bits"].upper(), cell["option"], str(cell["seed"]), flags, f"{cell['validation_top1']:.2f}"))
    return lines


TABLES: Mapping[str, Callable[[], list[tuple[str, ...]]]] = {"runs": runs, "options": options}


def page(text: str) -> str:
    """The page with its tables, which stand between <!-- NAME --> and <!-- end -->, as they are now."""
    for name, table in TABLES.items():
        head, *lines = table()
        rows = "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines)) + "\n"
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.S)
        if len(place.findall(text)) != 1:
            raise ValueError(f"{PAGE} must have one place for the table {name}: <!-- {name} --> to <!-- end -->")
        text = place.sub(rows.replace("\\", r"\\"), text)
    return text


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
