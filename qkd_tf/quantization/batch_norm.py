"""BatchNorm statistics of the weights that a network has now, from a few training batches.

Moving statistics are an average over the weights of many steps. Where low-bit weights go to and fro between two
integers, they fit none of them (Nagel et al. 2022), least of all while learning rates are high.
"""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
import tf_keras


class BatchNormEstimator:
    """Replaces a model's moving statistics by those of batches; nothing else of it moves, and no random state.

    They are what Keras averages in training: the variance of pictures is sum (x - mean)^2 / (n - 1), that behind a
    Dense layer has n. Batches run in training mode but for Dropout, which is out: evaluation has none.

    Args:
      model: from pixels [N, H, W, C] to anything; BatchNormalization may be inside of wrappers.
    """

    def __init__(self, model: tf_keras.Model):
        self._model = model
        # Those of frozen layers stay as they are: Keras runs them in inference mode, so that they update nothing.
        self._batch_norms = [layer for layer in _of_kind(model, tf_keras.layers.BatchNormalization) if layer.trainable]
        self._dropouts = _of_kind(model, tf_keras.layers.Dropout)
        self._statistics = [v for layer in self._batch_norms for v in (layer.moving_mean, layer.moving_variance)]
        pixels = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        # A student's layers have no Python control flow on tensors, and to look for it takes time.
        self._traced = tf.function(self._statistics_of, input_signature=[pixels], autograph=False)

    def estimate(self, batches: Iterable[tf.Tensor]) -> None:
        """Sets moving mean and variance of every BatchNormalization to the mean of theirs in each batch.

        Args:
          batches: pixels [N, H, W, C] of a whole number of training batches, one at least.

        Raises:
          ValueError: there is no batch.
        """
        seen = [self._traced(tf.cast(images, tf.float32)) for images in batches]
        if not seen:
            raise ValueError("no batch to estimate BatchNorm statistics from; give one or more")
        for variable, values in zip(self._statistics, zip(*seen, strict=True), strict=True):
            variable.assign(np.mean([value.numpy() for value in values], axis=0, dtype=np.float64))

    def _statistics_of(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Mean and variance of every BatchNormalization in one batch."""
        for variable in self._statistics:  # from 0 an average of momentum 0 has no rounding of what was there before
            variable.assign(tf.zeros_like(variable))
        with _attribute(self._batch_norms, "momentum", 0.0), _attribute(self._dropouts, "rate", 0.0):
            self._model(images, training=True)
        return [variable.read_value() for variable in self._statistics]


def _of_kind(model: tf_keras.Model, kind: type) -> list[tf_keras.layers.Layer]:
    return [module for module in model.submodules if isinstance(module, kind)]


@contextlib.contextmanager
def _attribute(layers: list[tf_keras.layers.Layer], name: str, value: float) -> Iterator[None]:
    """Gives `layers` another value of an attribute for as long as a function is traced."""
    before = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, value)
    try:
        yield
    finally:
        for layer, original in zip(layers, before, strict=True):
            setattr(layer, name, original)
