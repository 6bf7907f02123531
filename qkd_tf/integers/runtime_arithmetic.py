"""The integer arithmetic of each runtime: how it brings sums of integer products to the steps of an output.

NumPy only. Training predicts with it what the exported file will compute (`integer_student`), the
exporter executes files with it (`integer_reference`). Four schools:

* XNNPACK, LiteRT's default kernels: a sum is multiplied by a float32 and rounded once, half to even. A MEAN's
  zero points are taken off in float32, too.
* TFLM: a sum is multiplied by a 32-bit fixed-point number, then shifted right, and each of the two
  rounds. At few bits the first rounding is coarse: a value a little below a half goes up.
* LiteRT's reference kernels: as TFLM, but a Dense layer's sum is rounded once, half up, and LOGISTIC is a table.
* ruy: as TFLM, but the second rounding is half up, too. LiteRT's default kernels take it for CONV_2D with INT4
  kernels, and for DEPTHWISE_CONV_2D with such in whole blocks of eight channels, with TFLM's arithmetic for the
  channels that are left; XNNPACK leaves both to them. Grouped ones with INT4 kernels go to the reference kernels.

Sources: gemmlowp's fixedpoint.h (Jacob et al. 2018, section 2.2), TFLite's kernels, XNNPACK's operator
set-up. Tests hold each row against its runtime, tensor by tensor.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

ADD_LEFT_SHIFT = 20
LOGISTIC_STEPS = 256
MEAN_FRACTION_BITS = 32
GROUPED_CONVOLUTION = "CONV_2D in groups"
BLOCK_CHANNELS = 8  # of a vector in LiteRT's own depthwise kernels


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """One runtime's arithmetic. All integers are without zero points; results are int64 steps of the output.

    Attributes:
      convolution, dense: (sums [..., C], input scale, kernel scales [C] or [1], output scale).
      add: (a, b, their scales, output scale).
      multiply: (a, b, their scales, output scale).
      mean: (sums, number of terms, input scale, output scale, zero points that were taken off: input's, output's).
      logistic: (x, input scale) -> steps of 1 / LOGISTIC_STEPS, the output scale that TFLite prescribes.
      requantize: (x, input scale, output scale).
      limit: (real value, output scale): where a fused activation clips.
      int4: kinds of operators that compute in another arithmetic where their kernels are stored as INT4.
    """

    convolution: Callable
    dense: Callable
    add: Callable
    multiply: Callable
    mean: Callable
    logistic: Callable
    requantize: Callable
    limit: Callable
    int4: Mapping[str, "Arithmetic"] = dataclasses.field(default_factory=dict)

    def of(self, kind: str, int4: bool) -> "Arithmetic":
        """That of one operator: its TFLite name, or GROUPED_CONVOLUTION; and whether its kernel is stored as INT4."""
        return self.int4.get(kind, self) if int4 else self


def quantize_multiplier(real) -> tuple[np.ndarray, np.ndarray]:
    """real = fixed * 2^(shift - 31) with fixed in [2^30, 2^31): TFLite's QuantizeMultiplier.

    Args:
      real: float64, any shape, not negative.

    Returns:
      (fixed, shift), int64.
    """
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    fixed = round_half_away(fraction * 2.0**31).astype(np.int64)
    carried = fixed == 2**31
    fixed, shift = np.where(carried, 2**30, fixed), np.where(carried, shift + 1, shift).astype(np.int64)
    vanishes = shift < -31
    return np.where(vanishes, 0, fixed), np.where(vanishes, 0, shift)


def multiply_rounding_twice(x: np.ndarray, fixed, shift) -> np.ndarray:
    """x * fixed * 2^(shift - 31), TFLite's MultiplyByQuantizedMultiplier for int32.

    First SaturatingRoundingDoublingHighMul (half up), then RoundingDivideByPOT (half away from zero).
    x * 2^shift must fit int32.
    """
    exponent = np.maximum(-shift, 0)
    result = x.astype(np.int64)  # a copy: each step below is one pass over it
    result *= fixed << np.maximum(shift, 0)
    result += 2**30
    result >>= 31
    result -= (result < 0) & (exponent > 0)  # what is half and negative goes down
    result += np.where(exponent > 0, np.int64(1) << np.maximum(exponent - 1, 0), 0)
    result >>= exponent
    return result


def multiply_rounding_up_twice(x: np.ndarray, fixed, shift) -> np.ndarray:
    """The same product, half up both times: ruy's kernels."""
    exponent = np.maximum(-shift, 0)
    result = x.astype(np.int64)
    result *= fixed << np.maximum(shift, 0)
    result += 2**30
    result >>= 31
    result += np.where(exponent > 0, np.int64(1) << np.maximum(exponent - 1, 0), 0)
    result >>= exponent
    return result


