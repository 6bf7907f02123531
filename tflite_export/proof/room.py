"""Whether a file has the room that its run was given by --max_flash_bytes."""


def flash_bytes(verification: dict) -> int:
    """What a file takes of it, as stored for the target; of a file with lookup tables the code that reads them, too.

    Where there is one with lookup tables and one without, the smaller.
    """
    return verification.get("flash_bytes") or verification["file"]["bytes"]


def line(verification: dict) -> str:
    """For people; empty where no room was given."""
    limit = verification.get("max_flash_bytes")
    if not limit:
        return ""
    taken = flash_bytes(verification)
    if taken <= limit:
        return f"within --max_flash_bytes={limit:,}: {taken:,} bytes"
    return f"NOT within --max_flash_bytes={limit:,}: {taken:,} bytes, {taken - limit:,} too many"
