"""Reads the test split of a finished run again."""

import math
from collections.abc import Iterator

import numpy as np

from qkd_tf.data.pipeline import pictures_of_test
from qkd_tf.data.reading_errors import reading
from qkd_tf.data.sources import open_source
from qkd_tf.experiment import DataSpec
from qkd_tf.process.portions import num_images

BATCH_BYTES = 16 << 20  # of pixels: a hundred pictures of 224 x 224


class Rereading:
    """Pixels and labels of a test split, as `pipelines` gives them, from any picture on; nothing is kept in memory.

    Args:
      spec: `Splits.spec` of the run.

    Attributes:
      shape: [N, H, W, C] of the pixels.

    Raises:
      ExperimentError: as `open_source`.
    """

    def __init__(self, spec: DataSpec):
        source = open_source(spec)
        if spec.skip_broken_images and source.scan:  # else every picture that is listed is in the split
            source = source.scan(source)
        self._spec, self._pictures = spec, pictures_of_test(source, spec)
        self.shape = (source.test.num_examples, *source.image_shape)

    def batches(self, first: int = 0, number: int = -1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pixels [n, H, W, C] uint8 and labels [n] int64 of `number` pictures, -1 for all, from number `first` on.

        Raises:
          ExperimentError: a picture that cannot be read.
        """
        size = num_images(BATCH_BYTES, math.prod(self.shape[1:]))
        with reading(self._spec):
            yield from self._pictures.ordered(first).take(number).batch(size).prefetch(1).as_numpy_iterator()