def multiply_rounding_once(x: np.ndarray, fixed, shift) -> np.ndarray:
    """The same product, half up."""
    exponent = 31 - shift
    return (x.astype(np.int64) * fixed + (np.int64(1) << (exponent - 1))) >> exponent


def round_half_away(x):
    """C's round()."""
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def _double(scale) -> np.ndarray:
    return np.asarray(scale, np.float32).astype(np.float64)


def _single(scale) -> np.ndarray:
    return np.asarray(scale, np.float32)


def sums_multiplier(input_scale, kernel_scales, output_scale) -> tuple[np.ndarray, np.ndarray]:
    """What a fixed-point number of sums is made of, (fixed, shift), one a channel."""
    return quantize_multiplier(_double(input_scale) * _double(kernel_scales) / _double(output_scale))


def sums_rounded_twice(sums, input_scale, kernel_scales, output_scale):
    return multiply_rounding_twice(sums, *sums_multiplier(input_scale, kernel_scales, output_scale))


def sums_rounded_up_twice(sums, input_scale, kernel_scales, output_scale):
    return multiply_rounding_up_twice(sums, *sums_multiplier(input_scale, kernel_scales, output_scale))


def sums_rounded_once(sums, input_scale, kernel_scales, output_scale):
    return multiply_rounding_once(sums, *sums_multiplier(input_scale, kernel_scales, output_scale))


def num_in_blocks(num_channels: int) -> int:
    """How many of the channels, from the first on, are in whole blocks of LiteRT's own depthwise kernels."""
    return num_channels - num_channels % BLOCK_CHANNELS


def sums_rounded_in_blocks(sums, input_scale, kernel_scales, output_scale):
    """Vectors of eight channels round half up twice; a loop over the channels that are left rounds as TFLM does."""
    num_channels = sums.shape[-1]
    scales = np.broadcast_to(kernel_scales, num_channels)
    left = num_in_blocks(num_channels)
    parts = (sums_rounded_up_twice, slice(None, left)), (sums_rounded_twice, slice(left, None))
    return np.concatenate(
        [rescale(sums[..., part], input_scale, scales[part], output_scale) for rescale, part in parts], axis=-1
    )


def _fixed_point_add(a, b, a_scale, b_scale, output_scale):
    """Both terms in 2^20ths of twice the larger scale, then their sum in steps of the output."""
    twice = 2.0 * np.maximum(_double(a_scale), _double(b_scale))
    terms = [
        multiply_rounding_twice(x.astype(np.int64) << ADD_LEFT_SHIFT, *quantize_multiplier(_double(scale) / twice))
        for x, scale in ((a, a_scale), (b, b_scale))
    ]
    real = twice / (2.0**ADD_LEFT_SHIFT * _double(output_scale))
    return multiply_rounding_twice(terms[0] + terms[1], *quantize_multiplier(real))


def _fixed_point_multiply(a, b, a_scale, b_scale, output_scale):
    real = _double(a_scale) * _double(b_scale) / _double(output_scale)
    return multiply_rounding_twice(a.astype(np.int64) * b, *quantize_multiplier(real))


