"""Messages for callers in Python, where flags are keyword arguments. All texts are written for the command line."""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping

from qkd_tf.console.translation import translated

# A command for a terminal, which stays; or a flag, and its value up to the end of a word or a sentence.
SPOKEN = re.compile(
    r"python -m [\w.]+(?: [\w:/.]+)?(?: --[^\s;]+)+"
    r"|(?<![\w-])--(\w+)(?:=([^\s;)]*?)(?=[.:?,]?(?:[\s;)]|$)))?"
)
# Values that Python reads as they are: numbers, what stands for a value, what is quoted, and <lambda>.
PLAIN = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?|nan|inf|N|…|['\"<].*", re.IGNORECASE)
FLAG_BEFORE = re.compile(r"(?<![\w-])--\w+(?:=[^\s;,)]*)? $")  # from which Python needs a comma
COMMA = "\0"  # in its place, until the space before it is known to go


@dataclasses.dataclass(frozen=True)
class Keyword:
    """What a function takes instead of a flag.

    Attributes:
      is_boolean: whether the flag is a truth value, --name and --noname.
    """

    name: str
    is_boolean: bool = False


def in_keywords(text: str, keywords: Mapping[str, Keyword]) -> str:
    """A text with keyword arguments instead of flags.

    --seed=1 is seed=1, --phases= is phases=[], --nojit is jit=False, --image_size=72x96 is image_size="72x96", and
    --phases=a,b is phases=["a", "b"]. "--seed=1 --jit" is "seed=1, jit=True".
    Other flags stay as they are, and so do commands, "python -m …".

    Args:
      keywords: by the name of the flag.
    """

    def keyword(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name is None:
            return found[0]
        is_off = name not in keywords and name.startswith("no")
        told = keywords.get(name.removeprefix("no") if is_off else name)
        if told is None or (is_off and not told.is_boolean):
            return found[0]
        name = COMMA * bool(FLAG_BEFORE.search(text, 0, found.start())) + told.name
        if value:
            return f"{name}={value.capitalize() if told.is_boolean else _in_python(value)}"
        return name + ("=False" if is_off else "=[]" if value is not None else "=True" * told.is_boolean)

    return SPOKEN.sub(keyword, text).replace(f" {COMMA}", ", ")


def _in_python(value: str) -> str:
    """A flag's value as a Python expression; that of several entries as a list."""
    if "," in value and not PLAIN.fullmatch(value):
        return f"[{', '.join(map(_in_python, value.split(',')))}]"
    return value if PLAIN.fullmatch(value) else f'"{value}"'


@contextlib.contextmanager
def speaking_python(keywords: Mapping[str, Keyword], errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """A context or decorator in which everything printed, and the messages of `errors`, are put `in_keywords`.

    Texts of a user's own code are translated, too, if they name flags of `keywords`.
    """
    try:
        with translated(functools.partial(in_keywords, keywords=keywords)):
            yield
    except errors as error:
        error.args = (in_keywords(str(error), keywords),)
        raise
