"""The average of a student's weights and intervals over the steps of a phase: what is validated and handed on."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import tensorflow as tf


class WeightsAverage(tf.Module):
    """Exponential moving average that gives no share to the weights with which a phase began.

    With v[i] a variable after step i of the phase, and d the decay, its average after step t is

      A[t] = sum over i = 1..t of d^(t - i) * v[i],  divided by the sum of these d^(t - i)

    computed as A[t] = (1 - s) * A[t-1] + s * v[t], s = (1 - d) / (1 - d^t): Polyak and Juditsky (1992) with the
    correction of Adam's averages (Kingma and Ba 2015, arXiv 1412.6980). All state is in variables, for checkpoints.

    Args:
      variables: what is averaged. They are not kept: each method takes them, in the same order.
      decay: d, in (0, 1).
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float):
        super().__init__()
        self._log_decay = math.log(decay)
        self._averages = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]

    def reset(self, variables: Sequence[tf.Variable]) -> None:
        """Called before a phase: the average equals the variables until the first step is done."""
        _assign(self._averages, variables)

    def update(self, variables: Sequence[tf.Variable], step: tf.Tensor) -> None:
        """Called after an optimizer has updated the variables.

        Args:
          step: t, the number of the phase's steps done, from 1.
        """
        # (1 - d) / (1 - d^t), whose differences would lose digits; at t = 1 it is 1, to the bit.
        share = tf.math.expm1(self._log_decay) / tf.math.expm1(self._log_decay * tf.cast(step, tf.float32))
        for average, variable in zip(self._averages, variables, strict=True):
            average.assign((1.0 - share) * average + share * variable)

    @contextlib.contextmanager
    def in_place(self, variables: Sequence[tf.Variable]) -> Iterator[None]:
        """A context in which the variables hold their averages; afterwards they are as before."""
        trained = [variable.numpy() for variable in variables]
        _assign(variables, self._averages)
        try:
            yield
        finally:
            _assign(variables, trained)


def _assign(variables: Sequence[tf.Variable], values: Sequence) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
