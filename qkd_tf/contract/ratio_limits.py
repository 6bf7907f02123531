"""Ratios of scales that LiteRT's kernels support; no file can hold a student beyond them."""

from collections.abc import Mapping

import numpy as np

# Operator -> steps of the output that a step of a product or an input may be: at least, below.
LIMITS: Mapping[str, tuple[float, float]] = {
    "ADD": (0.0, 256.0),
    "CONV_2D": (0.0, 256.0),
    "DEPTHWISE_CONV_2D": (0.0, 256.0),
    "FULLY_CONNECTED": (0.0, 256.0),
    "LEAKY_RELU": (1 / 256, 128.0),
    "LOGISTIC": (0.0, np.inf),  # a table, or fixed point that saturates
    "MEAN": (0.0, 128.0),
    "MUL": (2.0**-16, 256.0),
    "PRELU": (0.0, 128.0),
    "QUANTIZE": (1 / 256, 256.0),
}


def beyond(operator: str, ratios: list[float]) -> str:
    """What is wrong with an operator's ratios, in words; empty if its kernels support them.

    Args:
      operator: its name in LIMITS; operators not listed there do not rescale.
      ratios: size of one step of each input, in steps of the output.
    """
    low, high = LIMITS.get(operator, (0.0, np.inf))
    for ratio in ratios:
        if not low <= ratio < high:
            return (
                f"one step of its inputs is {ratio:.4g} of its own steps, and LiteRT's {operator} supports {low:.4g} "
                f"to {high:.4g}"
            )
    return ""
