"""One process at a time in a run folder."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

try:
    import fcntl
except ImportError as error:
    raise ImportError("qkd_tf needs Linux or macOS; on Windows work in WSL2") from error

LOCK = "lock"


class FolderInUseError(OSError):
    """Another process uses the folder; the message is one line."""

    __module__ = "qkd_tf"  # where users find it, and what tracebacks say


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """A context that locks `folder`, and creates it if needed. The system releases the lock however the process ends.

    The file `lock` stays, and means nothing without a process that holds it.

    Raises:
      FolderInUseError: another process holds it.
      OSError: the folder cannot be written, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder, os.O_RDWR | os.O_CREAT) as descriptor:
        _lock(folder, descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()}\n".encode())
        yield


def require_unlocked(folder: pathlib.Path) -> None:
    """Looks whether `folder` is in use now, and writes nothing. It may be when it is `locked` later.

    Raises:
      FolderInUseError: another process holds it.
      OSError: its file `lock` cannot be read.
    """
    if (folder / LOCK).exists():
        with _opened(folder, os.O_RDONLY) as descriptor:
            _lock(folder, descriptor, fcntl.LOCK_SH)  # looks of several workers do not exclude each other


@contextlib.contextmanager
def _opened(folder: pathlib.Path, flags: int) -> Iterator[int]:
    descriptor = os.open(folder / LOCK, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(folder: pathlib.Path, descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 40).decode(errors="replace").strip() or "another process"
        raise FolderInUseError(
            f"{folder} is in use by {holder}; wait until it has ended, or give another --run_dir"
        ) from None
