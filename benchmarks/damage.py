"""Ways in which a file comes to harm, and whether it is noticed."""

import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator

import numpy as np

# content, another file's content, random numbers -> what lies there instead; None for nothing.
KINDS: dict[str, Callable[[bytes, bytes, np.random.Generator], bytes | None]] = {
    "missing": lambda content, other, rng: None,
    "empty": lambda content, other, rng: b"",
    "cut": lambda content, other, rng: content[: rng.integers(1, len(content))],
    "one bit": lambda content, other, rng: _flip(content, rng),
    "noise": lambda content, other, rng: rng.bytes(len(content)),
    "foreign": lambda content, other, rng: other,
}


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cases(
    folder: pathlib.Path, names: Iterable[str], times: int, rng: np.random.Generator, scratch: pathlib.Path
) -> Iterator[tuple[str, pathlib.Path]]:
    """Each file by each kind of damage, `times` times: (what was done, copy of `folder` with that done).

    Args:
      names: files of `folder`; each is also what is "foreign" to the one before.
    """
    names = list(names)
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        content = (folder / name).read_bytes()
        foreign = (folder / other).read_bytes() if other != name else b'{"something": "else"}\n'
        for kind, spoil in KINDS.items():
            for _ in range(times):
                shutil.rmtree(scratch, ignore_errors=True)
                shutil.copytree(folder, scratch)
                spoilt = spoil(content, foreign, rng)
                (scratch / name).unlink() if spoilt is None else (scratch / name).write_bytes(spoilt)
                yield f"{name}: {kind}", scratch


def noticed(look: Callable[[], object], expected: object, refusals: tuple[type[Exception], ...]) -> bool:
    """Whether `look` refuses in one line, or finds what it would have found in the whole file."""
    try:
        return look() == expected
    except refusals as refusal:
        return bool(str(refusal)) and "\n" not in str(refusal)
