"""Whether the labels of examples in a given order are mixed."""

import numpy as np

SORTED = 0.2  # share of some examples in a row that is of other classes than the whole, above what chance brings


def is_mixed(labels: np.ndarray, number: int) -> bool:
    """Whether any `number` consecutive labels, of [N], have about the class shares of all labels."""
    by_chance = _apart(np.random.default_rng(0).permutation(labels), number)
    return _apart(labels, number) < by_chance + SORTED


def _apart(labels: np.ndarray, number: int) -> float:
    """Largest distance, 0 to 1, between class shares in `number` consecutive examples and in all of them."""
    _, labels = np.unique(labels, return_inverse=True)
    whole = np.bincount(labels) / len(labels)
    starts = [*range(0, len(labels) - number, number), len(labels) - number]
    shares = (np.bincount(labels[start : start + number], minlength=len(whole)) / number for start in starts)
    return max(np.abs(share - whole).sum() / 2 for share in shares)
