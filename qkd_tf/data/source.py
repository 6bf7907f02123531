"""A data set that was opened and not yet read: what is known of it, and how its examples are had."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split as it is stored.

    Attributes:
      num_examples: how many there are, known without reading them.
      read: None -> (stored image, label [] int64), always in the same order; a seed -> the same, where the set
        can be read in several orders in one of that seed, coarsely: a shuffle buffer has to follow.
      decode: stored image -> pixels [h, w, C] uint8.
    """

    num_examples: int
    read: Callable[[int | None], tf.data.Dataset]
    decode: Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, opened without decoding more than one image.

    Attributes:
      image_shape: (H, W, C) of what a network sees, after `DataSpec.image_size`.
      label_names: one a class, by label.
      notes: what a user should know, a line each.
      scan: decodes every image once and returns the source as it may be read; None where the images are known
        to be sound. Raises ExperimentError for images that cannot be used.
    """

    train: Examples
    validation: Examples
    test: Examples
    image_shape: tuple[int, int, int]
    label_names: list[str]
    version: str
    notes: tuple[str, ...] = ()
    scan: Callable[[], "Source"] | None = None


def in_memory(images: np.ndarray, labels: np.ndarray) -> Examples:
    """Arrays as a split: images [N, H, W, C] uint8, labels [N]."""
    examples = tf.data.Dataset.from_tensor_slices((images, labels.astype(np.int64)))
    return Examples(len(images), lambda seed: examples, lambda image: image)