def _fixed_point_mean(sums, count: int, input_scale, output_scale, input_zero_point, output_zero_point):
    """The division by `count` goes into the fixed-point number, with as many bits as leave it an int32."""
    fixed, shift = quantize_multiplier(_double(input_scale) / _double(output_scale))
    room = np.minimum(min(int(count).bit_length() - 1, MEAN_FRACTION_BITS), 31 + shift)
    return multiply_rounding_twice(sums, (fixed << room) // count, shift - room)


def _fixed_point_requantize(x, input_scale, output_scale):
    return multiply_rounding_twice(x, *quantize_multiplier(_double(input_scale) / _double(output_scale)))


def sums_ratio(input_scale, kernel_scales, output_scale) -> np.ndarray:
    """What a float32 of sums is, one a channel."""
    return _single(input_scale) * _single(kernel_scales) / _single(output_scale)


def float_sums(sums, input_scale, kernel_scales, output_scale):
    ratio = sums_ratio(input_scale, kernel_scales, output_scale)
    return np.round(sums.astype(np.float32) * ratio).astype(np.int64)


def _float_multiply(a, b, a_scale, b_scale, output_scale):
    ratio = _single(a_scale) * _single(b_scale) / _single(output_scale)
    return np.round((a.astype(np.int64) * b).astype(np.float32) * ratio).astype(np.int64)


def _shifted_add(a, b, a_scale, b_scale, output_scale):
    """Both ratios as integers of at most 21 bits under one shift; half up."""
    ratios = [_single(scale) / _single(output_scale) for scale in (a_scale, b_scale)]
    # Ratios that would leave no shift are beyond what the kernel takes: the exporter refuses them by the tensor's name.
    shift = max(1, ADD_LEFT_SHIFT + 1 - int(np.frexp(max(ratios))[1]))
    a_fixed, b_fixed = (np.int64(np.round(np.ldexp(np.float64(ratio), shift))) for ratio in ratios)
    return (a.astype(np.int64) * a_fixed + b.astype(np.int64) * b_fixed + (1 << (shift - 1))) >> shift


def _float_mean(sums, count: int, input_scale, output_scale, input_zero_point, output_zero_point):
    """The sum of stored integers; what their zero points add to it is taken off in float32, which moves near ties."""
    ratio = _single(input_scale) / _single(output_scale) * (np.float32(1) / np.float32(count))
    zero_points = np.int64(count) * input_zero_point
    offset = np.float32(output_zero_point) - np.float32(zero_points) * ratio
    return np.round((sums + zero_points).astype(np.float32) * ratio + offset).astype(np.int64) - output_zero_point


def _requantize_in_256ths(x, input_scale, output_scale):
    """The ratio is a whole number of 256ths; half up."""
    fixed = np.int64(np.round(np.float32(256) * (_single(input_scale) / _single(output_scale))))
    return (x.astype(np.int64) * fixed + 128) >> 8


def _tabled_logistic(x, input_scale):
    """A table of 256 rounded values; none of them is a tie but that of 0."""
    real = np.asarray(x, np.float32) * _single(input_scale)
    steps = np.round(LOGISTIC_STEPS / (1.0 + np.exp(np.minimum(-real.astype(np.float64), 700.0))))
    return np.minimum(steps, LOGISTIC_STEPS - 1).astype(np.int64)


def _fixed_point_logistic(x, input_scale):
    """gemmlowp's: 1 / (1 + exp(-|x|)) in fixed point, a Q4.27 in, a Q0.31 out, rounded to 8 bits."""
    fixed, shift = quantize_multiplier(_double(input_scale) * 2.0**_Q4_FRACTION)
    saturates = int(np.floor((2**4 - 1) * 2.0 ** (_Q4_FRACTION - int(shift))))  # steps from which 0 or 1 is taken
    x = np.asarray(x, np.int64)
    real = multiply_rounding_twice(np.clip(x, -saturates, saturates), fixed, shift)
    above = _one_over_one_plus(_exp_of_negative(-np.abs(real)))
    result = np.where(real > 0, above, _ONE - above)
    result = np.where(real == 0, 2**30, result)
    steps = np.minimum(_round_shift(result, 31 - 8), LOGISTIC_STEPS - 1)
    return np.where(x <= -saturates, 0, np.where(x >= saturates, LOGISTIC_STEPS - 1, steps))


_ONE = 2**31 - 1  # of a Q0.31
_Q4_FRACTION = 27


def _exp_of_negative(x: np.ndarray) -> np.ndarray:
    """exp(x) as a Q0.31 of a Q4.27 that is not positive.

    exp of the part in [-1/4, 0) by a Taylor series about -1/8, times exp(-2^e) for each bit that is left.
    """
    quarter = 1 << (_Q4_FRACTION - 2)
    part = (x & (quarter - 1)) - quarter
    left = part - x
    t = (part << 4) + 2**28
    t2 = _high_product(t, t)
    t3, t4 = _high_product(t2, t), _high_product(t2, t2)
    series = t + _round_shift(_high_product(_round_shift(t4, 2) + t3, _fixed(1 / 3)) + t2, 1)
    at_center = _fixed(np.exp(-1 / 8))
    result = np.minimum(at_center + _high_product(at_center, series), _ONE)
    for exponent in range(-2, 4):
        bit = (left >> (_Q4_FRACTION + exponent)) & 1
        result = np.where(bit == 1, _high_product(result, _fixed(np.exp(-(2.0**exponent)))), result)
    return np.where(x == 0, _ONE, result)


def _one_over_one_plus(x: np.ndarray) -> np.ndarray:
    """1 / (1 + x) of a Q0.31 in [0, 1]: Newton's division of half the denominator, in Q2.29."""
    half = (x + _ONE + 1) >> 1
    result = _fixed(48 / 17, 29) + _high_product(half, -_fixed(32 / 17, 29))
    for _ in range(3):
        result = result + (_high_product(result, (1 << 29) - _high_product(half, result)) << 2)
    return np.clip(result << 1, -(2**31), _ONE)


def _fixed(real: float, fraction_bits: int = 31) -> int:
    return int(np.round(real * 2.0**fraction_bits))


def _high_product(a, b) -> np.ndarray:
    """SaturatingRoundingDoublingHighMul: a * b / 2^31 to the nearest, half up."""
    product = np.asarray(a, np.int64) * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.sign(nudged) * (np.abs(nudged) >> 31)


def _round_shift(x: np.ndarray, exponent: int) -> np.ndarray:
    """RoundingDivideByPOT: half away from zero."""
    return (x >> exponent) + ((x & ((1 << exponent) - 1)) > ((1 << exponent) - 1 >> 1) + (x < 0))


def _limit_half_even(value: float, output_scale):
    return np.int64(np.round(np.float32(value) / _single(output_scale)))


def _limit_half_away(value: float, output_scale):
    return np.int64(round_half_away(np.float32(value) / _single(output_scale)))


XNNPACK = Arithmetic(
    convolution=float_sums,
    dense=float_sums,
    add=_shifted_add,
    multiply=_float_multiply,
    mean=_float_mean,
    logistic=_tabled_logistic,
    requantize=_requantize_in_256ths,
    limit=_limit_half_even,
)
TFLM = Arithmetic(
    convolution=sums_rounded_twice,
    dense=sums_rounded_twice,
    add=_fixed_point_add,
    multiply=_fixed_point_multiply,
    mean=_fixed_point_mean,
    logistic=_fixed_point_logistic,
    requantize=_fixed_point_requantize,
    limit=_limit_half_away,
)
LITERT_REFERENCE = dataclasses.replace(TFLM, dense=sums_rounded_once, logistic=_tabled_logistic)

RUY = dataclasses.replace(TFLM, convolution=sums_rounded_up_twice)
RUY_DEPTHWISE = dataclasses.replace(TFLM, convolution=sums_rounded_in_blocks)
LITERT_INT4 = dataclasses.replace(
    XNNPACK, int4={"CONV_2D": RUY, GROUPED_CONVOLUTION: TFLM, "DEPTHWISE_CONV_2D": RUY_DEPTHWISE}
)

INT4_MAX = 7  # kernels with integers up to here can be stored as INT4

# Runtime, and where that matters how it is given kernels that fit INT4 -> its arithmetic.
ARITHMETICS: Mapping[str, Arithmetic] = {
    "litert": XNNPACK,
    "litert_int4": LITERT_INT4,
    "litert_reference": LITERT_REFERENCE,
    "tflm": TFLM,
}
