"""Weights that oscillate between two integers, and two ways to stop them (Nagel et al. 2022).

The straight-through gradient pushes a latent weight over a rounding edge and back again, step after step. Dampening
adds a loss that pulls it towards its integer; iterative freezing watches how often it turns back, and then fixes it on
one integer.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from qkd_tf.contract.grid import IntegerGrid
from qkd_tf.quantization.scheme import QuantizedTensor

MOMENTUM = 0.01  # of both running averages (Nagel et al. 2022)


def cosine(start: float, end: float, share: tf.Tensor) -> tf.Tensor:
    """Half a cosine from `start` to `end`, as `share` goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1.0 + tf.cos(math.pi * share))


def to_integers(kernel: tf.Tensor, interval: tf.Tensor, grid: IntegerGrid) -> tf.Tensor:
    """round(clip(w / I)), half to even, as float32."""
    return tf.math.rint(tf.clip_by_value(kernel / interval, float(grid.qmin), float(grid.qmax)))


def dampening_loss(kernel: tf.Tensor, interval: tf.Tensor, grid: IntegerGrid) -> tf.Tensor:
    """Sum of (w_hat - clip(w, I * qmin, I * qmax))^2, with w_hat = I * round(clip(w / I)).

    dL/dw = 2 * (w - w_hat) inside the range, 0 where w is clipped; no gradient flows into w_hat and I.

    Args:
      kernel: latent weights w, any shape.
      interval: I, scalar, positive.
    """
    interval = tf.stop_gradient(interval)
    rounded = tf.stop_gradient(interval * to_integers(kernel, interval, grid))
    clipped = tf.clip_by_value(kernel, interval * float(grid.qmin), interval * float(grid.qmax))
    return tf.reduce_sum(tf.square(rounded - clipped))


class Oscillation(NamedTuple):
    """What is remembered about each weight, in tensors of the kernel's shape.

    Attributes:
      integer: integer at the last step, float32.
      direction: sign of its last change; 0 before the first.
      frequency: running average of 1 where a change turned back, else 0.
      mean: running average of the integers, which no longer changes once the weight is frozen.
      frozen: bool, whether the weight is frozen.
    """

    integer: tf.Tensor
    direction: tf.Tensor
    frequency: tf.Tensor
    mean: tf.Tensor
    frozen: tf.Tensor


def at_rest(integer: tf.Tensor) -> Oscillation:
    """Nothing has moved yet, and nothing is frozen."""
    zeros = tf.zeros_like(integer)
    return Oscillation(integer, zeros, zeros, integer, tf.zeros_like(integer, tf.bool))


def observe(before: Oscillation, integer: tf.Tensor, threshold: tf.Tensor) -> Oscillation:
    """The state after one more step, in which each weight is rounded to `integer`.

    A weight turns back if its integer changes against the direction of its last change. It is frozen from the step at
    which its frequency exceeds `threshold`.
    """
    change = tf.sign(integer - before.integer)
    turns = tf.cast(change * before.direction < 0, integer.dtype)
    frequency = MOMENTUM * turns + (1 - MOMENTUM) * before.frequency
    mean = tf.where(before.frozen, before.mean, MOMENTUM * integer + (1 - MOMENTUM) * before.mean)
    direction = tf.where(change == 0, before.direction, change)
    return Oscillation(integer, direction, frequency, mean, tf.logical_or(before.frozen, frequency > threshold))


def latent_value(integer: tf.Tensor, interval: tf.Tensor) -> tf.Tensor:
    """I * integer; if float32 division of it by I gives more than the integer, the next smaller number.

    So a weight at the end of the grid is inside the range for any I.
    """
    value = interval * integer
    return tf.where(tf.abs(value / interval) > tf.abs(integer), tf.math.nextafter(value, tf.zeros_like(value)), value)


class Freezing(tf.Module):
    """Iterative freezing of a student's kernels; all state is in variables, for checkpoints.

    Args:
      weights: quantized kernels by name. They are not kept: each method takes them.
    """

    def __init__(self, weights: Mapping[str, QuantizedTensor]):
        super().__init__()
        self._states = {
            name: [tf.Variable(value, trainable=False) for value in at_rest(tf.zeros_like(weight.kernel))]
            for name, weight in weights.items()
        }

    def reset(self, weights: Mapping[str, QuantizedTensor]) -> None:
        """Forgets everything: kernels and intervals are new."""
        for name, variables in self._states.items():
            _assign(variables, at_rest(_integers(weights[name])))

    def update(self, weights: Mapping[str, QuantizedTensor], threshold: tf.Tensor) -> None:
        """Called after an optimizer's step: watches each weight, and puts frozen ones on their integer.

        A frozen weight's integer is the rounded mean of its past integers. It stays, whatever the interval becomes.
        """
        for name, variables in self._states.items():
            weight = weights[name]
            state = observe(Oscillation(*variables), _integers(weight), threshold)
            _assign(variables, state)
            _hold(weight, state)

    def hold(self, weights: Mapping[str, QuantizedTensor]) -> None:
        """Puts frozen weights back on their integers after kernels or intervals were set to other values."""
        for name, variables in self._states.items():
            _hold(weights[name], Oscillation(*variables))

    def share(self) -> float:
        """Share of frozen weights, in percent."""
        frozen = [Oscillation(*variables).frozen.numpy() for variables in self._states.values()]
        return 100.0 * sum(mask.sum() for mask in frozen) / sum(mask.size for mask in frozen)


def _hold(weight: QuantizedTensor, state: Oscillation) -> None:
    held = latent_value(tf.round(state.mean), weight.interval)
    weight.kernel.assign(tf.where(state.frozen, held, weight.kernel))


def _integers(weight: QuantizedTensor) -> tf.Tensor:
    return to_integers(weight.values(), weight.interval, weight.grid)


def _assign(variables: list[tf.Variable], values: Oscillation) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
