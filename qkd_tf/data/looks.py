"""Looks at each picture file once, and remembers the result from run to run.

The memory is a file in the user's cache folder, one for each folder of pictures. It may be deleted at any time. If it
cannot be written, nothing is remembered; if it is damaged or from another version, it is not read.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import io
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import PIL
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from qkd_tf.data.pixels import decode
from qkd_tf.storage import durable

ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
# Of a file: what it is known by (see `_key`), height and width, its SHA-256, and whether its EXIF data say that it
# is not upright.
ROW = np.dtype([("key", "S16"), ("size", "<u4", 2), ("sha256", "u1", 32), ("is_turned", "?")])
VERSION = f"1, TensorFlow {tf.__version__}, Pillow {PIL.__version__}: {ROW}".encode()
SETTLED = 2.0  # seconds; a file changed more recently may change again without its time stamp changing
CHUNK = 50_000  # files between two writings of the memory
SHA256_BYTES = hashlib.sha256().digest_size


def look(root: pathlib.Path, paths: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Reads and decodes each picture once, unless an earlier run did and it has not changed since.

    Args:
      root: the folder of pictures, to which the memory belongs.
      paths: files in it, each once.

    Returns:
      ROWs [N], and by index why a picture cannot be decoded; its row is empty, and it is not remembered.
    """
    memory = _memory(root)
    known, rows, problems = _recall(memory), np.zeros(len(paths), ROW), {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        keys = pool.map(lambda chunk: [_key(path, root) for path in chunk], _chunks(paths))
        keys = np.array([key for part in keys for key in part], ROW["key"])
        found = _found(known, keys)
        rows[found >= 0] = known[found[found >= 0]]
        unseen = np.flatnonzero(found < 0).tolist()
        bar = tqdm(None, "looking at images", len(unseen), unit="image", mininterval=1, disable=not unseen)
        with bar:
            for chunk in _chunks(unseen):
                try:
                    for index, seen in zip(chunk, pool.map(_look, [paths[index] for index in chunk]), strict=True):
                        if isinstance(seen, str):
                            problems[index] = seen
                        else:
                            rows[index] = (keys[index], *seen)
                        bar.update()
                finally:  # a run that is stopped here does not begin anew
                    _keep(memory, rows, known)
    return rows, problems


def _chunks(values: Sequence) -> Iterator[Sequence]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def _look(path: str) -> str | tuple[tuple[int, int], np.ndarray, bool]:
    """What is wrong with a picture; else its size, its SHA-256 and whether EXIF rotates it, as in ROW."""
    try:
        encoded = pathlib.Path(path).read_bytes()
        if not encoded:
            return "0 bytes"
        try:
            size = _size()(tf.constant(encoded)).numpy().tolist()
        except tf.errors.OpError:
            size = decode(tf.constant(encoded)).shape[:2]  # whose message is only what is wrong
    except tf.errors.OpError as error:
        return error.message.splitlines()[0].split("}} ")[-1].split(" [Op:")[0][:100]
    except OSError as error:
        return error.strerror
    return tuple(size), np.frombuffer(hashlib.sha256(encoded).digest(), np.uint8), _is_turned(encoded)


@functools.cache
def _size() -> Callable[[tf.Tensor], tf.Tensor]:
    """Takes an encoded picture to its height and width. A graph: op by op, `decode` takes several times as long."""
    size = tf.function(lambda encoded: tf.shape(decode(encoded))[:2])
    return size.get_concrete_function(tf.TensorSpec([], tf.string))


def size_of(path: str) -> tuple[int, int] | None:
    """Height and width of a picture; None if it cannot be decoded."""
    seen = _look(path)
    return None if isinstance(seen, str) else seen[0]


def _is_turned(encoded: bytes) -> bool:
    """Whether a viewer rotates the picture, which decoders do not."""
    if b"Exif" not in encoded[: 1 << 16] and b"eXIf" not in encoded[: 1 << 16]:
        return False
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "WEBP")) as picture:
            return picture.getexif().get(ORIENTATION, 1) not in (0, 1)
    except Exception:  # EXIF data of strangers, which nothing here needs
        return False


def _memory(root: pathlib.Path) -> pathlib.Path | None:
    """File of the memory for a folder of pictures; None if the user has no cache folder."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(folder):  # by the XDG specification it is not to be used
        return None
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return pathlib.Path(folder, "qkd_tf", "looks", name)


def _key(path: str, root: pathlib.Path) -> bytes:
    """Identifies a file without reading it; b"" if that is impossible.

    It includes the time of the file's last change of any kind (ctime), which nobody can set back.
    """
    try:
        stat = os.stat(path)
    except OSError:
        return b""
    if stat.st_ctime > time.time() - SETTLED:
        return b""
    told = f"{within(path, root)}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    return hashlib.sha256(os.fsencode(told)).digest()[: ROW["key"].itemsize]


def within(path: str, root: pathlib.Path) -> str:
    """A path listed under `root`, relative to it."""
    return path.removeprefix(_prefix(root))


@functools.lru_cache
def _prefix(root: pathlib.Path) -> str:
    return os.path.join(root, "")


def _found(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Indices [N] of keys in `known`, which is sorted by them; -1 for those that are not there."""
    if not len(known):
        return np.full(len(keys), -1)
    at = np.minimum(np.searchsorted(known["key"], keys), len(known) - 1)
    return np.where((known["key"][at] == keys) & (keys != b""), at, -1)


def _recall(memory: pathlib.Path | None) -> np.ndarray:
    """Rows as `_keep` wrote them, sorted by key; none if the file is not as `_keep` writes it."""
    with contextlib.suppress(OSError):
        content = memory.read_bytes() if memory else b""
        rows = content[SHA256_BYTES:]
        if content[:SHA256_BYTES] == hashlib.sha256(VERSION + rows).digest():
            return np.frombuffer(rows, ROW)
    return np.zeros(0, ROW)


def _keep(memory: pathlib.Path | None, rows: np.ndarray, known: np.ndarray) -> None:
    """Writes the memory anew.

    Rows of files that were not looked at this time are kept, so that a trial on some pictures does not forget the
    others, but at most as many as of those that were, so that deleted files do not fill the disk.
    """
    most, rows = len(rows), _sorted(rows[rows["key"] != b""])
    others = known[_found(rows, known["key"]) < 0][:most]
    body = _sorted(np.concatenate([rows, others])).tobytes()
    with contextlib.suppress(OSError):
        if memory:
            memory.parent.mkdir(parents=True, exist_ok=True)
            durable.write_whole(memory, hashlib.sha256(VERSION + body).digest() + body)


def _sorted(rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(rows["key"])]
