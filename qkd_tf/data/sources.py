"""The table of data sets: `--dataset` -> `Source`."""

from qkd_tf.data import digits, folder, tfds_set
from qkd_tf.data.source import Source
from qkd_tf.experiment import DataSpec

# Kind of --dataset -> who opens it. Every other name is that of a TFDS set.
OPENERS = {"digits": digits.open_source, "folder": folder.open_source}


def open_source(spec: DataSpec) -> Source:
    """Opens a data set without reading it: at most one image is decoded.

    Raises:
      ExperimentError: unknown set, one that is not prepared or not laid out as it must be, no --image_size where
        it is known to be needed.
    """
    kind = "folder" if spec.name.startswith(folder.PREFIX) else spec.name
    return OPENERS.get(kind, tfds_set.open_source)(spec)
