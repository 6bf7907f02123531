"""Ratios of scales that LiteRT's kernels can hold; a student beyond them has a step that nothing can be made of."""

import numpy as np

from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.graph import IntegerGraph, Operator

# Operator -> steps of the output that a step of a product or an input may be: at least, below.
LIMITS = {
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


def check_ratios(graph: IntegerGraph) -> None:
    """Raises ExportError for a tensor whose scale is out of all proportion to what it is made of."""
    for operator in graph.operators:
        low, high = LIMITS.get(operator.kind, (0.0, np.inf))
        for ratio in ratios(graph, operator):
            if not low <= ratio < high:
                raise ExportError(
                    f"tensor {operator.output}: one step of its inputs is {ratio:.4g} of its own steps, and LiteRT's "
                    f"{operator.kind} supports {low:.4g} to {high:.4g}; train longer or with more bits"
                )


def ratios(graph: IntegerGraph, operator: Operator) -> list[float]:
    """Steps of an operator's output in the largest step of each input, that of a product where there is one.

    Of a LEAKY_RELU, in a positive and in a negative step of its input; of a PRELU, in a step of its products.
    """
    inputs = [graph.tensors[name] for name in operator.inputs]
    output = float(graph.tensors[operator.output].scales[0])
    scales = [float(t.scales.max()) for t in inputs if t.scales.size and t.dtype != "int32"]
    if operator.kind in ("LEAKY_RELU", "PRELU"):
        slope = abs(operator.options["alpha"]) if operator.kind == "LEAKY_RELU" else scales[1]
        return [scales[0] / output, scales[0] * slope / output]
    multiplies = inputs[-1].dtype == "int32" or operator.kind == "MUL"
    return [float(np.prod(scales)) / output] if multiplies else [scale / output for scale in scales]
