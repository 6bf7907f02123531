"""The operators of a file, a row each: how they are written, and so how they are read.

Writing and reading share these rows; only the runtimes show whether they are right.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer.graph import Tensor


@dataclasses.dataclass(frozen=True)
class OperatorRow:
    """How a file stores an operator.

    Attributes:
      version: lowest version that takes int8.
      options: the schema's options class; None for an operator without options.
      fields: name of our option -> the schema's field.
      variants: kind of kernel other than int8 with one scale -> lowest version that takes it.
    """

    version: int
    options: Callable | None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def version_with(self, kernels: Sequence[Tensor]) -> int:
        """The lowest version that takes an operator's kernels, at most one."""
        properties = {kernel.dtype for kernel in kernels} | {"per_channel" for k in kernels if k.axis is not None}
        return max([self.version, *(self.variants.get(name, 0) for name in properties)])

    @property
    def options_type(self) -> int:
        return getattr(schema.BuiltinOptions, self.options.__name__.removesuffix("T") if self.options else "NONE")


_WINDOW = {"padding": "padding", "stride_h": "strideH", "stride_w": "strideW", "activation": "fusedActivationFunction"}
_CONV = {**_WINDOW, "dilation_h": "dilationHFactor", "dilation_w": "dilationWFactor"}
_DEPTHWISE = {**_CONV, "depth_multiplier": "depthMultiplier"}
_ACTIVATION = {"activation": "fusedActivationFunction"}
_POOL = {**_WINDOW, "filter_h": "filterHeight", "filter_w": "filterWidth"}
OPERATORS: Mapping[str, OperatorRow] = {
    "ADD": OperatorRow(2, schema.AddOptionsT, _ACTIVATION),
    "AVERAGE_POOL_2D": OperatorRow(2, schema.Pool2DOptionsT, _POOL),
    "CONCATENATION": OperatorRow(2, schema.ConcatenationOptionsT, {**_ACTIVATION, "axis": "axis"}),
    "CONV_2D": OperatorRow(3, schema.Conv2DOptionsT, _CONV, {"int4": 7}),
    "DEPTHWISE_CONV_2D": OperatorRow(3, schema.DepthwiseConv2DOptionsT, _DEPTHWISE, {"int4": 7}),
    "FULLY_CONNECTED": OperatorRow(
        4,
        schema.FullyConnectedOptionsT,
        {**_ACTIVATION, "keep_num_dims": "keepNumDims"},
        {"int4": 10, "per_channel": 12},
    ),
    "LEAKY_RELU": OperatorRow(2, schema.LeakyReluOptionsT, {"alpha": "alpha"}),
    "LOGISTIC": OperatorRow(2, None),
    "MAXIMUM": OperatorRow(2, schema.MaximumMinimumOptionsT),
    "MAX_POOL_2D": OperatorRow(2, schema.Pool2DOptionsT, _POOL),
    "MEAN": OperatorRow(2, schema.ReducerOptionsT, {"keep_dims": "keepDims"}),
    "MUL": OperatorRow(2, schema.MulOptionsT, _ACTIVATION),
    "PAD": OperatorRow(2, schema.PadOptionsT),
    "PRELU": OperatorRow(1, None),
    "QUANTIZE": OperatorRow(2, schema.QuantizeOptionsT),
    "RESHAPE": OperatorRow(1, schema.ReshapeOptionsT),
    "RESIZE_NEAREST_NEIGHBOR": OperatorRow(
        3, schema.ResizeNearestNeighborOptionsT, {"half_pixel_centers": "halfPixelCenters"}
    ),
    "SLICE": OperatorRow(2, schema.SliceOptionsT),
}
