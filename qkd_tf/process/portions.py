"""How many images at a time: as many as a bound of bytes leaves, whatever the network and the pictures."""

import math
from collections.abc import Iterable, Iterator

import numpy as np


def values_of_image(layers: Iterable) -> int:
    """Numbers in all tensors that Keras layers hand on for one image."""
    return sum(math.prod(layer.output.shape[1:]) for layer in layers)


def num_images(max_bytes: int, bytes_of_image: int) -> int:
    """Images that have `max_bytes` at the most; 1 where a single one has more."""
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
