"""Whether a file fits the run's limits, --max_flash_bytes and --max_ram_bytes."""

import dataclasses

LIMITS = ("max_flash_bytes", "max_ram_bytes")
PLAIN, COMPRESSED = "model.tflite", "model.compressed.tflite"
NARROWER = "a narrower student or fewer bits (--bits_rule)"
SMALLER = "smaller inputs or a narrower student"
UNPACKED = "--weight_storage=int8, whose weights TFLM does not unpack in its arena, or "


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What one of the exported files takes.

    Attributes:
      file: its name.
      flash: bytes, as stored for the target, with the code that reads lookup tables.
      arena: bytes that TFLM allocated for tensors; None if it did not run the file.
    """

    file: str
    flash: int
    arena: int | None

    def excess(self, limits: dict) -> dict[str, int]:
        """By limit that is exceeded, the number of bytes that are taken."""
        taken = dict(zip(LIMITS, (self.flash, self.arena), strict=True))
        return {name: taken[name] or 0 for name in LIMITS if limits.get(name) and (taken[name] or 0) > limits[name]}


def footprint(verification: dict, limits: dict | None = None) -> Footprint:
    """That of the file that fits the limits; if both or none do, of the one that takes less flash.

    Args:
      limits: by name, 0 for none; None for those in `verification`.
    """
    arena = next((row["arena_bytes"] for row in verification["runtimes"].values() if "arena_bytes" in row), None)
    found = [Footprint(PLAIN, verification["file"]["bytes"], arena)]
    if (compressed := verification.get("compressed")) and "flash_bytes" in verification:  # written if that is less
        found.append(Footprint(COMPRESSED, verification["flash_bytes"], compressed.get("arena_bytes")))
    limits = verification if limits is None else limits
    return min(found, key=lambda one: (len(one.excess(limits)), one.flash))


def lines(verification: dict) -> list[str]:
    """A line for each limit that was given, and whether it is met."""
    found, whats = footprint(verification), _whats(verification)
    taken = (found.flash, found.arena)
    return [
        _line(name, limit, num_bytes, what)
        for name, num_bytes, what in zip(LIMITS, taken, whats, strict=True)
        if (limit := verification.get(name))
    ]


def without_limit(verification: dict) -> str:
    """One line on the RAM that a microcontroller's file takes, if it is known and no limit was given; else ""."""
    arena = footprint(verification).arena
    if verification.get("max_ram_bytes") or "flash_bytes" not in verification or arena is None:
        return ""
    unpacks = "; its own kernels unpack INT4 weights there, and --weight_storage=int8 trades flash for that RAM"
    return f"{_whats(verification)[1]} takes {arena:,} bytes of RAM{unpacks * _has_int4(verification)}"


def _has_int4(verification: dict) -> bool:
    return any(row["type"] == "int4" for row in verification.get("tensors", ()))


def too_large(verification: dict) -> str:
    """One line to end with if the file is beyond a limit, which does not refuse it; else ""."""
    over = footprint(verification).excess(verification)
    if not over:
        return ""
    whats = dict(zip(LIMITS, _whats(verification), strict=True))
    told = [
        f"{whats[name]} takes {num_bytes:,} bytes (--{name}={verification[name]:,})" for name, num_bytes in over.items()
    ]
    remedies = {"max_flash_bytes": NARROWER, "max_ram_bytes": UNPACKED * _has_int4(verification) + SMALLER}
    return (
        f"note: TOO LARGE for the limits, though verified: {', '.join(told)}; use "
        f"{', and '.join(remedies[name] for name in over)}"
    )


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


def _whats(verification: dict) -> tuple[str, str]:
    """What is measured against each limit."""
    if "compressed" not in verification:
        return "the file", "TFLM's arena"
    name = footprint(verification).file
    return name, f"TFLM's arena for {name}"


def _line(name: str, limit: int, taken: int | None, what: str) -> str:
    if taken is None:
        return f"--{name}={limit:,} was not checked: TFLM did not run the file"
    if taken <= limit:
        return f"within --{name}={limit:,}: {what} takes {taken:,} bytes"
    return f"NOT within --{name}={limit:,}: {what} takes {taken:,} bytes, {taken - limit:,} too many"
