"""TFLite's fixed-point numbers, fixed * 2^(shift - 31), and how products with them are rounded.

Source: gemmlowp's fixedpoint.h (Jacob et al. 2018, section 2.2), TFLite's and ruy's kernels.
"""

import numpy as np

Scale = float | np.floating | np.ndarray  # one, or one a channel


def quantize_multiplier(real: Scale) -> tuple[np.ndarray, np.ndarray]:
    """real = fixed * 2^(shift - 31) with fixed in [2^30, 2^31): TFLite's QuantizeMultiplier.

    Args:
      real: float64, any shape, not negative.

    Returns:
      (fixed, shift), int64.
    """
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    fixed = round_half_away(fraction * 2.0**31).astype(np.int64)
    overflows = fixed == 2**31
    fixed, shift = np.where(overflows, 2**30, fixed), np.where(overflows, shift + 1, shift).astype(np.int64)
    vanishes = shift < -31
    return np.where(vanishes, 0, fixed), np.where(vanishes, 0, shift)


def multiply_rounding_twice(x: np.ndarray, fixed: np.ndarray, shift: np.ndarray) -> np.ndarray:
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


def multiply_rounding_up_twice(x: np.ndarray, fixed: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The same product, half up both times: ruy's kernels."""
    exponent = np.maximum(-shift, 0)
    result = x.astype(np.int64)
    result *= fixed << np.maximum(shift, 0)
    result += 2**30
    result >>= 31
    result += np.where(exponent > 0, np.int64(1) << np.maximum(exponent - 1, 0), 0)
    result >>= exponent
    return result


def multiply_rounding_once(x: np.ndarray, fixed: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The same product, half up."""
    exponent = 31 - shift
    return (x.astype(np.int64) * fixed + (np.int64(1) << (exponent - 1))) >> exponent


def round_half_away(x: np.ndarray) -> np.ndarray:
    """C's round()."""
    return np.sign(x) * np.floor(np.abs(x) + 0.5)
