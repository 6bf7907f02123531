"""The table of a student's layers with bits, multiply-adds and bytes, and the limits of its target."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

import tensorflow as tf
import tf_keras

from qkd_tf.contract import lookup_tables
from qkd_tf.contract.targets import TARGETS
from qkd_tf.contract.weight_storage import Kernel
from qkd_tf.experiment import TargetSpec
from qkd_tf.models.copier import leaves
from qkd_tf.quantization.plan import QuantizationPlan
from qkd_tf.quantization.roles import kernel_size, parents, role
from qkd_tf.quantization.stored_bytes import BIAS_BYTES, StoredWidths, kernel_bytes, stored_kernels

HEADER = ("layer", "kind", "w bits", "in bits", "output", "parameters", "multiply-adds", "bytes", "")
_layers = tf_keras.layers


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer of the table.

    Attributes:
      weight_bits, input_bits: bit widths of its kernel and of the tensor that it reads; None if there is none.
      output_shape: shape of the output for one example.
      parameters: number of trained parameters in the file: kernel and bias, with BatchNorm folded into both.
      multiply_adds: multiply-adds for one example.
      num_bytes: bytes of the kernel at its bit width and of the int32 bias.
      stored: what decides how its kernel is stored; None if it has no kernel.
      problem: why it cannot become integer, and what to do; "" if it can.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    weight_bits: int | None = None
    input_bits: int | None = None
    parameters: int = 0
    multiply_adds: int = 0
    num_bytes: int = 0
    stored: Kernel | None = None
    problem: str = ""

    def cells(self) -> tuple[str, ...]:
        numbers = [f"{n:,}" if n else "" for n in (self.parameters, self.multiply_adds, self.num_bytes)]
        bits = ["" if b is None else str(b) for b in (self.weight_bits, self.input_bits)]
        shape = "x".join(str(d) for d in self.output_shape)
        return (self.name, self.kind, *bits, shape, *numbers, self.problem and f"REFUSED: {self.problem}")


def refused_rows(model: tf_keras.Model, refusals: Mapping[str, str]) -> list[LayerRow]:
    """The layers of a model that cannot be planned, `refusals` by layer name."""
    return [
        LayerRow(layer.name, type(layer).__name__, _shape(layer), problem=refusals.get(layer.name, ""))
        for layer in leaves(model)
    ]


def rows(model: tf_keras.Model, plan: QuantizationPlan) -> list[LayerRow]:
    """The layers of a model in standard form, with their bit widths under the plan."""
    bits, stored = _bits_handed_on(model, plan), stored_kernels(model, plan.weight_grids)
    found = []
    for layer in model.layers:
        (before, *_) = [*parents(layer), None]
        input_bits = None if before is None else bits[plan.requantized.get((before.name, layer.name), before.name)]
        row = LayerRow(layer.name, type(layer).__name__, _shape(layer), input_bits=input_bits)
        if role(layer) == "compute":
            kernel = kernel_size(layer)
            bias = layer.output_shape[-1]
            weight_bits = plan.weight_grids[layer.name].num_bits
            row = dataclasses.replace(
                row,
                weight_bits=weight_bits,
                parameters=kernel + bias,
                multiply_adds=multiply_adds(layer),
                num_bytes=-(-kernel * weight_bits // 8) + BIAS_BYTES * bias,
                stored=stored[layer.name],
            )
        elif role(layer) in ("fold", "pass", "pixels"):
            row = dataclasses.replace(row, input_bits=None)
        found.append(row)
    return found


def _bits_handed_on(model: tf_keras.Model, plan: QuantizationPlan) -> dict[str, int | None]:
    """Bit width of each layer's output tensor, including requantized ones; None inside an operator."""
    bits: dict[str, int | None] = {name: grid.num_bits for name, grid in plan.output_grids.items()}
    for layer in model.layers:
        if layer.name not in bits:
            before = parents(layer)
            bits[layer.name] = None
            if role(layer) == "pass":
                (before,) = before
                bits[layer.name] = bits[plan.requantized.get((before.name, layer.name), before.name)]
    return bits


def multiply_adds(layer) -> int:
    """Multiply-adds of a compute layer on one example: each weight once per output position."""
    return kernel_size(layer) * math.prod(layer.output_shape[1:-1])


def _shape(layer) -> tuple[int | None, ...]:
    """Shape of a layer's first output at its first use, without the batch."""
    return tuple(tf.nest.flatten(layer.inbound_nodes[0].outputs)[0].shape[1:])


