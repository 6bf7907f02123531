"""Puts tables of results that are kept in their places, in docs/results.md and the READMEs: python -m docs.results."""

import math
import pathlib
import re
import statistics
from collections.abc import Callable, Mapping

from benchmarks import applications_table, kept_results, zoo
from qkd_tf import ablation

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
PAGES = PAGE, ROOT / "README.md", ROOT / "zoo" / "README.md", ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "results"
# Row of the ablation -> its name for people.
NAMES = {
    "qat": "self-studying alone",
    "fixed_teacher": "fixed teacher",
    "cs_tu": "without self-studying",
    "ss_cs": "without tutoring",
    "ss_cs_tu": "all three phases",
}
TEACHERS = "qat", "fixed_teacher", "ss_cs_tu"
GAPS = ("ss_cs_tu", "qat"), ("ss_cs_tu", "fixed_teacher"), ("fixed_teacher", "qat")  # what is less what


def means(campaign: str) -> list[tuple[str, ...]]:
    """A line for each row and bit width of a campaign, over its seeds, as the ablation itself tells them."""
    lines = ablation.markdown(ablation.table(ablation.cells_of(RESULTS / campaign))).splitlines()
    head, _, *rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return [head, *rows]


def teachers(*campaigns: str) -> list[tuple[str, ...]]:
    """A line for each campaign and bit width: what a teacher brings, over all seeds."""
    lines = [("student", "full precision", "bits", *(NAMES[row] for row in TEACHERS))]
    for campaign in campaigns:
        began = ablation.cells_of(RESULTS / campaign)[0]["full_precision_top1"]
        told = {(bits, row): top1 for bits, row, _, top1, _ in means(campaign)[1:]}
        for bits in sorted({bits for bits, _ in told}):
            top1 = (told.get((bits, row), "") for row in TEACHERS)
            lines.append((campaign.removeprefix("cifar10_"), f"{began:.2f}", bits, *top1))
    return lines


def gaps(*campaigns: str) -> list[tuple[str, ...]]:
    """A line for each campaign and bit width: the rows' differences, paired by seed, and what chance may do.

    Chance is twice the standard error of a difference of two runs, each over its own draw of as many test images.
    """
    lines = [("student", "bits", *(f"{NAMES[row]} − {NAMES[base]}" for row, base in GAPS), "chance")]
    for campaign in campaigns:
        cells = ablation.cells_of(RESULTS / campaign)
        told = {
            (row["row"], base, row["bits"]): ablation.plus_minus(row["difference"], row["difference_std"], "+.2f")
            for base in TEACHERS
            for row in ablation.table(cells, base)
        }
        for bits in sorted({cell["bits"] for cell in cells}):
            share = statistics.fmean(cell["tflite_top1"] for cell in cells if cell["bits"] == bits) / 100
            num_images = next(cell["num_images"] for cell in cells if cell["bits"] == bits)
            chance = 200 * math.sqrt(2 * share * (1 - share) / num_images)
            differences = (told.get((row, base, bits), "") for row, base in GAPS)
            lines.append((campaign.removeprefix("cifar10_"), bits.upper(), *differences, f"{chance:.2f}"))
    return lines


def runs(campaign: str) -> list[tuple[str, ...]]:
    """A line for each run of a campaign: test top-1 of what it began with, after each phase, and in the end."""
    lines = [
        (
            *("bits", "row", "seed", "float", "after each phase", "on integer steps", "file"),
            *("teacher", "agreement", "training, s"),
        )
    ]
    order = list(ablation.ROWS)
    cells = ablation.cells_of(RESULTS / campaign)
    for run in sorted(cells, key=lambda run: (run["bits"], order.index(run["row"]), run["seed"])):
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


def halving(folder: str) -> list[tuple[str, ...]]:
    """A line for each option of each round of `benchmarks.defaults`: its mean top-1 on validation, best first."""
    lines = [("bits", "epochs", "option", "flags", "seeds", "student, %", "teacher, %")]
    groups: dict[tuple, list[dict]] = {}
    for cell in ablation.cells_of(RESULTS / folder):
        groups.setdefault((cell["bits"], cell["epochs"], cell["option"]), []).append(cell)
    means = {key: statistics.fmean(cell["validation_top1"] for cell in cells) for key, cells in groups.items()}
    for key in sorted(groups, key=lambda key: (key[0], key[1], -means[key])):
        bits, epochs, option = key
        cells = groups[key]
        deviation = statistics.stdev(cell["validation_top1"] for cell in cells) if len(cells) > 1 else None
        taught = [cell["teacher_validation_top1"] for cell in cells if cell["teacher_validation_top1"] is not None]
        lines.append(
            (
                bits.upper(),
                str(epochs),
                option,
                " ".join(f"`{flag}`" for flag in cells[0]["flags"]),
                str(len(cells)),
                ablation.plus_minus(means[key], deviation, ".2f"),
                f"{statistics.fmean(taught):.2f}" if taught else "",
            )
        )
    return lines


def zoo_files(folder: str) -> list[tuple[str, ...]]:
    """A line for each entry of the zoo."""
    return zoo.rows(ROOT / folder)


def classifiers_of_keras() -> list[tuple[str, ...]]:
    """The networks of Keras that were tried."""
    rows = kept_results.of_folder(applications_table.RESULTS)
    return [applications_table.HEADER, *applications_table.lines(rows)]


# A place in a page is <!-- TABLE FOLDER … -->, of a table below and folders of results/, if it has any.
TABLES: Mapping[str, Callable[..., list[tuple[str, ...]]]] = {
    "means": means,
    "teachers": teachers,
    "gaps": gaps,
    "runs": runs,
    "options": options,
    "halving": halving,
    "zoo_files": zoo_files,
    "classifiers_of_keras": classifiers_of_keras,
}
PLACE = re.compile(r"<!-- (\w+)((?: \w+)*) -->\n")


def page(text: str) -> str:
    """The page with its tables, each from <!-- TABLE FOLDER --> to <!-- end -->, as they are now.

    Raises:
      KeyError: a table that is not one of TABLES.
    """

    def filled(place: re.Match) -> str:
        table, folders = PLACE.match(place[0]).groups()
        head, *lines = TABLES[table](*folders.split())
        rows = "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))
        return f"<!-- {table}{folders} -->\n{rows}\n<!-- end -->"

    return re.sub(PLACE.pattern + r".*?<!-- end -->", filled, text, flags=re.S)


def main() -> None:
    for path in PAGES:
        path.write_text(page(path.read_text()))


if __name__ == "__main__":
    main()
