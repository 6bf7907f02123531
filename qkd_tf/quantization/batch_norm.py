"""BatchNorm statistics for a network's present weights, from a few training batches.

Moving statistics average over the weights of many steps. If low-bit weights oscillate between two integers, they fit
neither (Nagel et al. 2022), least of all while learning rates are high.

Quantization also shifts a BatchNormalization's input, so full precision's statistics do not fit either. Statistics of
few pictures are worse still, because they describe only those pictures. `BatchNormShift` takes only the shift from
them.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.process.portions import num_images, portions, values_of_image

# Of a network's largest tensor, of which a few are held at a time: where a batch has more it is measured in parts.
TENSOR_BYTES = 1 << 28

Statistics = list[tuple[np.ndarray, np.ndarray]]  # mean and variance of each layer


class BatchNormEstimator:
    """Replaces a model's moving statistics by those of batches; nothing else changes, nor any random state.

    They are what Keras averages in training: the variance over maps divides by n - 1, that after a Dense layer by n.
    Batches run in training mode, but with Dropout off, as in evaluation.

    Args:
      model: from pixels [N, H, W, C] to anything; a BatchNormalization may be inside a wrapper.

    Attributes:
      layers: the BatchNormalization layers that are measured, by name. Frozen ones stay as they are, because Keras runs
        them in inference mode.
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
        """Sets every BatchNormalization's moving mean and variance to the mean of its statistics over the batches.

        Args:
          batches: pixels [N, H, W, C] of whole training batches, at least one.

        Raises:
          ValueError: there is no batch.
        """
        found = _mean([self.measure(images) for images in batches])
        for layer, (mean, variance) in zip(self.layers.values(), found, strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)

    def measure(self, images: tf.Tensor) -> Statistics:
        """Mean and variance of each of `layers` in one batch; moving statistics stay unchanged."""
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
    """Gives a changed network the statistics of the one it was, moved by what the change shifted.

    So a quantized student gets its float twin's, and a network that pads with other values its own. With m and v
    measured on the batches in the network as it was, and m' and v' in the changed one:

      mean = old mean + m' - m,   variance + eps = (old variance + eps) * (v' + eps) / (v + eps)

    What is special about these pictures is in both measurements and cancels out. So a few hundred pictures suffice,
    where statistics of these pictures alone lose ten points. Bias correction does the same for means in quantization
    without training (Nagel et al. 2019, arXiv 1906.04721). Statistics of frozen layers stay unchanged.
    """

    def __init__(self, before: tf_keras.Model, changed: tf_keras.Model):
        self._before, self._changed = BatchNormEstimator(before), BatchNormEstimator(changed)
        largest = max(values_of_image([layer]) for layer in before.layers)
        self._size = num_images(TENSOR_BYTES, np.dtype(np.float32).itemsize * largest)

    def estimate(self, batches: Iterable[tf.Tensor]) -> None:
        """Sets the changed network's statistics from the other's present ones.

        Args:
          batches: pixels [N, H, W, C], at least one batch.

        Raises:
          ValueError: there is no batch.
        """
        parts = (part for images in batches for part in portions(images, self._size))
        pairs = [(self._before.measure(part), self._changed.measure(part)) for part in parts]
        before = dict(zip(self._before.layers, _mean([plain for plain, _ in pairs]), strict=True))
        after = dict(zip(self._changed.layers, _mean([quantized for _, quantized in pairs]), strict=True))
        for name, layer in self._changed.layers.items():
            plain, (mean, variance), (moved, scaled) = self._before.layers[name], before[name], after[name]
            factor = (scaled + plain.epsilon) / (variance + plain.epsilon)
            own = plain.moving_variance.numpy().astype(np.float64) + plain.epsilon
            layer.moving_mean.assign(plain.moving_mean.numpy() + (moved - mean))
            layer.moving_variance.assign(np.maximum(own * factor - plain.epsilon, 0.0))


def _mean(batches: Sequence[Statistics]) -> Statistics:
    """Mean statistics over all batches, float64."""
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
    """A context in which `layers` have another value of an attribute, for tracing a function."""
    before = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, value)
    try:
        yield
    finally:
        for layer, original in zip(layers, before, strict=True):
            setattr(layer, name, original)
