"""Predicts the bytes of a student's .tflite.

Kernels are counted as they are stored, by the exporter's own rule. Everything else (biases, scales, names and the
tables of the format) is estimated from the layers, rather too high than too low.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import tf_keras

from qkd_tf.contract import lookup_tables, weight_storage
from qkd_tf.contract.grid import MIN_BITS, IntegerGrid, activation_params, weight_grid
from qkd_tf.contract.targets import TARGETS, Target
from qkd_tf.contract.weight_storage import Kernel
from qkd_tf.experiment import QuantizationSpec, TargetSpec
from qkd_tf.models.activations import activation_name, is_relu
from qkd_tf.quantization.layer_graph import LayerGraph
from qkd_tf.quantization.plan import QuantizationPlan
from qkd_tf.quantization.roles import LAYERS, averages_what_is_there, kernel_size, parents

BIAS_BYTES = 4
# Upper bounds for the parts of a file that `tflite_export` writes. tests/tflite_export/flatbuffer/test_convert.py
# checks them on all kinds of files.
FILE_BYTES = 456  # header, signature, and the layout of tables
KIND_BYTES = 48  # of each kind of operator
OPERATOR_BYTES = 60
DEPTHWISE_BYTES = 16  # in addition, for a depthwise one
TENSOR_BYTES = 70  # without name and scales
CONSTANT_BYTES = 34  # around the data of a constant
ALIGNMENT = 16  # constants' data begin at multiples of this
_layers = tf_keras.layers


@dataclasses.dataclass(frozen=True)
class Beside:
    """What a layer without a kernel adds to the file.

    Attributes:
      operators: number of operators, and of their tensors.
      constants: bytes of each constant's data.
    """

    operators: int = 1
    constants: tuple[int, ...] = ()


def stored_kernels(model: tf_keras.Model, grids: Mapping[str, IntegerGrid]) -> dict[str, Kernel]:
    """Layer -> what decides how its kernel is stored, in a model in standard form; `grids` has the kernels' grids."""
    layers = {layer.name: layer for layer in model.layers}
    normalized = {parents(layer)[0].name for layer in layers.values() if isinstance(layer, _layers.BatchNormalization)}
    return {name: _stored_kernel(layers[name], grid, name in normalized) for name, grid in grids.items()}


def kernel_bytes(num_weights: int, kernel: Kernel, target: TargetSpec) -> int:
    """Bytes of a kernel as the target stores it."""
    is_int4 = target.storage != "int8" and weight_storage.form(kernel, target.storage, TARGETS[target.target]).is_int4
    return weight_storage.num_bytes(num_weights, is_int4)


class StoredWidths:
    """The bytes of a student's file, by the bit widths of its kernels.

    Args:
      has_tables: whether it is the file with lookup tables; the code that reads them is then included.

    Attributes:
      widest: bit width of each kernel in the plan.
      narrower: layer -> smaller bit widths that take fewer bytes, the widest of those with equal bytes; none if a
        user's rule sets the width.
      other_bytes: upper bound for the file's bytes without kernels.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        plan: QuantizationPlan,
        target: TargetSpec,
        spec: QuantizationSpec,
        has_tables: bool = False,
    ):
        self._kernels, self._target = stored_kernels(model, plan.weight_grids), target
        self._narrow_range = spec.narrow_range
        self._sizes = {layer.name: kernel_size(layer) for layer in model.layers if layer.name in self._kernels}
        self.has_tables = has_tables
        self.widest = {name: grid.num_bits for name, grid in plan.weight_grids.items()}
        self.narrower = {
            name: [] if spec.says_bits_of(name) else self._narrower(name, bits) for name, bits in self.widest.items()
        }
        self.other_bytes = bytes_beside_kernels(model, plan, TARGETS[target.target])
        self.other_bytes += has_tables * lookup_tables.DECODE_CODE_BYTES

    def kernel_bytes(self, name: str, num_bits: int) -> int:
        """Bytes of a kernel as stored, rounded up to a multiple of ALIGNMENT."""
        kernel, size, grid = self._kernels[name], self._sizes[name], weight_grid(num_bits, self._narrow_range)
        stored = kernel_bytes(size, dataclasses.replace(kernel, largest=_largest(grid)), self._target)
        if self.has_tables:
            num_tables = kernel.num_channels if kernel.per_channel else 1
            stored = min(stored, lookup_tables.num_bytes(size, num_tables, grid.num_levels))
        return _aligned(stored)

    @property
    def file_bytes(self) -> int:
        """Upper bound for the file's bytes at the widest kernels."""
        return self.other_bytes + sum(self.kernel_bytes(name, bits) for name, bits in self.widest.items())

    @property
    def fewest_bytes(self) -> int:
        """Upper bound for the file's bytes at the narrowest kernels."""
        narrowest = {name: (narrower or [self.widest[name]])[-1] for name, narrower in self.narrower.items()}
        return self.other_bytes + sum(self.kernel_bytes(name, bits) for name, bits in narrowest.items())

    def _narrower(self, name: str, widest: int) -> list[int]:
        of_size: dict[int, int] = {}
        for num_bits in range(widest, MIN_BITS - 1, -1):
            of_size.setdefault(self.kernel_bytes(name, num_bits), num_bits)
        return [num_bits for size, num_bits in of_size.items() if size < self.kernel_bytes(name, widest)]


