"""Nouns beside numbers, articles and names."""

import re

# Beginnings that sound like a vowel: that letter, or a letter of an abbreviation that is spelled, as in LSTM.
VOWEL = re.compile(r"[aeioAEIO]|[uU](?!ni)|[FHLMNRSX][A-Z]")


def counted(number: int, noun: str) -> str:
    """A number with its noun, as in "1 entry", "2 entries", "1,024 classes"."""
    return f"{number:,} {noun if number == 1 else _plural(noun)}"


def with_article(noun: str) -> str:
    """A noun with its article, as in "a Dense", "an Embedding", "an LSTM"."""
    return f"{'an' if VOWEL.match(noun) else 'a'} {noun}"


def in_role(role: str, name: str) -> str:
    """A network with what it is there for, as in "the student mobilenet", and "the student" if it is called that."""
    return f"the {role}" if name == role else f"the {role} {name}"


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
