"""Whether LiteRT's kernels support the ratios of a graph's scales."""

import numpy as np

from qkd_tf.contract import ratio_limits
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.graph import IntegerGraph, Operator


def check_ratios(graph: IntegerGraph) -> None:
    """Raises ExportError for a tensor whose scale is out of proportion to its inputs' scales."""
    for operator in graph.operators:
        if problem := ratio_limits.beyond(operator.kind, ratios(graph, operator)):
            raise ExportError(f"tensor {operator.output}: {problem}; train longer or with more bits")


def ratios(graph: IntegerGraph, operator: Operator) -> list[float]:
    """Size of the largest step of each input, or of a product if there is one, in steps of the output.

    For a LEAKY_RELU, of a positive and a negative step of its input; for a PRELU, of a step of its products.
    """
    inputs = [graph.tensors[name] for name in operator.inputs]
    output = float(graph.tensors[operator.output].scales[0])
    scales = [float(t.scales.max()) for t in inputs if t.scales.size and t.dtype != "int32"]
    if operator.kind in ("LEAKY_RELU", "PRELU"):
        slope = abs(operator.options["alpha"]) if operator.kind == "LEAKY_RELU" else scales[1]
        return [scales[0] / output, scales[0] * slope / output]
    multiplies = inputs[-1].dtype == "int32" or operator.kind == "MUL"
    return [float(np.prod(scales)) / output] if multiplies else [scale / output for scale in scales]
