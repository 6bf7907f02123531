"""Whether a file fits the run's budget, --max_flash_bytes."""


def flash_bytes(verification: dict) -> int:
    """Bytes that a file takes of the budget, as stored for the target, with the code that reads lookup tables.

    Of the files with and without lookup tables, the smaller one.
    """
    return verification.get("flash_bytes") or verification["file"]["bytes"]


def line(verification: dict) -> str:
    """One line on the budget; empty if there is none."""
    limit = verification.get("max_flash_bytes")
    if not limit:
        return ""
    taken = flash_bytes(verification)
    if taken <= limit:
        return f"within --max_flash_bytes={limit:,}: {taken:,} bytes"
    return f"NOT within --max_flash_bytes={limit:,}: {taken:,} bytes, {taken - limit:,} too many"
