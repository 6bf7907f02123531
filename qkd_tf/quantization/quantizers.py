"""TFMOT quantizers whose interval is a trained variable."""

import math
from collections.abc import Callable

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.quantization.keras import quantizers

from qkd_tf.contract.grid import IntegerGrid
from qkd_tf.experiment import INTERVAL_GRADIENT_SCALES
from qkd_tf.quantization.fake_quant import fake_quantize, fake_quantize_fused, with_interval_gradient

SMALLEST_INTERVAL = 1e-6


@tf_keras.utils.register_keras_serializable("qkd_tf")
class PositiveInterval(tf_keras.constraints.Constraint):
    """Keeps an interval positive: clamps the optimizer's result to at least SMALLEST_INTERVAL.

    Args:
      largest: upper bound, for a grid that replaces a ReLU6: with an interval of 6 / qmax it ends at 6.
    """

    def __init__(self, largest: float | None = None):
        self.largest = largest

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        w = tf.maximum(w, SMALLEST_INTERVAL)
        return w if self.largest is None else tf.minimum(w, self.largest)

    def get_config(self) -> dict:
        return {"largest": self.largest}


@tf_keras.utils.register_keras_serializable("qkd_tf")
class LearnedIntervalQuantizer(quantizers.Quantizer):
    """Fake-quantizes a tensor to `grid` with one trained interval (QKD; gradients in `fake_quant`).

    Args:
      grid: the integers allowed.
      mask_gradient: zero the straight-through gradient outside the range.
      interval_gradient_scale: "none", or "lsq" for 1 / sqrt(N * qmax) where N counts the elements
        of the kernel, or of one example's activation (LSQ section 2.2).
      largest_value: upper bound for the grid's largest real value; None for no bound.
      fixed_interval: the interval if it is not learned (a sigmoid's); None to learn it.
      ewgs_scale: delta of EWGS, 0 for the plain straight-through gradient.

    Attributes:
      interval: the trained scalar, once built.
      gradient_scale: the factor that results from `interval_gradient_scale`, once built.
      before: applied to the tensor before it gets this grid, as the operator does; the identity in a copy by config.
    """

    def __init__(
        self,
        grid: IntegerGrid,
        mask_gradient: bool = True,
        interval_gradient_scale: str = "none",
        largest_value: float | None = None,
        ewgs_scale: float = 0.0,
        fixed_interval: float | None = None,
    ):
        if interval_gradient_scale not in INTERVAL_GRADIENT_SCALES:
            raise ValueError(
                f"interval_gradient_scale is {interval_gradient_scale!r}, known: {', '.join(INTERVAL_GRADIENT_SCALES)}"
            )
        self.grid = grid
        self.mask_gradient = mask_gradient
        self.interval_gradient_scale = interval_gradient_scale
        self.largest_value = largest_value
        self.fixed_interval = fixed_interval
        self.ewgs_scale = ewgs_scale
        self.interval: tf.Variable | None = None
        self.gradient_scale = 1.0
        self.before: Callable[[tf.Tensor], tf.Tensor] = tf.identity

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        """Creates the interval, a trainable scalar of `layer`. An unknown (batch) dimension does not count in N."""
        self.interval = layer.add_weight(
            name=f"{name}_interval",
            shape=(),
            initializer=tf_keras.initializers.Constant(1.0 if self.fixed_interval is None else self.fixed_interval),
            constraint=PositiveInterval(self.largest_value and self.largest_value / self.grid.qmax),
            trainable=self.fixed_interval is None,
        )
        if self.interval_gradient_scale == "lsq":
            num_elements = math.prod(d for d in tf.TensorShape(tensor_shape).as_list() if d is not None)
            self.gradient_scale = 1.0 / math.sqrt(num_elements * self.grid.qmax)
        return {"interval": self.interval}

    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        return fake_quantize(
            self.before(inputs),
            weights["interval"],
            self.grid,
            self.mask_gradient,
            self.gradient_scale,
            self.ewgs_scale,
        )

    def get_config(self) -> dict:
        return {
            "grid": {"num_bits": self.grid.num_bits, "qmin": self.grid.qmin, "qmax": self.grid.qmax},
            "mask_gradient": self.mask_gradient,
            "interval_gradient_scale": self.interval_gradient_scale,
            "largest_value": self.largest_value,
            "fixed_interval": self.fixed_interval,
            "ewgs_scale": self.ewgs_scale,
        }

    @classmethod
    def from_config(cls, config: dict):
        return cls(**{**config, "grid": IntegerGrid(**config["grid"])})


@tf_keras.utils.register_keras_serializable("qkd_tf")
class ActivationQuantizer(LearnedIntervalQuantizer):
    """`LearnedIntervalQuantizer` for an activation, in few passes over it.

    Args:
      gradient_share: share of the batch's examples from which dL/dI is taken, if it is not left to neighbors.
      gradient_from_neighbors: dL/dI is left to the BatchNormalization that made the tensor (`IntervalGradient`) and to
        the kernels that read it (`KernelQuantizer`). A copy by config takes it itself.
    """

    def __init__(self, grid: IntegerGrid, gradient_share: float = 1.0, gradient_from_neighbors: bool = False, **kwargs):
        super().__init__(grid, **kwargs)
        if self.ewgs_scale:
            raise ValueError(
                f"ewgs_scale is {self.ewgs_scale}, and the fused form has no such term; use the definition"
            )
        self.gradient_share = gradient_share
        self.gradient_from_neighbors = gradient_from_neighbors

    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        return fake_quantize_fused(
            self.before(inputs),
            weights["interval"],
            self.grid,
            self.gradient_scale,
            self.gradient_share,
            self.gradient_from_neighbors,
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "gradient_share": self.gradient_share}


@tf_keras.utils.register_keras_serializable("qkd_tf")
class KernelQuantizer(LearnedIntervalQuantizer):
    """`LearnedIntervalQuantizer` for a kernel, which may contribute to the gradient of its input's interval.

    Args:
      input_quantizer: quantizer of the layer's input, if that leaves its gradient to neighbors. None in a copy by
        config.
    """

    def __init__(self, grid: IntegerGrid, *args, input_quantizer: ActivationQuantizer | None = None, **kwargs):
        super().__init__(grid, *args, **kwargs)
        self.input_quantizer = input_quantizer

    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        kernel, source = super().__call__(inputs, training, weights), self.input_quantizer
        return kernel if source is None else with_interval_gradient(kernel, source.interval, source.gradient_scale)


class IntervalGradient(quantizers.Quantizer):
    """Leaves gamma or beta as it is, but lets it contribute to an interval's gradient.

    Args:
      output_quantizer: quantizer of the BatchNormalization's output.
    """

    def __init__(self, output_quantizer: ActivationQuantizer):
        self._output_quantizer = output_quantizer

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        return {}

    def __call__(self, inputs, training, weights, **kwargs) -> tf.Tensor:
        made = self._output_quantizer
        return with_interval_gradient(inputs, made.interval, -made.gradient_scale)

    def get_config(self) -> dict:
        return {}
