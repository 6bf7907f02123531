"""TFMOT quantizers whose interval is a trained variable."""

import math

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.quantization.keras import quantizers

from qkd_tf.quantization.fake_quant import fake_quantize
from qkd_tf.quantization.grid import IntegerGrid

SMALLEST_INTERVAL = 1e-6
INTERVAL_GRADIENT_SCALES = ("none", "lsq")


@tf_keras.utils.register_keras_serializable("qkd_tf")
class PositiveInterval(tf_keras.constraints.Constraint):
    """Keeps an interval positive: the optimizer's result is clamped to SMALLEST_INTERVAL from below."""

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return tf.maximum(w, SMALLEST_INTERVAL)


class LearnedIntervalQuantizer(quantizers.Quantizer):
    """Fake-quantizes a tensor to `grid` with one trained interval (QKD; gradients in `fake_quant`).

    Args:
      grid: the integers allowed.
      mask_gradient: zero the straight-through gradient outside the range.
      interval_gradient_scale: "none", or "lsq" for 1 / sqrt(N * qmax) where N counts the elements
        of the kernel, or of one example's activation (LSQ section 2.2).
    """

    def __init__(self, grid: IntegerGrid, mask_gradient: bool = True, interval_gradient_scale: str = "none"):
        if interval_gradient_scale not in INTERVAL_GRADIENT_SCALES:
            raise ValueError(
                f"interval_gradient_scale is {interval_gradient_scale!r}, known: {', '.join(INTERVAL_GRADIENT_SCALES)}"
            )
        self.grid = grid
        self.mask_gradient = mask_gradient
        self.interval_gradient_scale = interval_gradient_scale
        self.interval: tf.Variable | None = None

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        """Makes the interval, a trainable scalar of `layer`. An unknown (batch) dimension does not count for N."""
        self.interval = layer.add_weight(
            name=f"{name}_interval",
            shape=(),
            initializer=tf_keras.initializers.Constant(1.0),
            constraint=PositiveInterval(),
            trainable=True,
        )
        self._gradient_scale = 1.0
        if self.interval_gradient_scale == "lsq":
            num_elements = math.prod(d for d in tf.TensorShape(tensor_shape).as_list() if d is not None)
            self._gradient_scale = 1.0 / math.sqrt(num_elements * self.grid.qmax)
        return {"interval": self.interval}

    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        return fake_quantize(inputs, weights["interval"], self.grid, self.mask_gradient, self._gradient_scale)

    def get_config(self) -> dict:
        return {
            "grid": {"num_bits": self.grid.num_bits, "qmin": self.grid.qmin, "qmax": self.grid.qmax},
            "mask_gradient": self.mask_gradient,
            "interval_gradient_scale": self.interval_gradient_scale,
        }

    @classmethod
    def from_config(cls, config: dict) -> "LearnedIntervalQuantizer":
        return cls(**{**config, "grid": IntegerGrid(**config["grid"])})
