"""TensorBoard's view of a run: scalars by phase, and each quantized tensor's interval and integers."""

import pathlib
from collections.abc import Mapping

import tensorflow as tf

from qkd_tf.contract.grid import quantize
from qkd_tf.quantization.scheme import QuantizedStudent
from qkd_tf.storage import disk_errors


class Summaries:
    """Event files in a folder; a resumed run adds one.

    Raises:
      OSError: the folder cannot be written.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        with disk_errors.writing(folder):
            self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, phase: str, scalars: Mapping[str, float], student: QuantizedStudent | None, epoch: int) -> None:
        """Writes one epoch.

        Args:
          scalars: shown as PHASE/NAME.
          student: given in a quantized phase. Shows a histogram of each kernel's integers, by layer name, and every
            interval as a scalar and in one histogram of all.
          epoch: counted over all phases, from 1.
        """
        with disk_errors.writing(self._folder), self._writer.as_default(step=epoch):
            for name, value in scalars.items():
                tf.summary.scalar(f"{phase}/{name}", value)
            if student is not None:
                self._write_quantizers(student)
            self._writer.flush()

    def _write_quantizers(self, student: QuantizedStudent) -> None:
        for layer, tensor, _, interval in student.coverage()[1:]:  # pixels have no interval to learn
            tf.summary.scalar(f"{tensor}_interval/{layer}", interval)
        for layer, weights in student.weights.items():
            params = weights.params()
            levels = params.grid.qmax - params.grid.qmin + 1
            codes = quantize(weights.values().numpy(), params)
            tf.summary.histogram(f"weight_codes/{layer}", codes, buckets=min(levels, MAX_BUCKETS))
        tf.summary.histogram("weight_intervals", student.weight_intervals)
        tf.summary.histogram("activation_intervals", student.activation_intervals)

    def close(self) -> None:
        self._writer.close()


MAX_BUCKETS = 64  # of 8-bit kernels, four integers share one
