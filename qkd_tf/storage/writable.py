"""Folders that can be written, looked at before the work whose result they are to hold."""

import os
import pathlib

from qkd_tf.experiment import require


def require_writable(folder: pathlib.Path, flag: str) -> None:
    """Raises ExperimentError if no file can be made in an existing folder.

    Args:
      flag: what the user gave, as "--name=value".
    """
    require(
        os.access(folder, os.W_OK | os.X_OK),
        f"{flag}: the folder {folder.absolute()} cannot be written; give a place in another folder",
    )
