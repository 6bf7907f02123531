"""The learned-interval quantizer as a differentiable TensorFlow operation."""

import tensorflow as tf

from qkd_tf.quantization.grid import IntegerGrid


def fake_quantize(
    x: tf.Tensor,
    interval: tf.Tensor,
    grid: IntegerGrid,
    mask_gradient: bool = True,
    gradient_scale: float = 1.0,
) -> tf.Tensor:
    """Rounds `x` to the grid of step `interval`; straight-through gradients (QKD, LSQ eq. 1-3).

    Forward, with z = x / I:

        x_hat = I * round(clip(z, qmin, qmax))            half to even

    Backward, with g = dL/dx_hat:

        dL/dx = g                where qmin <= z <= qmax, else 0    (g everywhere if not mask_gradient)
        dL/dI = sum g * (round(z) - z inside, qmax above, qmin below) * s

    Args:
      x: any shape, float32.
      interval: scalar, float32, positive: the real value of one step.
      grid: the integers allowed.
      mask_gradient: zero dL/dx outside the range. False is the reading of QKD's authors for weights.
      gradient_scale: s, a constant (LSQ section 2.2 takes 1 / sqrt(N * qmax)).

    Returns:
      float32 tensor of the shape of `x`.
    """

    @tf.custom_gradient
    def straight_through(x, interval):
        z = x / interval
        q = tf.round(tf.clip_by_value(z, float(grid.qmin), float(grid.qmax)))

        def gradient(upstream):
            inside = tf.cast(tf.logical_and(z >= grid.qmin, z <= grid.qmax), x.dtype)
            masked = upstream * inside
            interval_gradient = tf.reduce_sum(upstream * q - masked * z) * gradient_scale
            return (masked if mask_gradient else upstream), interval_gradient

        return interval * q, gradient

    return straight_through(x, interval)
