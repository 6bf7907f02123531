"""The table of data sets: `--dataset` -> `Source`."""

from qkd_tf.data import digits, folder, given, tfds_set
from qkd_tf.data.source import Source
from qkd_tf.experiment import DataSpec

# Beginning of --dataset -> who opens it. Every other name is that of a TFDS set.
OPENERS = {"digits": digits.open_source, "folder": folder.open_source, "in_memory": given.open_source}


def open_source(spec: DataSpec) -> Source:
    """Opens a data set without reading it: at most one image is decoded.

    Raises:
      ExperimentError: unknown set, one that is not prepared or not laid out as it must be, no --image_size where
        it is known to be needed.
    """
    return OPENERS.get(spec.name.partition(":")[0], tfds_set.open_source)(spec)
