"""The test split of a handoff: a copy, or the original pictures read again if a copy would be too large.

It is the only module of the exporter that knows how training reads pictures.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import overload

import numpy as np
from tqdm import tqdm

from qkd_tf.data import PictureDigest, Rereading
from qkd_tf.experiment import DataSpec, ExperimentError
from qkd_tf.storage import durable

COPY, RECORD = "test_images.npy", "test_split.json"
# Data sets that a handoff, which may be a stranger's, may name: what is prepared here. TFDS downloads others by name.
LOCAL = re.compile(r"digits|(folder|npz|npy):.+|\w+(/[\w.+-]+)*(:[\d.]+)?")


class UnreadableError(OSError):
    """Why a test split cannot be read again, in one line."""


@dataclasses.dataclass(frozen=True)
class Reread:
    """Pixels that are not in the handoff, to iterate over and slice like an array [N, H, W, C] uint8.

    Slicing reads nothing. Each iteration decodes the pictures again, a few at a time, and keeps none.

    Args:
      part: indices of the pictures, consecutive.

    Raises:
      UnreadableError: during iteration, a picture is missing or broken.
    """

    source: Rereading
    part: range

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.part), *self.source.shape[1:])

    def __len__(self) -> int:
        return len(self.part)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> "Reread": ...

    def __getitem__(self, index: int | slice) -> "np.ndarray | Reread":
        if isinstance(index, slice):
            return dataclasses.replace(self, part=self.part[index])
        number = self.part.index(self.part[index])
        return next(iter(self[number : number + 1]))

    def __iter__(self) -> Iterator[np.ndarray]:
        for images, _ in self.batches():
            yield from images

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pixels [n, H, W, C] and labels [n], some at a time."""
        try:
            yield from self.source.batches(self.part.start, len(self.part))
        except ExperimentError as error:
            raise UnreadableError(f"the test split cannot be read again: {error}") from error


def file_of(folder: pathlib.Path) -> str:
    """The file of a handoff that has the pixels, or says where they are."""
    return RECORD if (folder / RECORD).exists() and not (folder / COPY).exists() else COPY


def pixels(folder: pathlib.Path) -> np.ndarray | Reread:
    """The test split of a handoff, [N, H, W, C] uint8, on disk until it is read; a `Reread` is not proven yet.

    Raises:
      UnreadableError: there is no copy, and the data set cannot be opened or has another number or size of pictures.
      durable.DamageError, ValueError, TypeError: the file that describes it was changed.
    """
    if file_of(folder) == COPY:
        return np.lib.format.open_memmap(folder / COPY, mode="r")
    record = durable.read_json(folder / RECORD)
    try:
        source = Rereading(_spec(record))
    except ExperimentError as error:
        raise UnreadableError(
            f"{folder} has no copy of its test split, which was large, and it cannot be read again: {error}"
        ) from error
    found = Reread(source, range(source.shape[0]))
    _require_same(list(found.shape) == record["shape"], folder, record, f"{record['shape']} has become {found.shape}")
    return found


def prove(folder: pathlib.Path, images: Reread) -> None:
    """Reads the whole split once, and compares it with what training read.

    Raises:
      UnreadableError: a pixel, a label or the order differs, or a picture cannot be read.
      durable.DamageError: the file that describes it was changed.
    """
    record = durable.read_json(folder / RECORD)
    same = _content_sha256(images) == record["content_sha256"]
    _require_same(same, folder, record, "a pixel, a label or their order has changed")


def _require_same(same: bool, folder: pathlib.Path, record: dict, change: str) -> None:
    if not same:
        raise UnreadableError(
            f"{folder} has no copy of its test split, which was large, and {_spec(record).name} is no longer what "
            f"training read: {change}; put the pictures back as they were, or run python -m qkd_tf.train again"
        )


def _content_sha256(images: Reread) -> str:
    digest = PictureDigest()
    with tqdm(None, "reading the test split", len(images), unit="image", mininterval=1, delay=1) as bar:
        for batch, labels in images.batches():
            digest.add(batch, labels)
            bar.update(len(batch))
    return digest.hexdigest()


def _spec(record: dict) -> DataSpec:
    spec = DataSpec(**{"scales_jpegs": False, **record["data"]})  # which a record from before there was it lacks
    if not LOCAL.fullmatch(spec.name):
        raise ValueError(f"{RECORD} names {spec.name!r}, which is not a data set on this machine")
    return spec
