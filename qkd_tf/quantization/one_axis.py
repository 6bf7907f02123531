"""Layers over one axis as layers over maps: a series [N, T, C] is a map [N, 1, T, C] of one row.

The numbers and their order in memory are the same, so only a Reshape at each end is added, and the integer graph needs
no new arithmetic. The map has one row, not one column, because CMSIS-NN has a fast convolution for that.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tf_keras

from qkd_tf.models.copier import float_config

_layers = tf_keras.layers
SERIES_RANK, MAP_RANK = 3, 4  # of [N, T, C] and of [N, H, W, C]


def _pair(before: int) -> Callable:
    """Turns one size, or a tuple of one, into those of rows and columns."""
    return lambda size: (before or int(np.ravel(size)[0]), int(np.ravel(size)[0]))


def _columns(pair) -> tuple:
    return ((0, 0), tuple(pair))


def _later(axis: int | list[int]):
    """An axis of a series as an axis of a map; axes counted from the end stay the same."""
    if isinstance(axis, int):
        return axis + 1 if axis > 0 else axis
    return [_later(one) for one in axis]


def _later_or_none(axes: int | list[int] | None):
    return axes and _later(axes)


def _pixelwise(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """A Dense layer's arrays as those of a 1x1 convolution."""
    return [array[np.newaxis, np.newaxis] if array.ndim == 2 else array for array in arrays]


def _in_one_row(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [array[np.newaxis] if array.ndim > 1 else array for array in arrays]


@dataclasses.dataclass(frozen=True)
class MapRow:
    """How a layer over one axis is written over maps.

    Attributes:
      kind: the layer over maps.
      changed: argument -> function of its value.
      added: arguments that the layer over one axis lacks.
      dropped: arguments that the layer over maps lacks.
      renamed: argument of the layer over one axis -> of that over maps.
      arrays: function of its weights.
    """

    kind: type
    changed: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    added: Mapping[str, object] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arrays: Callable = _in_one_row


# Strides are those of columns in both directions, as TensorFlow's depthwise kernels want them; of one row all is one.
_CONVOLUTION = {"kernel_size": _pair(1), "strides": _pair(0), "dilation_rate": _pair(1)}
_POOLING = {"pool_size": _pair(1), "strides": _pair(0)}
ONE_AXIS: Mapping[type, MapRow] = {
    _layers.Conv1D: MapRow(_layers.Conv2D, _CONVOLUTION),
    _layers.DepthwiseConv1D: MapRow(_layers.DepthwiseConv2D, _CONVOLUTION),
    _layers.SeparableConv1D: MapRow(_layers.SeparableConv2D, _CONVOLUTION),
    _layers.MaxPooling1D: MapRow(_layers.MaxPooling2D, _POOLING),
    _layers.AveragePooling1D: MapRow(_layers.AveragePooling2D, _POOLING),
    _layers.GlobalAveragePooling1D: MapRow(_layers.GlobalAveragePooling2D),
    _layers.GlobalMaxPooling1D: MapRow(_layers.GlobalMaxPooling2D),
    _layers.ZeroPadding1D: MapRow(_layers.ZeroPadding2D, {"padding": _columns}),
    _layers.Cropping1D: MapRow(_layers.Cropping2D, {"cropping": _columns}),
    _layers.UpSampling1D: MapRow(_layers.UpSampling2D, {"size": _pair(1)}),
}
# Layers of any rank, where they read or make a series.
ANY_RANK: Mapping[type, MapRow] = {
    _layers.BatchNormalization: MapRow(_layers.BatchNormalization, {"axis": _later}, arrays=list),
    _layers.Concatenate: MapRow(_layers.Concatenate, {"axis": _later}),
    _layers.Normalization: MapRow(_layers.Normalization, {"axis": _later_or_none}, arrays=list),
    _layers.PReLU: MapRow(
        _layers.PReLU, {"shared_axes": _later_or_none}, arrays=lambda arrays: [arrays[0][np.newaxis]]
    ),
    _layers.Softmax: MapRow(_layers.Softmax, {"axis": _later}),
}
# Dense on all but a vector is the same kernel at each place.
PIXELWISE = MapRow(
    _layers.Conv2D, added={"kernel_size": 1}, renamed={"units": "filters"}, dropped=("units",), arrays=_pixelwise
)


def row_for(node) -> MapRow | None:
    """The row for a call; None if the layer is copied as it is."""
    kind, rank = type(node.layer), len(_shapes(node.input_shapes)[0])
    if kind is _layers.Dense and rank in (SERIES_RANK, MAP_RANK):
        return PIXELWISE
    return ONE_AXIS.get(kind) or (ANY_RANK.get(kind) if rank == SERIES_RANK else None)


def over_maps(layer: tf_keras.layers.Layer, row: MapRow, input_shape: tuple) -> tf_keras.layers.Layer:
    """The layer over maps that computes the same, with its weights; "causal" padding, which it lacks, is left out.

    Args:
      input_shape: [N, H, W, C] of its input.
    """
    config, function = float_config(layer)
    config |= {key: change(config[key]) for key, change in row.changed.items()}
    config |= {new: config[old] for old, new in row.renamed.items()} | row.added
    config = {key: value for key, value in config.items() if key not in row.dropped}
    if is_causal(layer):
        config["padding"] = "valid"
    made = row.kind.from_config(config)
    if function is not None:
        made.activation = function
    if layer.weights:
        made.build(input_shape)
        made.set_weights(row.arrays(layer.get_weights()))
    return made


def is_causal(layer) -> bool:
    return getattr(layer, "padding", None) == "causal"


def causal_padding(layer) -> tuple:
    """The padding that a causal layer over one axis puts before a series, as padding of a map."""
    return ((0, 0), (layer.dilation_rate[0] * (layer.kernel_size[0] - 1), 0))


def problem(node) -> str:
    """Why a call of a layer over one axis cannot be written over maps, and what to do; "" if nothing."""
    layer = node.layer
    if type(layer) not in ONE_AXIS:
        return ""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "has data_format channels_first; use channels_last"
    shape = _shapes(node.input_shapes)[0]
    return (
        "" if len(shape) == SERIES_RANK else f"reads a tensor of shape {shape}; put Reshape to (steps, channels) before"
    )


def makes_series(node) -> bool:
    return len(_shapes(node.output_shapes)[0]) == SERIES_RANK


def _shapes(shapes) -> list[tuple]:
    """The shapes of one tensor or of several, as a list."""
    return shapes if isinstance(shapes, list) else [shapes]