def stored_files(
    model: tf_keras.Model, plan: QuantizationPlan, target: TargetSpec, spec: QuantizationSpec
) -> list[StoredWidths]:
    """The file, and for some targets the one with lookup tables."""
    forms = (False, True) if TARGETS[target.target].compressed else (False,)
    return [StoredWidths(model, plan, target, spec, has_tables) for has_tables in forms]


def bytes_beside_kernels(model: tf_keras.Model, plan: QuantizationPlan, target: Target) -> int:
    """Upper bound for the file's bytes without its kernels' data; independent of their bit widths."""
    graph = LayerGraph(model)
    kinds = {type(layer) for layer in model.layers if graph.role(layer.name) in ("compute", "arithmetic", "pass")}
    requantizes = (
        bool(plan.requantized) or target.input_type != "int8" or any(map(averages_what_is_there, model.layers))
    )
    total = FILE_BYTES + KIND_BYTES * (len(kinds) + requantizes)
    if target.input_type == "int8":
        total -= OPERATOR_BYTES  # the first tensor, of those below, is the input itself
    else:
        total += _tensor("pixels/uint8")
    for name, kernel in stored_kernels(model, plan.weight_grids).items():
        scales = kernel.num_channels if kernel.per_channel else 1
        tensors = (_tensor(f"{name}/{what}", scales) for what in ("kernel", "bias"))
        total += sum(tensors) + 2 * CONSTANT_BYTES + _aligned(BIAS_BYTES * kernel.num_channels)
        total += DEPTHWISE_BYTES * (kernel.operator == "DEPTHWISE_CONV_2D")
    for name, grid in plan.output_grids.items():
        total += OPERATOR_BYTES + _tensor(name)
        root = graph.by_name[graph.operator(name)[0]] if name in graph.by_name else None
        params = activation_params(grid, 1.0)
        relu_alone = isinstance(root, _layers.ReLU | _layers.Activation) and is_relu(activation_name(root))
        if params.written_zero_point(relu_alone) != params.zero_point:
            total += OPERATOR_BYTES + _tensor(f"{name}/clipped_below")
            if target.clip == "MAXIMUM":
                total += _tensor(f"{name}/minimum") + CONSTANT_BYTES + ALIGNMENT
        if type(root) in BESIDE:
            total += _beside(name, BESIDE[type(root)](root), already=1)
    for layer in model.layers:
        if layer.name not in plan.output_grids and LAYERS[type(layer)].role == "pass":
            total += _beside(layer.name, BESIDE.get(type(layer), lambda layer: Beside())(layer))
    return total


def _stored_kernel(layer: tf_keras.layers.Layer, grid: IntegerGrid, per_channel: bool) -> Kernel:
    kind, num_channels = LAYERS[type(layer)], layer.output_shape[-1]
    dilation = tuple(getattr(layer, "dilation_rate", (1, 1)))
    return Kernel(
        kind.operator,
        is_pointwise=kind.operator == "CONV_2D"
        and {*layer.kernel_size, *layer.strides, *dilation, layer.groups} == {1},
        is_dilated=dilation != (1, 1),
        is_grouped=kind.operator == "CONV_2D" and layer.groups > 1,
        num_inputs=getattr(layer, kind.kernel).shape[-2],
        num_channels=num_channels,
        per_channel=per_channel and num_channels > 1,
        largest=_largest(grid),
    )


def _largest(grid: IntegerGrid) -> int:
    return max(-grid.qmin, grid.qmax) << grid.weight_shift


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _tensor(name: str, num_scales: int = 1) -> int:
    return TENSOR_BYTES + len(name.encode()) + weight_storage.SCALE_BYTES * num_scales


def _beside(name: str, what: Beside, already: int = 0) -> int:
    """Bytes that a layer adds, without its operators that are already counted."""
    constants = sum(_tensor(f"{name}/constant", 0) + CONSTANT_BYTES + _aligned(size) for size in what.constants)
    return (what.operators - already) * (OPERATOR_BYTES + _tensor(f"{name}/input")) + constants


def _average(layer: tf_keras.layers.Layer) -> Beside:
    """A MEAN has axes; windows have a kernel and biases; with padding it is an average and a requantization."""
    if averages_what_is_there(layer):
        return Beside(operators=2)
    channels = layer.output_shape[-1]
    return Beside(constants=(math.prod(getattr(layer, "pool_size", (1, 1))) * channels, BIAS_BYTES * channels))


def _max_pool(layer: tf_keras.layers.Layer) -> Beside:
    channels = layer.output_shape[-1]
    return Beside(constants=(channels, BIAS_BYTES * channels) if tuple(layer.pool_size) == (1, 1) else ())


# Kind of layer -> what it brings; others bring an operator.
BESIDE: Mapping[type, Callable[[tf_keras.layers.Layer], Beside]] = {
    _layers.AveragePooling2D: _average,
    _layers.GlobalAveragePooling2D: lambda layer: Beside(constants=(8,)),
    _layers.Concatenate: lambda layer: Beside(operators=1 + len(parents(layer))),
    _layers.PReLU: lambda layer: Beside(constants=(math.prod(layer.alpha.shape),)),
    _layers.MaxPooling2D: _max_pool,
    _layers.ZeroPadding2D: lambda layer: Beside(constants=(32,)),
    _layers.Cropping2D: lambda layer: Beside(constants=(16, 16)),
    _layers.UpSampling2D: lambda layer: Beside(constants=(8,)),
    _layers.Flatten: lambda layer: Beside(constants=(16,)),
    _layers.Reshape: lambda layer: Beside(constants=(16,)),
    _layers.Dropout: lambda layer: Beside(operators=0),
}
