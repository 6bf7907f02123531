"""How many images to compute at a time within a bound in bytes, whatever the network and the pictures."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf


def values_of_image(layers: Iterable) -> int:
    """Number of values in all tensors that Keras layers output for one image."""
    return sum(values_of_tensors(layers))


def values_of_tensors(layers: Iterable) -> Iterator[int]:
    """Number of values in each of these tensors, including those in nested models. An open side counts as 1."""
    for layer in layers:
        if hasattr(layer, "layers"):
            yield from values_of_tensors(layer.layers)
        else:  # a layer that only code calls has no output of its own
            yield from (math.prod(n or 1 for n in x.shape[1:]) for x in tf.nest.flatten(getattr(layer, "output", ())))


def num_images(max_bytes: int, bytes_of_image: int) -> int:
    """Number of images that take at most `max_bytes`; 1 if a single one takes more."""
    return max(1, max_bytes // bytes_of_image)


def portions(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`size` images at a time, in their order; the last ones may be fewer."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def regrouped(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The images of batches of any sizes, `size` at a time, in their order; the last ones may be fewer."""
    held = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= size:
            joined = np.concatenate(held)
            whole = len(joined) // size * size
            yield from portions(joined[:whole], size)
            held = [joined[whole:]]
    if sum(map(len, held)):
        yield np.concatenate(held)
