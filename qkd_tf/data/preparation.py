"""Downloads a TFDS set and writes it where training reads it."""

import tensorflow as tf
import tensorflow_datasets as tfds

from qkd_tf.data.tfds_set import unknown
from qkd_tf.experiment import ExperimentError


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> str:
    """Downloads a set, or takes its archives from `manual_dir`, and writes it to `data_dir`; "" for TFDS's defaults.

    Returns:
      Where it is, and its splits with their numbers of images, in one line.

    Raises:
      ExperimentError: TFDS knows no such set, the set must be downloaded by hand and is not in `manual_dir`, there is
        no network or no room.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir or None))
    except tfds.core.DatasetNotFoundError as error:
        raise unknown(name) from error
    except (AssertionError, OSError, tf.errors.OpError) as error:
        raise ExperimentError(" ".join(str(error).split())) from error
    splits = ", ".join(f"{part} {split.num_examples:,}" for part, split in builder.info.splits.items())
    return f"{builder.data_path}: {splits}"
