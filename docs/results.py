"""Puts the tables of docs/results.md in their places, from the files in results/: python -m docs.results."""

import pathlib
import re
from collections.abc import Callable, Mapping

from qkd_tf import ablation

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "results"
ORDER = list(ablation.ROWS)


def means(campaign: str) -> list[tuple[str, ...]]:
    """A line for each row and bit width of a campaign, over its seeds, as the ablation itself tells them."""
    lines = ablation.markdown(ablation.table(ablation.cells_of(RESULTS / campaign))).splitlines()
    head, _, *rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return [head, *rows]


def runs(campaign: str) -> list[tuple[str, ...]]:
    """A line for each run of a campaign: test top-1 of what it began with, behind each phase, and in the end."""
    lines = [
        (
            *("bits", "row", "seed", "float", "behind each phase", "on integer steps", "file"),
            *("teacher", "agreement", "training, s"),
        )
    ]
    for run in sorted(
        ablation.cells_of(RESULTS / campaign), key=lambda run: (run["bits"], ORDER.index(run["row"]), run["seed"])
    ):
        phases, began = run["phases"], run["full_precision_top1"]
        taught = [phase["teacher_test_top1"] for phase in phases if "teacher_test_top1" in phase]
        lines.append(
            (
                run["bits"].upper(),
                run["row"],
                str(run["seed"]),
                f"{began:.2f}" if began else "",
                ", ".join(f"{phase['phase']} {phase['student_test_top1']:.2f}" for phase in phases),
                f"{run['student_top1']:.2f}",
                f"**{run['tflite_top1']:.2f}**" + ("" if run["passed"] else " (refused)"),
                f"{taught[-1]:.2f}" if taught else "",
                f"{run['top1_agreement']:.2f}",
                f"{run['seconds']:,.0f}",
            )
        )
    return lines


def options(folder: str) -> list[tuple[str, ...]]:
    """A line for each option that was tried: top-1 on validation."""
    lines = [("bits", "option", "seed", "flags", "student, %", "teacher, %")]
    for cell in sorted(ablation.cells_of(RESULTS / folder), key=lambda cell: (cell["bits"], -cell["validation_top1"])):
        flags = " ".join(f"`{flag}`" for flag in cell["flags"])
        teacher = cell["teacher_validation_top1"]
        numbers = f"{cell['validation_top1']:.2f}", "" if teacher is None else f"{teacher:.2f}"
        lines.append((cell["bits"].upper(), cell["option"], str(cell["seed"]), flags, *numbers))
    return lines


# A place in the page is <!-- TABLE FOLDER -->, of a table below and a folder of results/.
TABLES: Mapping[str, Callable[[str], list[tuple[str, ...]]]] = {"means": means, "runs": runs, "options": options}


PLACE = re.compile(r"<!-- (\w+) (\w+) -->\n")


def page(text: str) -> str:
    """The page with its tables, each from <!-- TABLE FOLDER --> to <!-- end -->, as they are now.

    Raises:
      KeyError: a table that is not one of TABLES.
    """

    def filled(place: re.Match) -> str:
        table, folder = PLACE.match(place[0]).groups()
        head, *lines = TABLES[table](folder)
        rows = "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))
        return f"<!-- {table} {folder} -->\n{rows}\n<!-- end -->"

    return re.sub(PLACE.pattern + r".*?<!-- end -->", filled, text, flags=re.S)


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
