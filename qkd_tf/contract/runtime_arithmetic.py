"""The integer arithmetic of each runtime: how it rescales sums of integer products to an output's steps.

NumPy only. Training predicts with it what the exported file will compute (`integer_student`), and the exporter executes
files with it (`integer_reference`). There are four kinds:

* XNNPACK, LiteRT's default kernels: a sum is multiplied by a float32 and rounded once, half to even. A MEAN's
  zero points are subtracted in float32, too, and so are those of LOGISTIC's table and of a MUL of
  a tensor with itself. QUANTIZE and LEAKY_RELU multiply by 256ths. XNNPACK leaves PRELU to the reference kernels.
* TFLM: a sum is multiplied by a 32-bit fixed-point number, then shifted right; both operations round. At few bits
  the first rounding is coarse: a value a little below a half is rounded up.
* LiteRT's reference kernels: as TFLM, but a Dense layer's sum is rounded once, half up, LOGISTIC is a table in float32,
  and the ratios of scales of MUL, LEAKY_RELU and PRELU are float32. A 1x1 convolution that is written as a Dense layer
  is rounded like one.
* ruy: as TFLM, but the second rounding is half up, too. XNNPACK does not run convolutions with INT4 kernels. LiteRT
  computes a CONV_2D of them as ruy does, and a DEPTHWISE_CONV_2D as ruy does in whole blocks of eight channels and as
  TFLM does in the remaining ones. Grouped convolutions go to the reference kernels. On ARM64, CONV_2D with INT4 kernels
  is rounded once, half up; the others are as everywhere.

Sources: gemmlowp's fixedpoint.h (Jacob et al. 2018, section 2.2), TFLite's kernels, XNNPACK's operator set-up. Tests
compare each row with its runtime, tensor by tensor.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from qkd_tf.contract.fixed_point import (
    Scale,
    multiply_rounding_once,
    multiply_rounding_twice,
    multiply_rounding_up_twice,
    quantize_multiplier,
    round_half_away,
)
from qkd_tf.contract.kinds import GROUPED_CONVOLUTION, POINTWISE_CONVOLUTION
from qkd_tf.contract.logistic import fixed_point_logistic, reference_logistic, xnnpack_logistic

ADD_LEFT_SHIFT = 20
MEAN_FRACTION_BITS = 32
BLOCK_CHANNELS = 8  # of a vector in LiteRT's own depthwise kernels

Sums = Callable[[np.ndarray, Scale, Scale, Scale], np.ndarray]
OfTwo = Callable[[np.ndarray, np.ndarray, Scale, Scale, Scale], np.ndarray]
Square = Callable[[np.ndarray, Scale, Scale, int], np.ndarray]
Mean = Callable[[np.ndarray, int, Scale, Scale, int, int], np.ndarray]
Logistic = Callable[[np.ndarray, Scale], np.ndarray]
Requantize = Callable[[np.ndarray, Scale, Scale], np.ndarray]
Slopes = int | np.ndarray
BySign = Callable[[np.ndarray, Slopes, Scale, Scale, Scale], np.ndarray]
Limit = Callable[[float, Scale], np.int64]


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """One runtime's arithmetic. All integers exclude zero points; results are int64, in steps of the output.

    Attributes:
      convolution, dense: (sums [..., C], input scale, kernel scales [C] or [1], output scale).
      add: (a, b, their scales, output scale).
      multiply: (a, b, their scales, output scale).
      square: (x, its scale, output scale, the output's zero point): MUL of a tensor with itself.
      mean: (sums, number of terms, input scale, output scale, the zero points that were subtracted: input's, output's).
      logistic: (x, input scale) -> steps of 1 / LOGISTIC_STEPS, the output scale that TFLite prescribes.
      requantize: (x, input scale, output scale).
      leaky_relu, prelu: (x, integers of the slopes, their scale, input scale, output scale). For LEAKY_RELU the integer
        is 1 and the scale is its slope.
      limit: (real value, output scale): where a fused activation clips.
      int4: kinds of operators that use another arithmetic if their kernels are stored as INT4.
    """

    convolution: Sums
    dense: Sums
    add: OfTwo
    multiply: OfTwo
    square: Square
    mean: Mean
    logistic: Logistic
    requantize: Requantize
    leaky_relu: BySign
    prelu: BySign
    limit: Limit
    int4: Mapping[str, "Arithmetic"] = dataclasses.field(default_factory=dict)

    def of(self, kind: str, int4: bool) -> "Arithmetic":
        """The arithmetic of one operator.

        Args:
          kind: its TFLite name, GROUPED_CONVOLUTION, or POINTWISE_CONVOLUTION where the number of inputs is even.
          int4: whether its kernel is stored as INT4.
        """
        return self.int4.get(kind, self) if int4 else self


def average_of_stored(sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
    """AVERAGE_POOL_2D on every runtime: a sum of stored integers divided by their number, rounded half away from zero.

    Zero points stay in the sums, so a half is rounded by the sign of the stored value, not of the real one.

    Args:
      sums: whole numbers.
      counts: number of pixels in each window, without padding.
    """
    sums = np.asarray(sums, np.int64)
    return np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)


def _double(scale: Scale) -> np.ndarray:
    return np.asarray(scale, np.float32).astype(np.float64)


def _single(scale: Scale) -> np.ndarray:
    return np.asarray(scale, np.float32)


def sums_multiplier(input_scale: Scale, kernel_scales: Scale, output_scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """The fixed-point multiplier of sums, (fixed, shift), one per channel."""
    return quantize_multiplier(_double(input_scale) * _double(kernel_scales) / _double(output_scale))


def sums_rounded_twice(sums: np.ndarray, input_scale: Scale, kernel_scales: Scale, output_scale: Scale) -> np.ndarray:
    return multiply_rounding_twice(sums, *sums_multiplier(input_scale, kernel_scales, output_scale))


def sums_rounded_up_twice(
    sums: np.ndarray, input_scale: Scale, kernel_scales: Scale, output_scale: Scale
) -> np.ndarray:
    return multiply_rounding_up_twice(sums, *sums_multiplier(input_scale, kernel_scales, output_scale))


def sums_rounded_once(sums: np.ndarray, input_scale: Scale, kernel_scales: Scale, output_scale: Scale) -> np.ndarray:
    return multiply_rounding_once(sums, *sums_multiplier(input_scale, kernel_scales, output_scale))


def num_in_blocks(num_channels: int) -> int:
    """Number of leading channels that fill whole blocks of LiteRT's own depthwise kernels."""
    return num_channels - num_channels % BLOCK_CHANNELS


def sums_rounded_in_blocks(
    sums: np.ndarray, input_scale: Scale, kernel_scales: Scale, output_scale: Scale
) -> np.ndarray:
    """Whole vectors of eight channels round half up twice; a loop over the remaining channels rounds as TFLM does."""
    num_channels = sums.shape[-1]
    scales = np.broadcast_to(kernel_scales, num_channels)
    left = num_in_blocks(num_channels)
    parts = (sums_rounded_up_twice, slice(None, left)), (sums_rounded_twice, slice(left, None))
    return np.concatenate(
        [rescale(sums[..., part], input_scale, scales[part], output_scale) for rescale, part in parts], axis=-1
    )


def _fixed_point_add(a: np.ndarray, b: np.ndarray, a_scale: Scale, b_scale: Scale, output_scale: Scale) -> np.ndarray:
    """Both terms in 2^20ths of twice the larger scale, then their sum in steps of the output."""
    twice = 2.0 * np.maximum(_double(a_scale), _double(b_scale))
    terms = [
        multiply_rounding_twice(x.astype(np.int64) << ADD_LEFT_SHIFT, *quantize_multiplier(_double(scale) / twice))
        for x, scale in ((a, a_scale), (b, b_scale))
    ]
    real = twice / (2.0**ADD_LEFT_SHIFT * _double(output_scale))
    return multiply_rounding_twice(terms[0] + terms[1], *quantize_multiplier(real))


def _fixed_point_multiply(
    a: np.ndarray, b: np.ndarray, a_scale: Scale, b_scale: Scale, output_scale: Scale
) -> np.ndarray:
    real = _double(a_scale) * _double(b_scale) / _double(output_scale)
    return multiply_rounding_twice(a.astype(np.int64) * b, *quantize_multiplier(real))


def _fixed_point_multiply_of_single(
    a: np.ndarray, b: np.ndarray, a_scale: Scale, b_scale: Scale, output_scale: Scale
) -> np.ndarray:
    """LiteRT's MUL takes the ratio of the scales in float32 before it turns it into a fixed-point number."""
    real = _single(a_scale) * _single(b_scale) / _single(output_scale)
    return multiply_rounding_twice(a.astype(np.int64) * b, *quantize_multiplier(real))


def _fixed_point_mean(
    sums: np.ndarray,
    count: int,
    input_scale: Scale,
    output_scale: Scale,
    input_zero_point: int,
    output_zero_point: int,
) -> np.ndarray:
    """The fixed-point number includes the division by `count`, with as many bits as fit an int32."""
    fixed, shift = quantize_multiplier(_double(input_scale) / _double(output_scale))
    spare_bits = np.minimum(min(int(count).bit_length() - 1, MEAN_FRACTION_BITS), 31 + shift)
    return multiply_rounding_twice(sums, (fixed << spare_bits) // count, shift - spare_bits)


def _fixed_point_requantize(x: np.ndarray, input_scale: Scale, output_scale: Scale) -> np.ndarray:
    return multiply_rounding_twice(x, *quantize_multiplier(_double(input_scale) / _double(output_scale)))


def _fixed_point_slopes(
    x: np.ndarray, slopes: Slopes, slope_scale: Scale, input_scale: Scale, output_scale: Scale
) -> np.ndarray:
    step = _double(input_scale)
    ratios = step / _double(output_scale), step * _double(slope_scale) / _double(output_scale)
    return _by_sign(x, slopes, *ratios)


def _fixed_point_slopes_of_single(
    x: np.ndarray, slopes: Slopes, slope_scale: Scale, input_scale: Scale, output_scale: Scale
) -> np.ndarray:
    step = _single(input_scale)
    ratios = step / _single(output_scale), step * _single(slope_scale) / _single(output_scale)
    return _by_sign(x, slopes, *ratios)


def _by_sign(x: np.ndarray, slopes: Slopes, ratio: np.ndarray, slope_ratio: np.ndarray) -> np.ndarray:
    """One ratio for positive values, another for products with slopes."""
    positive = multiply_rounding_twice(x, *quantize_multiplier(ratio))
    return np.where(x >= 0, positive, multiply_rounding_twice(x * slopes, *quantize_multiplier(slope_ratio)))


def sums_ratio(input_scale: Scale, kernel_scales: Scale, output_scale: Scale) -> np.ndarray:
    """The float32 multiplier of sums, one per channel."""
    return _single(input_scale) * _single(kernel_scales) / _single(output_scale)


def float_sums(sums: np.ndarray, input_scale: Scale, kernel_scales: Scale, output_scale: Scale) -> np.ndarray:
    ratio = sums_ratio(input_scale, kernel_scales, output_scale)
    return np.round(sums.astype(np.float32) * ratio).astype(np.int64)


def _float_multiply(a: np.ndarray, b: np.ndarray, a_scale: Scale, b_scale: Scale, output_scale: Scale) -> np.ndarray:
    ratio = _single(a_scale) * _single(b_scale) / _single(output_scale)
    return np.round((a.astype(np.int64) * b).astype(np.float32) * ratio).astype(np.int64)


def _float_square(x: np.ndarray, scale: Scale, output_scale: Scale, zero_point: int) -> np.ndarray:
    """XNNPACK squares the real number, and rounds it beside the zero point in float32."""
    real = x.astype(np.float32) * _single(scale)
    steps = real * real * (np.float32(1) / _single(output_scale)) + np.float32(zero_point)
    return np.round(steps).astype(np.int64) - zero_point


def _square_by(multiply: OfTwo) -> Square:
    return lambda x, scale, output_scale, zero_point: multiply(x, x, scale, scale, output_scale)


def _shifted_add(a: np.ndarray, b: np.ndarray, a_scale: Scale, b_scale: Scale, output_scale: Scale) -> np.ndarray:
    """Both ratios as integers of at most 21 bits under one shift; half up."""
    ratios = [_single(scale) / _single(output_scale) for scale in (a_scale, b_scale)]
    # Ratios that would leave no shift are beyond what the kernel takes, and refused (`ratio_limits`).
    shift = max(1, ADD_LEFT_SHIFT + 1 - int(np.frexp(max(ratios))[1]))
    a_fixed, b_fixed = (np.int64(np.round(np.ldexp(np.float64(ratio), shift))) for ratio in ratios)
    return (a.astype(np.int64) * a_fixed + b.astype(np.int64) * b_fixed + (1 << (shift - 1))) >> shift


def _float_mean(
    sums: np.ndarray,
    count: int,
    input_scale: Scale,
    output_scale: Scale,
    input_zero_point: int,
    output_zero_point: int,
) -> np.ndarray:
    """The sum of stored integers; what zero points add to it is subtracted in float32, which changes near ties."""
    ratio = _single(input_scale) / _single(output_scale) * (np.float32(1) / np.float32(count))
    zero_points = np.int64(count) * input_zero_point
    offset = np.float32(output_zero_point) - np.float32(zero_points) * ratio
    return np.round((sums + zero_points).astype(np.float32) * ratio + offset).astype(np.int64) - output_zero_point


def _requantize_in_256ths(x: np.ndarray, input_scale: Scale, output_scale: Scale) -> np.ndarray:
    """The ratio is a whole number of 256ths; half up."""
    return _times_256ths(x, _single(input_scale) / _single(output_scale))


def _slopes_in_256ths(
    x: np.ndarray, slopes: Slopes, slope_scale: Scale, input_scale: Scale, output_scale: Scale
) -> np.ndarray:
    """For one slope, given as the scale."""
    ratio = _single(input_scale) / _single(output_scale)
    return np.where(x >= 0, _times_256ths(x, ratio), _times_256ths(x * slopes, ratio * _single(slope_scale)))


def _times_256ths(x: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    return (x.astype(np.int64) * np.int64(np.round(np.float32(256) * ratio)) + 128) >> 8


def _limit_half_even(value: float, output_scale: Scale) -> np.int64:
    return np.int64(np.round(np.float32(value) / _single(output_scale)))


def _limit_half_away(value: float, output_scale: Scale) -> np.int64:
    return np.int64(round_half_away(np.float32(value) / _single(output_scale)))


XNNPACK = Arithmetic(
    convolution=float_sums,
    dense=float_sums,
    add=_shifted_add,
    multiply=_float_multiply,
    square=_float_square,
    mean=_float_mean,
    logistic=xnnpack_logistic,
    requantize=_requantize_in_256ths,
    leaky_relu=_slopes_in_256ths,
    prelu=_fixed_point_slopes_of_single,
    limit=_limit_half_even,
)
TFLM = Arithmetic(
    convolution=sums_rounded_twice,
    dense=sums_rounded_twice,
    add=_fixed_point_add,
    multiply=_fixed_point_multiply,
    square=_square_by(_fixed_point_multiply),
    mean=_fixed_point_mean,
    logistic=fixed_point_logistic,
    requantize=_fixed_point_requantize,
    leaky_relu=_fixed_point_slopes,
    prelu=_fixed_point_slopes,
    limit=_limit_half_away,
)
LITERT_REFERENCE = dataclasses.replace(
    TFLM,
    dense=sums_rounded_once,
    logistic=reference_logistic,
    multiply=_fixed_point_multiply_of_single,
    square=_square_by(_fixed_point_multiply_of_single),
    leaky_relu=_fixed_point_slopes_of_single,
    prelu=_fixed_point_slopes_of_single,
)

RUY = dataclasses.replace(TFLM, convolution=sums_rounded_up_twice)
RUY_DEPTHWISE = dataclasses.replace(TFLM, convolution=sums_rounded_in_blocks)
LITERT_INT4 = dataclasses.replace(
    XNNPACK,
    int4={
        "CONV_2D": RUY,
        POINTWISE_CONVOLUTION: RUY,
        GROUPED_CONVOLUTION: TFLM,
        "DEPTHWISE_CONV_2D": RUY_DEPTHWISE,
    },
)
ONCE = dataclasses.replace(TFLM, convolution=sums_rounded_once)
LITERT_INT4_ARM64 = dataclasses.replace(
    LITERT_INT4, int4={**LITERT_INT4.int4, "CONV_2D": ONCE, POINTWISE_CONVOLUTION: ONCE}
)
LITERT_REFERENCE_POINTWISE = dataclasses.replace(
    LITERT_REFERENCE, int4={POINTWISE_CONVOLUTION: dataclasses.replace(LITERT_REFERENCE, convolution=sums_rounded_once)}
)

# Runtime -> its arithmetic, with another row where INT4 kernels change it: `_int4` for convolutions with INT4 kernels,
# `_arm64` for these on such a processor, `_pointwise` for 1x1 convolutions written as an INT4 FULLY_CONNECTED, which
# the other rows compute as in int8.
ARITHMETICS: Mapping[str, Arithmetic] = {
    "litert": XNNPACK,
    "litert_int4": LITERT_INT4,
    "litert_int4_arm64": LITERT_INT4_ARM64,
    "litert_reference": LITERT_REFERENCE,
    "litert_reference_pointwise": LITERT_REFERENCE_POINTWISE,
    "tflm": TFLM,
}
LATER = frozenset({"litert_int4_arm64", "litert_reference_pointwise"})  # rows that predictions of earlier versions lack


def int4_row(is_arm64: bool) -> str:
    """The row in which LiteRT's default kernels compute a file with INT4 convolutions on a processor."""
    return "litert_int4_arm64" if is_arm64 else "litert_int4"


def row_of(runtime: str, of_int4: str, int4_convolutions: bool, pointwise_dense: bool) -> str:
    """The row of ARITHMETICS in which a runtime computes a file: one rule for running it and for predicting it.

    XNNPACK does not run INT4 convolutions, and LiteRT's reference kernels round a 1x1 convolution that is written as a
    Dense layer like one.

    Args:
      of_int4: `int4_row` of the runtime's processor.
      int4_convolutions: whether kernels of convolutions, including depthwise ones, are stored as INT4.
      pointwise_dense: whether a 1x1 convolution is written as FULLY_CONNECTED.
    """
    special = {
        "litert": (int4_convolutions, of_int4),
        "litert_reference": (pointwise_dense, "litert_reference_pointwise"),
    }
    applies, row = special.get(runtime, (False, runtime))
    return row if applies else runtime
