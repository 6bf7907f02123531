"""A fixed order for the examples of a set that yields them in a different order each time."""

from collections.abc import Iterable

import numpy as np

from qkd_tf.data.repeats import digests
from qkd_tf.experiment import ExperimentError

OTHER_EXAMPLES = (
    ": the set has other examples each time, so no run could be repeated; give augmentation by augment= instead of in "
    "the set. Before .take() or .skip(), shuffle by .shuffle(…, reshuffle_each_iteration=False) alone, or split by "
    'image_dataset_from_directory(…, validation_split=0.2, subset="both", seed=1)'
)


def by_content(
    values: np.ndarray, labels: np.ndarray, again: Iterable[tuple[np.ndarray, np.ndarray]], name: str
) -> np.ndarray:
    """Indices [N] that sort examples by their content, whatever order a set gave them in.

    Args:
      values, labels: the examples, [N, ...] and [N].
      again: batches of the same set, read another time.
      name: of the set.

    Raises:
      ExperimentError: the set had other examples that time.
    """
    keys = _keys(values, labels)
    if sorted(keys) != sorted(key for batch in again for key in _keys(*batch)):
        raise ExperimentError(f"{name}{OTHER_EXAMPLES}")
    return np.array(sorted(range(len(keys)), key=keys.__getitem__))


def _keys(values: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return list(zip(digests(values), labels.tolist(), strict=True))
