"""Fields of an experiment that are flags too: their default, their help and their values stand where the field is."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Option(NamedTuple):
    """What a command line is told of a field.

    Attributes:
      name: of the flag.
      kind: type of the field, as it is annotated.
      default: of the flag; None where a user has to give it.
      choices: all its values; none where these are not a list.
      section: of the table of flags.
      is_guest: whether that is the section of another class.
    """

    name: str
    kind: Any
    default: Any
    help: str
    choices: tuple[str, ...]
    section: str
    is_guest: bool


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    flag: str = "",
    section: str = "",
    required: bool = False,
) -> Any:
    """A dataclass field that is a flag.

    Args:
      flag: name of the flag where it is another one than the field's.
      section: of the table of flags, where it is another one than that of the class.
      required: the field itself has no default; the flag's is `default`.
    """
    metadata = {"help": help, "choices": tuple(choices), "flag": flag, "section": section, "default": default}
    return dataclasses.field(metadata=metadata) if required else dataclasses.field(default=default, metadata=metadata)


def options(spec: type, section: str = "") -> Iterator[tuple[str, Option]]:
    """Each field of a dataclass that is a flag: its name and what is told of it.

    Args:
      section: of fields that name none.
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
