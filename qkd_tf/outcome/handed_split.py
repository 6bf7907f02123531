"""The test split for a handoff: a copy if it is small, else a record that finds it again and proves it."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from qkd_tf.data import PictureDigest, Splits
from qkd_tf.storage import durable

COPY, RECORD = "test_images.npy", "test_split.json"
# Of decoded pixels that are copied: 1,783 pictures of 224 x 224, or eight times CIFAR-10's test split. A copy is hashed
# whenever a handoff is opened, and is carried along where the folder goes. ImageNet's would have 7.5 GB, of pictures
# that lie on the disk already.
MAX_COPY_BYTES = 256 << 20

Batches = Iterator[tuple[tf.Tensor, tf.Tensor]]


def passing(splits: Splits, folder: pathlib.Path) -> Batches:
    """The test split's batches. After the last one, `folder` has what another process needs to read them: COPY, or
    RECORD for more than MAX_COPY_BYTES that can be read again.

    A copy need not fit in memory, and no picture is decoded twice.
    """
    shape = (splits.fingerprint["num_test"], *splits.image_shape)
    copies = splits.spec is None or math.prod(shape) <= MAX_COPY_BYTES
    return (_copying if copies else _recording)(splits, shape, folder)


def _copying(splits: Splits, shape: tuple[int, ...], folder: pathlib.Path) -> Batches:
    with open(folder / COPY, "wb") as file:  # not a memory map, which dies without a word where the disk is full
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for images, labels in splits.test:
            file.write(np.asarray(images).tobytes())
            yield images, labels


def _recording(splits: Splits, shape: tuple[int, ...], folder: pathlib.Path) -> Batches:
    """Writes `shape`, `content_sha256` of pixels and labels in their order, and `data`, the fields of a DataSpec."""
    digest = PictureDigest()
    for images, labels in splits.test:
        digest.add(np.asarray(images), np.asarray(labels, np.int64))
        yield images, labels
    found = {"shape": list(shape), "content_sha256": digest.hexdigest(), "data": dataclasses.asdict(splits.spec)}
    durable.write_json(folder / RECORD, found)
