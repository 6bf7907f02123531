"""How much a network amplifies rounding: how its outputs change if pixels change by about as much as rounding does.

Deep networks with random weights may amplify it without limit.
"""

from collections.abc import Iterator

import numpy as np

NUM_DIRECTIONS = 4  # ways in which pixels are changed
NUDGES = 10  # a difference of at most this many times what a nudge changes counts as rounding


def nudged(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures, each pixel larger or smaller by its last bits: all larger, then by chance."""
    rng = np.random.default_rng(0)
    nudge = 2 * np.finfo(np.float64 if pictures.dtype == np.float64 else np.float32).eps  # a share: 2^-22 or 2^-51
    yield (pictures * (1 + nudge)).astype(pictures.dtype)
    for _ in range(NUM_DIRECTIONS - 1):
        yield (pictures * (1 + nudge * rng.choice([-1, 1], pictures.shape))).astype(pictures.dtype)
