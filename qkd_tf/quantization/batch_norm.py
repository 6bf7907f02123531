"""BatchNorm statistics of the weights that a network has now, from a few training batches.

Moving statistics are an average over the weights of many steps. Where low-bit weights go to and fro between two
integers, they fit none of them (Nagel et al. 2022), least of all while learning rates are high.

Quantization shifts what a BatchNormalization reads, and statistics of full precision do not fit that either. Those of
few pictures are worse still, for they are of those pictures. `BatchNormShift` takes the shift alone from them.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.process.portions import num_images, portions, values_of_image
from qkd_tf.quantization.scheme import QuantizedStudent

# Of a network's largest tensor, of which a few are held at a time: where a batch has more it is measured in parts.
TENSOR_BYTES = 1 << 28

Statistics = list[tuple[np.ndarray, np.ndarray]]  # mean and variance of each layer


class BatchNormEstimator:
    """Replaces a model's moving statistics by those of batches; nothing else of it moves, and no random state.

    They are what Keras averages in training: the variance of pictures is sum (x - mean)^2 / (n - 1), that behind a
    Dense layer has n. Batches run in training mode but for Dropout, which is out: evaluation has none.

    Args:
      model: from pixels [N, H, W, C] to anything; BatchNormalization may be inside of wrappers.

    Attributes:
      layers: the BatchNormalization that is measured, by name. Frozen layers stay as they are: Keras runs them in
        inference mode, so that they update nothing.
    """

    def __init__(self, model: tf_keras.Model):
        self._model = model
        found = _of_kind(model, tf_keras.layers.BatchNormalization)
        self.layers = {layer.name: layer for layer in found if layer.trainable}
        self._dropouts = _of_kind(model, tf_keras.layers.Dropout)
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
        found = _mean([self.measure(images) for images in batches])
        for layer, (mean, variance) in zip(self.layers.values(), found, strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)

    def measure(self, images: tf.Tensor) -> Statistics:
        """Mean and variance of each of `layers` in one batch; moving statistics stay."""
        found = self._traced(tf.cast(images, tf.float32))
        return [(mean.numpy(), variance.numpy()) for mean, variance in found]

    def _statistics_of(self, images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        batch_norms = list(self.layers.values())
        variables = [v for layer in batch_norms for v in (layer.moving_mean, layer.moving_variance)]
        before = [variable.read_value() for variable in variables]
        for variable in variables:  # from 0 an average of momentum 0 has no rounding of what was there before
            variable.assign(tf.zeros_like(variable))
        with _attribute(batch_norms, "momentum", 0.0), _attribute(self._dropouts, "rate", 0.0):
            self._model(images, training=True)
        found = [variable.read_value() for variable in variables]
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        return list(zip(found[::2], found[1::2], strict=True))


class BatchNormShift:
    """Gives a quantized student the statistics of its float twin, moved by what quantization and training moved.

    With m and v measured on the batches in the float student, and m' and v' in the quantized one:

      mean = float mean + m' - m,   variance + eps = (float variance + eps) * (v' + eps) / (v + eps)

    What the pictures at hand have of their own is in both, and falls out: a few hundred serve, where statistics that
    are theirs alone lose ten points. As "bias correction" quantization without training does the like for means
    (Nagel et al. 2019, arXiv 1906.04721). Statistics of frozen layers stay.
    """

    def __init__(self, student: QuantizedStudent):
        self._plain, self._quantized = BatchNormEstimator(student.plain), BatchNormEstimator(student.model)
        largest = max(values_of_image([layer]) for layer in student.plain.layers)
        self._size = num_images(TENSOR_BYTES, np.dtype(np.float32).itemsize * largest)

    def estimate(self, batches: Iterable[tf.Tensor]) -> None:
        """Sets the quantized student's statistics from those that its float twin has now.

        Args:
          batches: pixels [N, H, W, C], one batch at least.

        Raises:
          ValueError: there is no batch.
        """
        parts = (part for images in batches for part in portions(images, self._size))
        pairs = [(self._plain.measure(part), self._quantized.measure(part)) for part in parts]
        before = dict(zip(self._plain.layers, _mean([plain for plain, _ in pairs]), strict=True))
        after = dict(zip(self._quantized.layers, _mean([quantized for _, quantized in pairs]), strict=True))
        for name, layer in self._quantized.layers.items():
            plain, (mean, variance), (moved, scaled) = self._plain.layers[name], before[name], after[name]
            factor = (scaled + plain.epsilon) / (variance + plain.epsilon)
            own = plain.moving_variance.numpy().astype(np.float64) + plain.epsilon
            layer.moving_mean.assign(plain.moving_mean.numpy() + (moved - mean))
            layer.moving_variance.assign(np.maximum(own * factor - plain.epsilon, 0.0))


def _mean(batches: Sequence[Statistics]) -> Statistics:
    """Those of all batches, float64."""
    if not batches:
        raise ValueError("no batch to estimate BatchNorm statistics from; give one or more")
    return [
        tuple(np.mean(values, axis=0, dtype=np.float64) for values in zip(*layer, strict=True))
        for layer in zip(*batches, strict=True)
    ]


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
