"""Which training examples are set aside for validation if the data set has no validation split.

Every class keeps one example for training. If no class has two, any example may be taken, because a class that training
never sees is better than no validation at all. The data set's notes name such classes.
"""

import numpy as np


def foremost(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Takes a share of the examples, the first ones.

    Args:
      labels: [N] int64, in the order of the examples.
      fraction: share of all N, in [0, 1).

    Returns:
      Whether each is taken, [N] bool.
    """
    candidates = _candidates(labels, np.arange(len(labels)))
    chosen = np.zeros(len(labels), bool)
    chosen[candidates[: round(len(labels) * fraction)]] = True
    return chosen


def stratified(labels: np.ndarray, fraction: float) -> np.ndarray:
    """The same share of each class, chosen by a fixed seed; arguments and result are those of `foremost`."""
    candidates = _candidates(labels, np.random.default_rng(0).permutation(len(labels)))
    by_class = candidates[np.argsort(labels[candidates], kind="stable")]
    number = min(round(len(labels) * fraction), len(by_class))
    chosen = np.zeros(len(labels), bool)
    chosen[by_class[(2 * np.arange(number) + 1) * len(by_class) // (2 * max(1, number))]] = True  # evenly spaced
    return chosen


def _candidates(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Indices of the examples that may be taken, in that order."""
    _, first_of_class = np.unique(labels, return_index=True)
    spare = order[~np.isin(order, first_of_class)]
    return spare if len(spare) else order