def peak_activation_bytes(model: tf_keras.Model, scratch: Mapping[str, int] = MappingProxyType({})) -> int:
    """Largest sum of int8 tensors that must exist at once, layer by layer: a lower bound for the arena.

    Args:
      scratch: bytes that a layer's operator needs besides, by name.
    """
    layers = model.layers  # Keras collects them at each call
    last_use = {p.name: index for index, layer in enumerate(layers) for p in parents(layer)}
    live, peak = {}, 0
    for index, layer in enumerate(layers):
        # Writes where its input lies, or is a part of the operator before it; normalised pixels are an int8 input.
        if role(layer) in ("fold", "pass", "pixels") and parents(layer):
            before = parents(layer)[0].name
            live.pop(before, None) if last_use[before] == index else None
        live[layer.name] = math.prod(_shape(layer))
        peak = max(peak, sum(live.values()) + scratch.get(layer.name, 0))
        for name in [name for name in live if last_use.get(name, len(layers)) <= index]:
            del live[name]
    return peak


def weight_bytes(table: list[LayerRow], target: TargetSpec) -> int:
    """Bytes of kernels and biases as the target stores them."""
    total = 0
    for row in table:
        if row.stored is not None:
            bias = row.output_shape[-1]
            total += kernel_bytes(row.parameters - bias, row.stored, target) + BIAS_BYTES * bias
    return total


def _least_flash(table: list[LayerRow], target: TargetSpec) -> int:
    """Lower bound for the file's bytes; with lookup tables and the code that reads them, if that is less."""
    plain = weight_bytes(table, target)
    if not TARGETS[target.target].compressed:
        return plain
    total = lookup_tables.DECODE_CODE_BYTES
    for row in table:
        if row.stored is not None:
            bias, num_tables = row.output_shape[-1], row.stored.num_channels if row.stored.per_channel else 1
            size = row.parameters - bias
            tables = lookup_tables.num_bytes(size, num_tables, 2**row.weight_bits - 1)
            total += min(tables, kernel_bytes(size, row.stored, target)) + BIAS_BYTES * bias
    return min(plain, total)


def limits(table: list[LayerRow], model: tf_keras.Model, target: TargetSpec) -> list[str]:
    """What exceeds the target's limits, or what it cannot run, one per line."""
    found = []
    flash, ram = _least_flash(table, target), peak_activation_bytes(model)
    for flag, needed, limit, remedy in (
        ("max_flash_bytes", flash, target.max_flash_bytes, "a narrower student or fewer bits (--bits_rule)"),
        ("max_ram_bytes", ram, target.max_ram_bytes, "smaller pictures (--image_size) or a narrower student"),
    ):
        if limit and needed > limit:
            found.append(f"the student needs {needed:,} bytes or more, but --{flag}={limit}; use {remedy}")
    if target.target == "ethos_u":
        found += [
            f"layer {layer.name} has strides {layer.strides}; an Ethos-U takes 1 to 3"
            for layer in model.layers
            if role(layer) == "compute" and max(getattr(layer, "strides", (1,))) > 3
        ]
        found += [
            f"layer {layer.name} repeats pixels {layer.size} times; an Ethos-U takes 2, 4 or 8 in both directions"
            for layer in model.layers
            if isinstance(layer, _layers.UpSampling2D) and tuple(layer.size) not in ((2, 2), (4, 4), (8, 8))
        ]
    return found


def notes_on_unpacking(table: list[LayerRow], model: tf_keras.Model, target: TargetSpec) -> list[str]:
    """A note if TFLM's own kernels would need more than --max_ram_bytes because they unpack INT4 weights."""
    if not target.max_ram_bytes or not TARGETS[target.target].compressed:
        return []
    sizes = {row.name: (row.parameters - row.output_shape[-1], row.stored) for row in table if row.stored is not None}
    unpacked = {name: size for name, (size, stored) in sizes.items() if kernel_bytes(size, stored, target) < size}
    needed = peak_activation_bytes(model, unpacked)
    if needed <= target.max_ram_bytes:
        return []
    return [
        f"note: TFLM's own kernels unpack INT4 weights, so the arena will take {needed:,} bytes or more, above "
        f"--max_ram_bytes={target.max_ram_bytes:,}; --weight_storage=int8 avoids that, and takes more flash (CMSIS-NN "
        "reads INT4 directly)"
    ]


def text(table: list[LayerRow]) -> str:
    """The table for a terminal."""
    cells = [HEADER, *(row.cells() for row in table)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    right = range(5, 8)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def totals(table: list[LayerRow], model: tf_keras.Model, target: TargetSpec, file: StoredWidths) -> str:
    """The table's totals, for a terminal.

    Args:
      file: the bytes of model.tflite.
    """
    parameters, multiply_adds, num_bytes = (
        sum(getattr(row, field) for row in table) for field in ("parameters", "multiply_adds", "num_bytes")
    )
    return (
        f"{model.name}: {parameters:,} parameters, {multiply_adds:,} multiply-adds. "
        f"Kernels and biases: {num_bytes:,} bytes at these bit widths, {weight_bytes(table, target):,} bytes as stored "
        f"for {target.target}; model.tflite: up to {file.file_bytes:,} bytes. "
        f"Activations: {peak_activation_bytes(model):,} bytes of RAM or more"
    )
