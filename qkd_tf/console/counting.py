"""Numbers of things, in words."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, as in "1 entry", "2 entries", "1,024 classes"."""
    return f"{number:,} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"
