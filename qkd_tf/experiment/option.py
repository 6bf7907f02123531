"""Fields of an experiment that are also flags: default, help and choices are written beside the field."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Option(NamedTuple):
    """What the command line needs to know about a field.

    Attributes:
      name: name of the flag.
      kind: type of the field, as it is annotated.
      default: default of the flag; None if the user has to give it.
      choices: all allowed values; empty if they are not a list.
      section: of the table of flags.
      is_guest: whether the section belongs to another class.
    """

    name: str
    kind: Any
    default: Any
    help: str
    choices: tuple[str, ...]
    section: str
    is_guest: bool


def as_flag(
    default: Any, help: str, *, choices: Sequence[str] = (), flag: str = "", section: str = ""
) -> dict[str, Any]:
    """Metadata of a dataclass field that is a flag, for a field without a default or with another one than the flag.

    Args:
      default: of the flag.
      flag: name of the flag, if it differs from the field's.
      section: section in the table of flags, if it differs from the class's.
    """
    return {"help": help, "choices": tuple(choices), "flag": flag, "section": section, "default": default}


def option(default: T, help: str, *, choices: Sequence[str] = (), flag: str = "", section: str = "") -> T:
    """A dataclass field that is a flag with the same default; otherwise as `as_flag`."""
    metadata = as_flag(default, help, choices=choices, flag=flag, section=section)
    return dataclasses.field(default=default, metadata=metadata)


def options(spec: type, section: str = "") -> Iterator[tuple[str, Option]]:
    """Each field of a dataclass that is a flag: its name and its `Option`.

    Args:
      section: section of fields that name none.
    """
    for field in dataclasses.fields(spec):
        if told := field.metadata:
            yield (
                field.name,
                Option(
                    told["flag"] or field.name,
                    field.type,
                    told["default"],
                    told["help"],
                    told["choices"],
                    told["section"] or section,
                    is_guest=bool(told["section"]),
                ),
            )
