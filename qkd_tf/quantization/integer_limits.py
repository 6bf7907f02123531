"""Students that no file can hold, because scales are out of proportion; found before anything is predicted.

Beyond these limits runtimes overflow, each in its own way, and so do the two implementations of the student here: their
  results would differ without a mistake in either. The exporter shares no code with this, but refuses such a file by
  the same limits.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from qkd_tf.contract import ratio_limits
from qkd_tf.contract.grid import AVERAGE_CODE
from qkd_tf.experiment import require
from qkd_tf.quantization.integer_student import IntegerStudent, Operator, integer_slopes
from qkd_tf.quantization.roles import LAYERS

REMEDY = (
    "scales are out of proportion, as after a training that was too short or had too high a rate; train longer or at a "
    "lower rate (--epochs, --learning_rates) in another --run_dir, or give the layer more bits by --bits_rule"
)


def require_within_limits(student: IntegerStudent) -> None:
    """Checks a trained student before its handoff.

    Raises:
      ExperimentError: names the first layer that no file can hold, and why.
    """
    problem = first_beyond(student)
    require(not problem, f"no file can hold the student: {problem}; {REMEDY}")


def first_beyond(student: IntegerStudent) -> str:
    """The first layer that no file can hold, and why; "" if a file can hold the student."""
    for operator in student.operators:
        name = operator.root.name
        kernel = student.kernels.get(name)
        lost = np.flatnonzero(kernel.bias_is_lost).tolist() if kernel else []
        if lost:
            return f"layer {name}: the bias of channels {lost} does not fit int32 steps of input scale * weight scale"
        kind, ratios = of_operator(student, operator)
        if problem := ratio_limits.beyond(kind, ratios):
            return f"layer {operator.end.name}: {problem}"
    return ""


def of_operator(student: IntegerStudent, operator: Operator) -> tuple[str, list[float]]:
    """The TFLite operator that rescales, and one step of each input, or of its products, in output steps."""
    rule, _ = operator.computation()
    kind, ratios = RATIOS[rule]
    return kind or LAYERS[type(operator.root)].operator or WINDOWS, list(map(float, ratios(student, operator)))


def _of_inputs(student: IntegerStudent, operator: Operator) -> list[float]:
    *inputs, output = map(float, student.scales(operator))
    return [scale / output for scale in inputs]


def _of_product(student: IntegerStudent, operator: Operator) -> list[float]:
    *inputs, output = map(float, student.scales(operator))
    return [math.prod(inputs) / output]


def _of_sums(student: IntegerStudent, operator: Operator) -> list[float]:
    """For the channel with the largest steps, among those that are not constant."""
    kernel, (ratio,) = student.kernels.get(operator.root.name), _of_inputs(student, operator)
    if kernel is None:  # an average over windows
        return [ratio / (AVERAGE_CODE * math.prod(operator.root.pool_size))]
    return [ratio * float(kernel.scales[kernel.bias_fits].max())] if kernel.bias_fits.any() else []


def _of_leaky_relu(student: IntegerStudent, operator: Operator) -> list[float]:
    (ratio,) = _of_inputs(student, operator)
    return [ratio, ratio * abs(operator.root.alpha)]


def _of_prelu(student: IntegerStudent, operator: Operator) -> list[float]:
    (ratio,), (_, scale) = _of_inputs(student, operator), integer_slopes(operator.root)
    return [ratio, ratio * scale]


WINDOWS = "DEPTHWISE_CONV_2D"  # which an average over windows is in a file
# The row of Arithmetic by which an operator rounds -> its name in a file, where the layer's is not it, and its ratios.
RATIOS: Mapping[str, tuple[str, Callable[[IntegerStudent, Operator], list[float]]]] = {
    "convolution": ("", _of_sums),
    "dense": ("", _of_sums),
    "add": ("ADD", _of_inputs),
    "multiply": ("MUL", _of_product),
    "square": ("MUL", _of_product),
    "mean": ("MEAN", _of_inputs),
    "logistic": ("LOGISTIC", _of_inputs),
    "requantize": ("QUANTIZE", _of_inputs),
    "leaky_relu": ("LEAKY_RELU", _of_leaky_relu),
    "prelu": ("PRELU", _of_prelu),
    "limit": ("RESHAPE", _of_inputs),  # what only moves integers
}
