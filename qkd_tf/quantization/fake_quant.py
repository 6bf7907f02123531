"""The learned-interval quantizer as a differentiable TensorFlow operation: its definition, and a fast form.

A pass over an activation tensor costs as much as the memory it moves, so the fast form makes few passes. Forward and
dL/dx are one TensorFlow kernel each. This leaves dL/dI, two inner products over the tensor. With d = dL/dx,

    I * dL/dI = sum g * x_hat - sum d * x

If a BatchNormalization made the tensor and only convolutions or Dense layers read it, both sums follow from small
tensors next to it (Euler's theorem):

* conv(x_hat, W) is linear in x_hat and in W: sum g * x_hat = sum over the readers of sum dL/dW * W
* x is linear in (gamma, beta):               sum d * x     = sum dL/dgamma * gamma + sum dL/dbeta * beta

`with_interval_gradient` wraps those small tensors, the neighbors. Elsewhere the sums are taken over a share of the
batch's examples, the same for both, because their difference is small compared with either.
"""

import tensorflow as tf

from qkd_tf.contract.grid import IntegerGrid

TIE_SLACK = 2.0**-11


def fake_quantize(
    x: tf.Tensor,
    interval: tf.Tensor,
    grid: IntegerGrid,
    mask_gradient: bool = True,
    gradient_scale: float = 1.0,
    ewgs_scale: float = 0.0,
) -> tf.Tensor:
    """Rounds `x` to the grid of step `interval`; straight-through gradients (QKD, LSQ eq. 1-3).

    Forward, with z = x / I:

        x_hat = I * round(clip(z, qmin, qmax))            half to even

    Backward, with g = dL/dx_hat:

        dL/dx = g                where qmin <= z <= qmax, else 0    (g everywhere if not mask_gradient)
        dL/dI = sum g * (round(z) - z inside, qmax above, qmin below) * s

    With an ewgs_scale delta (EWGS, Lee et al. 2021) dL/dx is also multiplied by

        1 + delta * sign(g) * (clip(z) - round(clip(z))) / (qmax - qmin)

    so the step grows with the distance to the nearest integer. Outside the range the factor is 1.

    Args:
      x: any shape, float32.
      interval: scalar, float32, positive: the real value of one step.
      grid: the integers allowed.
      mask_gradient: whether dL/dx is 0 outside the range. QKD's authors do not mask weights.
      gradient_scale: s, a constant (LSQ section 2.2 takes 1 / sqrt(N * qmax)).
      ewgs_scale: delta, 0 for the plain straight-through gradient (EWGS: about 1e-3).

    Returns:
      float32 tensor of the shape of `x`.
    """

    @tf.custom_gradient
    def straight_through(x, interval):
        z = x / interval
        clipped = tf.clip_by_value(z, float(grid.qmin), float(grid.qmax))
        q = tf.math.rint(clipped)  # not tf.round, which the rewrite to half precision may take over (mixed_precision)

        def gradient(upstream):
            inside = tf.cast(tf.logical_and(z >= grid.qmin, z <= grid.qmax), x.dtype)
            masked = upstream * inside
            interval_gradient = tf.reduce_sum(upstream * q - masked * z) * gradient_scale
            x_gradient = masked if mask_gradient else upstream
            if ewgs_scale:
                error = (clipped - q) / float(grid.qmax - grid.qmin)
                x_gradient *= 1.0 + ewgs_scale * tf.sign(upstream) * error
            return x_gradient, interval_gradient

        return interval * q, gradient

    return straight_through(x, interval)


def fake_quantize_fused(
    x: tf.Tensor,
    interval: tf.Tensor,
    grid: IntegerGrid,
    gradient_scale: float = 1.0,
    gradient_share: float = 1.0,
    gradient_from_neighbors: bool = False,
) -> tf.Tensor:
    """`fake_quantize` in few passes over `x`, for activations. Not for XLA, which fuses the definition by itself.

    TensorFlow's kernel multiplies by 1 / I where the definition divides by I. So values equal those of `fake_quantize`
    to a unit in the last place, and the integer differs only if z is that close to a half.

    Args:
      x: [N, ...], float32.
      gradient_share: dL/dI is the definition's over the first max(1, round(share * N)) examples, scaled up to
        all N. 1.0 is exact.
      gradient_from_neighbors: dL/dI is left to small tensors (see the module's docstring), and is 0 here.
    """

    low, high = float(grid.qmin) * interval, float(grid.qmax) * interval
    # The kernel knows ranges that begin at 0 or are symmetric. Of others it gets one that holds them, and is fed x
    # within them, which is a pass more.
    uneven = 0 < -grid.qmin < grid.qmax
    num_bits, end = (grid.num_bits + 1, (2**grid.num_bits - 1) * interval) if uneven else (grid.num_bits, high)
    begin = -end if uneven else low

    def rounded(x):
        return tf.raw_ops.QuantizeAndDequantizeV2(
            input=tf.clip_by_value(x, low, high) if uneven else x,
            input_min=begin,
            input_max=end,
            signed_input=grid.qmin < 0,
            num_bits=num_bits,
            range_given=True,
            round_mode="HALF_TO_EVEN",
            narrow_range=uneven or grid.qmin == -grid.qmax,
        )

    @tf.custom_gradient
    def straight_through(x, interval):
        def gradient(upstream):
            masked, _, _ = tf.raw_ops.QuantizeAndDequantizeV4Grad(
                gradients=upstream, input=x, input_min=low, input_max=high
            )
            if gradient_from_neighbors:
                return masked, tf.zeros_like(interval)
            num_examples = tf.cast(tf.shape(x)[0], x.dtype)
            num_seen = tf.maximum(1.0, tf.round(gradient_share * num_examples))
            g, d, v = (t[: tf.cast(num_seen, tf.int32)] for t in (upstream, masked, x))
            # Rounding a share anew is cheaper than keeping x_hat, which an addition has no use for, in memory.
            sums = tf.reduce_sum(g * rounded(v) - d * v)
            return masked, sums * (gradient_scale * num_examples / num_seen) / interval

        return rounded(x), gradient

    return straight_through(x, interval)


def round_average(x: tf.Tensor, interval: tf.Tensor, zero_point: int) -> tf.Tensor:
    """An average of points of a grid, on that grid, as AVERAGE_POOL_2D rounds it; gradients pass as they are.

        x_hat = I * (round(x / I + zero_point) - zero_point)          half away from zero

    A value within TIE_SLACK of a half counts as a half, because float sums miss it by their last bits. Averages of
    fewer than 512 integers have no other value so close to a half.

    Args:
      x: any shape, float32.
      interval: interval of the averaged tensor, scalar.
      zero_point: its zero point.
    """
    z = x / interval + float(zero_point)
    rounded = tf.sign(z) * tf.math.rint(tf.abs(z) + TIE_SLACK)
    return x + tf.stop_gradient((rounded - float(zero_point)) * interval - x)


def with_interval_gradient(weight: tf.Tensor, interval: tf.Tensor, factor: float) -> tf.Tensor:
    """`weight` itself, with a gradient for a neighboring tensor's interval (see the module's docstring).

        dL/dI = factor * sum g * weight / I

    Args:
      weight: kernel of a layer that reads the tensor, or gamma or beta of the BatchNormalization that made it.
      interval: I of that tensor.
      factor: its gradient scale; negative for gamma and beta.
    """

    @tf.custom_gradient
    def identity(weight, interval):
        def gradient(upstream):
            return upstream, factor * tf.reduce_sum(upstream * weight) / interval

        return tf.identity(weight), gradient

    return identity(weight, interval)
