"""Whether a file fits the run's limits, --max_flash_bytes and --max_ram_bytes."""

# Limit -> what is measured against it, and what takes less of it.
LIMITS = {
    "max_flash_bytes": ("the file", "a narrower student or fewer bits (--bits_rule)"),
    "max_ram_bytes": ("TFLM's arena", "smaller inputs or a narrower student"),
}


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
    taken = _taken(verification)
    return [_line(name, limit, taken[name], LIMITS[name][0]) for name in LIMITS if (limit := verification.get(name))]


def too_large(verification: dict) -> str:
    """One line to end with if the file is beyond a limit, which does not refuse it; else ""."""
    over = [
        (f"{what} takes {num_bytes:,} bytes (--{name}={limit:,})", remedy)
        for name, (what, remedy) in LIMITS.items()
        if (limit := verification.get(name)) and (num_bytes := _taken(verification)[name] or 0) > limit
    ]
    if not over:
        return ""
    told, remedies = zip(*over, strict=True)
    return f"note: TOO LARGE for the limits, though verified: {', '.join(told)}; use {', and '.join(remedies)}"


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


def _taken(verification: dict) -> dict[str, int | None]:
    return {"max_flash_bytes": flash_bytes(verification), "max_ram_bytes": arena_bytes(verification)}


def _line(name: str, limit: int, taken: int | None, what: str) -> str:
    if taken is None:
        return f"--{name}={limit:,} was not checked: TFLM did not run the file"
    if taken <= limit:
        return f"within --{name}={limit:,}: {what} takes {taken:,} bytes"
    return f"NOT within --{name}={limit:,}: {what} takes {taken:,} bytes, {taken - limit:,} too many"
