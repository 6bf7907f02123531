"""How much of rounding a network amplifies: what it makes of pixels that are changed by about as much.

Deep networks of random weights make of rounding what they like.
"""

from collections.abc import Iterator

import numpy as np

NUDGE, NUM_DIRECTIONS = 2.0**-22, 4  # change of a pixel, as a share, and ways in which pixels are changed
NUDGES = 10  # of that many times what a nudge changes no difference is made


def nudged(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures, each pixel larger or smaller by NUDGE: all larger, then by chance."""
    rng = np.random.default_rng(0)
    yield (pictures * (1 + NUDGE)).astype(pictures.dtype)
    for _ in range(NUM_DIRECTIONS - 1):
        yield (pictures * (1 + NUDGE * rng.choice([-1, 1], pictures.shape))).astype(pictures.dtype)
