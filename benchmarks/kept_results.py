"""Results that are kept, a small JSON file each, and the Markdown table of all of a folder."""

import json
import pathlib
from collections.abc import Callable, Iterable, Sequence


def keep(path: pathlib.Path, numbers: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(numbers, indent=1) + "\n")


def of_folder(folder: pathlib.Path) -> list[dict]:
    """All that is kept in a folder, in the order of the files' names."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def print_table(folder: pathlib.Path, header: Sequence[str], rows: Callable[[dict], Iterable[Sequence[str]]]) -> None:
    """Prints what lies there.

    Args:
      rows: the cells of the lines of one file.
    """
    lines = (cells for numbers in of_folder(folder) for cells in rows(numbers))
    for cells in (header, ("---",) * len(header), *lines):
        print(f"| {' | '.join(cells)} |")


def of_runs(
    run_dirs: Iterable[str],
    measure: Callable[[pathlib.Path], dict],
    folder: pathlib.Path,
    header: Sequence[str],
    rows: Callable[[dict], Iterable[Sequence[str]]],
) -> None:
    """Keeps what `measure` finds of each run, and prints the table of all that are there.

    Args:
      measure: takes a run's folder.
    """
    for run_dir in map(pathlib.Path, run_dirs):
        keep(folder / f"{run_dir.name}.json", measure(run_dir))
    print_table(folder, header, rows)
