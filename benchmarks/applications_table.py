"""The table of `benchmarks.applications`: a line for each network that was tried."""

import pathlib
import re
from collections.abc import Iterable

RESULTS = pathlib.Path(__file__).with_name("applications")
WIDTHS = {"W8A8": 8, "W4A4": 4}
TAKEN = "taken"
# Those that are to be refused -> a pattern of what of them is.
REFUSED = {"ConvNeXt": "LayerNormalization|LayerScale"}
BEGINNING = r"^\S+ cannot (become an integer \.tflite|be used): (it is a model of Keras 3, and its )?"
HEADER = ("network", "pre-flight", *WIDTHS)


def is_expected(network: str, verdict: str) -> bool:
    """Whether a verdict of the pre-flight is what REFUSED says."""
    reason = next((reason for family, reason in REFUSED.items() if f":{family}" in network), None)
    return verdict == TAKEN if reason is None else re.search(reason, verdict) is not None


def is_fine(row: dict) -> bool:
    """Whether a row is as it is expected to be, and so are its files."""
    files = [row[width] for width in WIDTHS if width in row]
    return is_expected(row["network"], row["preflight"]) and all(file.get("passed") for file in files)


def cells(row: dict) -> tuple[str, ...]:
    """A line of the table; of a refusal the first reason."""
    first, *_ = re.sub(BEGINNING, "", row["preflight"]).split("; ")
    return row["network"], first, *(told(row.get(width, {})) for width in WIDTHS)


def lines(rows: Iterable[dict]) -> list[tuple[str, ...]]:
    """The table for a page: a line for each network with a file or an unexpected verdict; of each library the others
    share two lines, the taken and the refused ones.
    """
    found, alike = [], dict[tuple[str, bool], list[tuple[str, ...]]]()
    for row in rows:
        if any(width in row for width in WIDTHS) or not is_fine(row):
            found.append(cells(row))
        else:
            library, _, _ = row["network"].partition(":")
            alike.setdefault((library, row["preflight"] != TAKEN), []).append(cells(row))
    for (library, _), (first, *others) in sorted(alike.items()):
        names = [first[0], *(name.removeprefix(f"{library}:") for name, *_ in others)]
        found.append((", ".join(names), *first[1:]))
    return found


def told(file: dict) -> str:
    """What `train` found, in words; of no file nothing."""
    if "passed" not in file:
        return file.get("error", "")
    verdict = "passed" if file["passed"] else "REFUSED"
    return f"{verdict}, {file['bytes']:,} bytes, {file['equal']:.2f} % on {file['runtimes']} runtimes"
