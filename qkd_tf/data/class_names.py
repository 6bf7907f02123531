"""The names of classes that a set of `image_dataset_from_directory` knows."""

import tensorflow as tf

# tf.data's operations that change neither labels nor what they mean, by the class of the set that each returns.
KEEPING = frozenset(
    f"{name}Dataset"
    for name in ("Batch", "Cache", "Options", "ParallelBatch", "Prefetch", "Shuffle", "Skip", "Take")  # others may map
)


def class_names(given: object) -> list[str] | None:
    """The `class_names` that Keras gave to a set, also after .cache(), .prefetch() and the like; None without any."""
    while isinstance(given, tf.data.Dataset) and not hasattr(given, "class_names"):
        if type(given).__name__.lstrip("_") not in KEEPING:
            return None
        given = getattr(given, "_input_dataset", None)  # tf.data has no public way to it
    return getattr(given, "class_names", None)
