"""Files that are written completely or not at all, and that reveal later changes.

A file is written under another name, flushed to the disk and renamed; so is a folder, with a manifest of its files'
SHA-256. After a kill, a power failure or a full disk, the previous content is still there. Standard library only.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

MANIFEST = "manifest.json"
PART = ".part"  # what is being written
OLD = ".old"  # what is being replaced


class DamageError(ValueError):
    """A file differs from what was written; the message is one line."""


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that it has either the old content or the new one, never a part.

    Raises:
      OSError: it cannot be written; the old content is still there.
    """
    part = path.with_name(path.name + PART)
    with _telling(path), open(part, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    _flush(path.parent)


def write_json(path: pathlib.Path, value: dict) -> None:
    """`write_whole` of a JSON object that includes the SHA-256 of its content."""
    write_whole(path, json.dumps({**value, "sha256": _digest_of(value)}, indent=1) + "\n")


def read_json(path: pathlib.Path) -> dict:
    """What `write_json` wrote, without the checksum.

    Raises:
      DamageError: the file is not what `write_json` wrote.
    """
    try:
        value = json.loads(path.read_text())
        digest = value.pop("sha256", None)
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise DamageError(f"{path} is not the JSON object that was written") from None
    if digest != _digest_of(value):
        raise DamageError(f"{path} was changed after it was written: its SHA-256 differs")
    return value


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A context that gives a new folder to fill; at the end it is sealed and replaces `path`.

    After an error the old folder stays; after a kill the old one, the new one or, between two renames, neither.
    """
    part, old = (path.with_name(path.name + ending) for ending in (PART, OLD))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with _telling(path):
            yield part
            seal(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)  # on a full disk the room is wanted
        raise
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    part.rename(path)
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def seal(folder: pathlib.Path) -> None:
    """Flushes every file in `folder`, and writes the manifest of their checksums."""
    files = sorted(file for file in folder.iterdir() if file.name != MANIFEST)
    for file in files:
        _flush(file)
    write_json(folder / MANIFEST, {"files": {file.name: digest(file) for file in files}})


def check(folder: pathlib.Path) -> None:
    """Compares every file of a sealed folder with the manifest; files added later are ignored.

    Raises:
      DamageError: a file is missing or changed, or there is no manifest.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise DamageError(f"{folder} has no {MANIFEST}: it was never finished, or another version of qkd_tf wrote it")
    files = read_json(manifest).get("files")
    if not isinstance(files, dict) or not files:
        raise DamageError(f"{manifest} lists no files")
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise DamageError(f"{folder} lacks {name}")
        if digest(folder / name) != expected:
            raise DamageError(f"{folder / name} was changed after it was written: its SHA-256 differs")


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _telling(path: pathlib.Path) -> Iterator[None]:
    """Adds `path` to an OSError that names no file: a full disk shows while writing, not while opening."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            raise OSError(f"{path} cannot be written: {error.strerror}") from error
        raise


def _digest_of(value: dict) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _flush(path: pathlib.Path) -> None:
    """Flushes to the disk; for a folder, its names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush a folder
            raise
    finally:
        os.close(descriptor)
