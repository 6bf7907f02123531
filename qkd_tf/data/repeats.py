"""Examples of other splits that are trained on too, which makes accuracy on them look better than it is."""

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from qkd_tf.data.source import PictureDigest

TOLERATED = 0.01  # share of a split without a note: a few repeats hardly move its top-1
DIGEST_BYTES = 8


class SplitDigest(PictureDigest):
    """Digest of a split.

    Attributes:
      examples: `digests` of its examples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.examples: list[bytes] = []

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().add(images, labels)
        self.examples += digests(images)


def digests(images: np.ndarray) -> list[bytes]:
    """A digest of each example [N, ...] alone."""
    return [hashlib.blake2b(np.ascontiguousarray(image), digest_size=DIGEST_BYTES).digest() for image in images]


# Split that is measured, split that it may share examples with, and what that is called.
PAIRS = (
    ("validation", "train", "training set"),
    ("test", "train", "training set"),
    ("test", "validation", "validation set, which chooses the epoch,"),
)


def notes(by_split: Mapping[str, Collection[bytes | str]]) -> tuple[str, ...]:
    """A note for each of PAIRS that shares more than TOLERATED of the measured split.

    Args:
      by_split: digest of each example, by split.
    """
    told = []
    for name, other, what in PAIRS:
        seen, found = set(by_split.get(other, ())), by_split.get(name, ())
        shared = sum(digest in seen for digest in found)
        if shared > TOLERATED * len(found):
            told.append(
                f"note: {shared:,} of {len(found):,} {name} examples are in the {what} too, so top-1 on {name} "
                "overstates the accuracy on new examples"
            )
    return tuple(told)
