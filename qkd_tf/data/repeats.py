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


def notes(by_split: Mapping[str, Collection[bytes | str]]) -> tuple[str, ...]:
    """A note for each split of which more than TOLERATED is in "train" too.

    Args:
      by_split: digest of each example, by split.
    """
    train = set(by_split["train"])
    counts = {name: (sum(digest in train for digest in found), len(found)) for name, found in by_split.items()}
    return tuple(
        f"note: {shared:,} of {number:,} {name} examples are in the training set too, so top-1 on {name} overstates "
        "the accuracy on new examples"
        for name, (shared, number) in counts.items()
        if name != "train" and shared > TOLERATED * number
    )
