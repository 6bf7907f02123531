"""A student's features against its teacher's, which are quantized as the student's are (SQuaT)."""

import dataclasses
import functools
import threading

import tensorflow as tf
import tf_keras

from qkd_tf.contract.grid import IntegerGrid
from qkd_tf.distillation.losses import feature_distillation
from qkd_tf.quantization.fake_quant import fake_quantize


class Features:
    """What a layer reads when its network is called.

    A nested network's inner tensors are not among those of the outer one, so the layer itself keeps them.
    """

    def __init__(self, layer: tf_keras.layers.Layer):
        self._kept = threading.local()  # replicas of one layer are called by threads of their own

        @functools.wraps(layer.call)
        def call(inputs, *args, **kwargs):
            self._kept.inputs = inputs
            return of_class(inputs, *args, **kwargs)

        of_class, layer.call = layer.call, call

    def last(self) -> tf.Tensor:
        """Those of the last call in this thread, [N, F]."""
        found = self._kept.inputs
        return tf.reshape(found, [-1, found.shape[1:].num_elements()])


@dataclasses.dataclass(frozen=True)
class FeatureDistillation:
    """The loss between both networks' features in their last call.

    Attributes:
      grid, interval: those of the student's features.
    """

    student: Features
    teacher: Features
    grid: IntegerGrid
    interval: tf.Variable

    def loss(self) -> tf.Tensor:
        target = fake_quantize(tf.cast(self.teacher.last(), tf.float32), self.interval, self.grid)
        return feature_distillation(target, self.student.last())
