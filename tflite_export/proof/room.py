"""Whether a file fits the run's limits, --max_flash_bytes and --max_ram_bytes."""


def flash_bytes(verification: dict) -> int:
    """Bytes that a file takes of the budget, as stored for the target, with the code that reads lookup tables.

    Of the files with and without lookup tables, the smaller one.
    """
    return verification.get("flash_bytes") or verification["file"]["bytes"]


def arena_bytes(verification: dict) -> int | None:
    """Bytes that TFLM allocated for tensors; None if it did not run the file."""
    return next((row["arena_bytes"] for row in verification["runtimes"].values() if "arena_bytes" in row), None)


def lines(verification: dict) -> list[str]:
    """A line for each limit that was given, and whether it is met."""
    had = {
        "max_flash_bytes": (flash_bytes(verification), "the file"),
        "max_ram_bytes": (arena_bytes(verification), "TFLM's arena"),
    }
    return [_line(name, limit, *had[name]) for name in had if (limit := verification.get(name))]


def in_all(verification: dict) -> str:
    """One line on the flash and RAM of the whole firmware, if there are limits and these are known; else ""."""
    rows = verification.get("firmware", ())
    if not rows or not lines(verification):
        return ""
    core, file = rows[0]["core"], min(rows, key=lambda row: row["flash_bytes"])["file"]
    sums = [
        f"{row['flash_bytes']:,} bytes of flash and {row['ram_bytes']:,} of RAM with {row['kernels']}"
        for row in rows
        if (row["core"], row["file"]) == (core, file)
    ]
    return f"the limits leave out TFLM itself; on a {core} {file} and TFLM take {', '.join(sums)}"


def _line(name: str, limit: int, taken: int | None, what: str) -> str:
    if taken is None:
        return f"--{name}={limit:,} was not checked: TFLM did not run the file"
    if taken <= limit:
        return f"within --{name}={limit:,}: {what} takes {taken:,} bytes"
    return f"NOT within --{name}={limit:,}: {what} takes {taken:,} bytes, {taken - limit:,} too many"
