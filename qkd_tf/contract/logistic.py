"""TFLite's LOGISTIC as its kernels compute it: from a table, or in gemmlowp's fixed point.

There are two tables. Each differs from the exactly rounded one where a float32 falls on the other side of a tie: in
about one of a thousand tables.
"""

import numpy as np

from qkd_tf.contract.fixed_point import Scale, multiply_rounding_twice, quantize_multiplier, round_half_away

LOGISTIC_STEPS = 256
_ZERO_POINT = np.float32(-128)  # of the output


def xnnpack_logistic(x: np.ndarray, input_scale: Scale) -> np.ndarray:
    """XNNPACK's table: the sigmoid in float64, its steps in float32 beside int8's zero point, rounded half to even."""
    exponential = np.exp(np.clip(_real(x, input_scale).astype(np.float64), -100.0, 100.0))
    sigmoid = (exponential / (1.0 + exponential)).astype(np.float32)
    steps = np.round(sigmoid * np.float32(LOGISTIC_STEPS) + _ZERO_POINT) - _ZERO_POINT
    return np.minimum(steps, LOGISTIC_STEPS - 1).astype(np.int64)


def reference_logistic(x: np.ndarray, input_scale: Scale) -> np.ndarray:
    """The table of LiteRT's own kernels: all in float32, rounded half away from zero."""
    exponential = np.exp(np.minimum(-_real(x, input_scale).astype(np.float64), 80.0)).astype(np.float32)
    sigmoid = np.float32(1) / (np.float32(1) + exponential)
    steps = round_half_away(np.float64(LOGISTIC_STEPS) * sigmoid)
    return np.minimum(steps, LOGISTIC_STEPS - 1).astype(np.int64)


def _real(x: np.ndarray, scale: Scale) -> np.ndarray:
    return np.asarray(x, np.float32) * np.float32(scale)


def fixed_point_logistic(x: np.ndarray, input_scale: Scale) -> np.ndarray:
    """gemmlowp's: 1 / (1 + exp(-|x|)) in fixed point, a Q4.27 in, a Q0.31 out, rounded to 8 bits."""
    fixed, shift = quantize_multiplier(np.float64(np.float32(input_scale)) * 2.0**_Q4_FRACTION)
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


def _high_product(a: int | np.ndarray, b: int | np.ndarray) -> np.ndarray:
    """SaturatingRoundingDoublingHighMul: a * b / 2^31 to the nearest, half up."""
    product = np.asarray(a, np.int64) * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.sign(nudged) * (np.abs(nudged) >> 31)


def _round_shift(x: np.ndarray, exponent: int) -> np.ndarray:
    """RoundingDivideByPOT: half away from zero."""
    return (x >> exponent) + ((x & ((1 << exponent) - 1)) > ((1 << exponent) - 1 >> 1) + (x < 0))
