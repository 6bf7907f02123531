"""Turns TensorFlow's errors about stored images into one line that names their data set."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from qkd_tf.experiment import DataSpec, ExperimentError

ITERATION = "IteratorGetNext"  # the operation that fails, in a step's graph and outside


@contextlib.contextmanager
def reading(spec: DataSpec) -> Iterator[None]:
    """A context in which batches of a set are read.

    Raises:
      ExperimentError: a broken record or picture, or a missing file.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if ITERATION not in str(error):
            raise
        raise ExperimentError(
            f"{spec.name} cannot be read: {_reason(error.message)}; prepare the set again, or repair the file"
        ) from error


def _reason(message: str) -> str:
    """The reason in a message that is wrapped in names of nodes and functions."""
    lines = [line for line in message.splitlines() if line.strip() and not line.strip().startswith("[[")]
    told = [line for line in lines if not line.startswith(("Graph execution error", "Detected at node", "<stack", " "))]
    reason = (told or lines)[-1].split("}} ")[-1].split(" [Op:")[0]
    return re.sub(r"^Error in user-defined function .* with iterator: \S+ ", "", reason).strip()
