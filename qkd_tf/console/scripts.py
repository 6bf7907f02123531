"""The commands that `pip install` adds, a row each."""

from typing import NamedTuple


class Command(NamedTuple):
    """A row of the help.

    Attributes:
      module: what `python -m` runs.
    """

    module: str
    what: str


COMMANDS = {
    "qkd-doctor": Command("qkd_tf.doctor", "checks this machine, and says what to fix"),
    "qkd-new": Command("qkd_tf.new", "writes a flag file for your own model and data"),
    "qkd-preflight": Command("qkd_tf.preflight", "shows every layer with its bits and bytes before training"),
    "qkd-train": Command("qkd_tf.train", "trains a low-bit student with QKD"),
    "qkd-export": Command("tflite_export", "writes the integer .tflite of a run, and verifies it"),
    "qkd-verify": Command("tflite_export.verify", "checks whether a .tflite is what was trained"),
    "qkd-sensitivity": Command("qkd_tf.sensitivity", "measures what each layer loses at fewer bits"),
    "qkd-compare": Command("qkd_tf.compare", "compares finished runs"),
    "qkd-ablation": Command("qkd_tf.ablation", "measures what each training phase contributes"),
    "qkd-prepare": Command("qkd_tf.data.prepare", "prepares a TFDS data set"),
}
