"""Turns TensorFlow's disk errors into the OSError that Python's own writers raise."""

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """A context in which TensorFlow writes `path`.

    Raises:
      OSError: it cannot be written.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0].split("}} ")[-1].split(" [Op:")[0]
        raise OSError(f"{path} cannot be written: {reason}") from error
