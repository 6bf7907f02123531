"""A data set that is opened but not yet read: what is known about it, and how to read its examples."""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from qkd_tf.contract.grid import TensorQuantParams
from qkd_tf.experiment import printable, require

STREAM_BUFFER = 4_096  # stored examples that are shuffled at a time: half a gigabyte of ImageNet's files


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split as it is stored.

    Attributes:
      num_examples: how many there are, known without reading them.
      read: None -> (stored image, label [] int64), always in the same order. A seed -> the same; if the set can be read
        in several orders, coarsely in that seed's order. A shuffle of `buffer` follows.
      decode: stored image -> pixels [h, w, C] uint8.
      buffer: number of stored examples that are shuffled at a time; 1 if a seed's order needs no shuffle.
      labels_as_read: labels [N] in the order of `read`, if a seed does not change that order and only the buffer mixes
        the classes; None if `read` mixes them.
    """

    num_examples: int
    read: Callable[[int | None], tf.data.Dataset]
    decode: Callable[[tf.Tensor], tf.Tensor]
    buffer: int = STREAM_BUFFER
    labels_as_read: Callable[[], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, opened without decoding more than one image.

    Attributes:
      image_shape: (H, W, C) of what a network sees, after `DataSpec.image_size` and `image_channels`; for signals also
        (T, C).
      label_names: one per class, by label.
      notes: what a user should know, one per line.
      content_sha256: digest of every picture and label, independent of where the set is stored; "" before the scan.
      scan: looks at every stored image once and returns the source ready to read, with its content known; None if it is
        so already. Raises ExperimentError for images that cannot be used.
      early_notes: what `scan` will probably note about the pictures' shapes, from some of them, which it decodes.
      sizes: heights and widths of the stored pictures, each once, if the scan has seen them; else empty.
      is_sound: whether that scan decoded every image, so that none can be broken.
      input_params: for signals, what their 8 bits mean: number = scale * (step + grid.qmin); None for pictures.

    Raises:
      ExperimentError: class names that cannot be lines of labels.txt.
    """

    train: Examples
    validation: Examples
    test: Examples
    image_shape: tuple[int, int, int]
    label_names: list[str]
    version: str
    notes: tuple[str, ...] = ()
    content_sha256: str = ""
    scan: Callable[["Source"], "Source"] | None = None
    early_notes: Callable[[], tuple[str, ...]] = tuple
    sizes: tuple[tuple[int, int], ...] = ()
    is_sound: bool = False
    input_params: TensorQuantParams | None = None

    def __post_init__(self):
        require_label_names(self.label_names)


def require_label_names(names: list[str]) -> None:
    for name in names:
        require(
            printable(name) == name, f"class {printable(name)} is not valid UTF-8, which labels.txt needs; rename it"
        )
        require(
            bool(name.strip()), f"a class is called {name!r}; labels.txt has one class per line, and no line is empty"
        )
        require(
            len(name.splitlines()) == 1,
            f"class {name!r} has a line break in its name; labels.txt has one class per line",
        )


def in_memory(
    images: np.ndarray, labels: np.ndarray, decode: Callable[[tf.Tensor], tf.Tensor] = lambda image: image
) -> Examples:
    """Arrays as a split: images [N, H, W, C], or signals [N, T, C], uint8, labels [N]."""
    stored = tf.constant(images), tf.constant(labels, tf.int64)

    def read(seed: int | None) -> tf.data.Dataset:
        if seed is None:
            return tf.data.Dataset.from_tensor_slices(stored)
        order = np.random.default_rng(seed).permutation(len(images))
        return tf.data.Dataset.from_tensor_slices(order).map(lambda index: tuple(part[index] for part in stored))

    return Examples(len(images), read, decode, buffer=1)


class PictureDigest:
    """Digest of pictures and labels in their order, whatever the batch size."""

    def __init__(self) -> None:
        self._pixels, self._labels = hashlib.sha256(), hashlib.sha256()
        self._shape: tuple[int, ...] = ()

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Images [N, h, w, C] uint8, labels [N] int64."""
        if images.shape[1:] != self._shape:
            self._shape = images.shape[1:]
            self._pixels.update(repr(self._shape).encode())
        self._pixels.update(np.ascontiguousarray(images))
        self._labels.update(np.ascontiguousarray(labels))

    def hexdigest(self) -> str:
        return hashlib.sha256(self._pixels.digest() + self._labels.digest()).hexdigest()
