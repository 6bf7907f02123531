"""Decides which tensor of a float model gets which grid, from the layer graph; nothing is built here.

The plan names a tensor after the layer whose output it is. Only tensors that exist in the integer .tflite have a grid:
a convolution, its BatchNormalization and its ReLU are one integer operator, so the grid sits on the last of them.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import tf_keras

from qkd_tf.console.counting import counted
from qkd_tf.console.nearest import meant
from qkd_tf.contract.grid import (
    MAX_BITS,
    IntegerGrid,
    TensorQuantParams,
    activation_grid,
    activation_params,
    pixel_grid,
    unsigned_grid,
    weight_grid,
)
from qkd_tf.contract.kinds import REQUANTIZED
from qkd_tf.contract.logistic import LOGISTIC_STEPS
from qkd_tf.experiment import ExperimentError, QuantizationSpec, require
from qkd_tf.models.activations import activation_name
from qkd_tf.quantization.layer_graph import LayerGraph
from qkd_tf.quantization.refusals import UnsupportedLayers, problems
from qkd_tf.quantization.roles import has_slope, is_sigmoid, scales_channels

LOGITS_BITS = 8
SIGMOID_GRID = unsigned_grid(8)
SIGMOID_INTERVAL = 1 / LOGISTIC_STEPS  # TFLite's LOGISTIC has no other
_layers = tf_keras.layers


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """Grids by layer name.

    Attributes:
      weight_grids: kernel of each compute layer.
      output_grids: output of each layer that ends an operator, including requantize layers.
      requantized: (producer, consumer) -> name of the requantize layer to insert between them. Consumers of a tensor
        that want equal widths share one.
      clipped_by_grid: ReLU layers that their output's grid makes superfluous; if they have a largest value, the grid
        must end at or below it.
      fixed: intervals that are not learned, by tensor: those of sigmoids.
      batch_norms: tensor -> the BatchNormalization that makes it, if only compute layers read it. Its interval's
        gradient can then be taken from their weights (`fake_quant`).
    """

    weight_grids: dict[str, IntegerGrid]
    output_grids: dict[str, IntegerGrid]
    requantized: dict[tuple[str, str], str]
    clipped_by_grid: frozenset[str]
    fixed: dict[str, float]
    batch_norms: dict[str, str]


def _rules_by_layer(spec: QuantizationSpec, computes: list[str]) -> dict[str, dict[str, int | None]]:
    """What the rules say about each compute layer, None for nothing; of several rules the last one counts."""
    found = {name: {"weight_bits": None, "activation_bits": None} for name in computes}
    for rule in spec.rules:
        layers = [name for name in computes if re.fullmatch(rule.pattern, name)]
        if not layers:
            hint = meant(rule.pattern, computes, f"there are {', '.join(computes)}")
            raise ExperimentError(f"--bits_rule={rule} matches no layer with a kernel; {hint}")
        for name in layers:
            for what in found[name]:
                if getattr(rule, what) is not None:
                    found[name][what] = getattr(rule, what)
    return found


def pixel_params(model: tf_keras.Model) -> TensorQuantParams:
    """Quantization parameters of the network's input: the pixels themselves, under the model's normalisation.

    Raises:
      ExperimentError: the normalisation does not have one scale and one whole zero pixel for all channels.
    """
    rescaling = [layer for layer in model.layers if isinstance(layer, _layers.Rescaling)]
    if not rescaling:
        return activation_params(pixel_grid(0), 1.0)
    if len(rescaling) > 1:
        names = ", ".join(layer.name for layer in rescaling)
        raise ExperimentError(f"layers {names} all rescale pixels; use a single Rescaling")
    (layer,) = rescaling
    try:
        scale, zero_pixel = float(layer.scale), -float(layer.offset) / float(layer.scale)
    except TypeError:
        raise ExperimentError(
            f"layer {layer.name} has a scale for each channel; a .tflite input has one for all: "
            "normalise the student's pixels with scalars"
        ) from None
    if abs(zero_pixel - round(zero_pixel)) > 1e-4 or not 0 <= round(zero_pixel) < 255:
        raise ExperimentError(f"layer {layer.name} maps pixel {zero_pixel:g} to 0.0; a whole pixel in 0..254 is needed")
    return activation_params(pixel_grid(round(zero_pixel)), scale)


class _Widths:
    """The bit widths that compute layers ask for.

    Kernels have spec.weight_bits. First and last compute layers, those with no other before or after them, have their
    own width. A depthwise 1x1 convolution is a scale for each channel: its kernel has 8 bits, and it reads residual
    tensors as they are. spec.found_bits overrides these, and spec.bits_rule overrides all.
    """

    def __init__(self, graph: LayerGraph, spec: QuantizationSpec):
        self._graph, self._spec = graph, spec
        self.computes = [name for name in graph.by_name if graph.role(name) == "compute"]
        self._rules = _rules_by_layer(spec, self.computes)
        self._first, self._last = graph.first_computes(), graph.last_computes()
        found = spec.found_bits or [None] * len(self.computes)
        require(
            len(found) == len(self.computes),
            f"the widths of {counted(len(found), 'kernel')} were found in this run, and the student has "
            f"{len(self.computes)}; give another --run_dir",
        )
        self._found = dict(zip(self.computes, found, strict=True))

    def of(self, name: str, what: str) -> int:
        """A compute layer's "weight_bits" or "activation_bits"."""
        if (by_rule := self._rules[name][what]) is not None:
            return by_rule
        if what == "weight_bits" and self._found[name] is not None:
            return self._found[name]
        if name in self._last:
            return self._spec.last_layer_bits
        if name in self._first:
            return self._spec.first_layer_bits
        if scales_channels(self._graph.by_name[name]):
            return {"weight_bits": MAX_BITS, "activation_bits": self._spec.residual_bits}[what]
        return getattr(self._spec, what)

    def wanted(self, name: str) -> list[int]:
        """The input bit widths of the compute layers that read a layer's output, or of the layer itself."""
        readers = self._graph.readers(name) if self._graph.role(name) != "compute" else [name]
        return [self.of(r, "activation_bits") for r in readers if self._graph.role(r) == "compute"]

    def handed_on(self, name: str) -> int:
        """Bit width of a layer's output: the widest that its readers want, if all are compute layers."""
        consumers = self._graph.consumers[name]
        if self._graph.is_output(name):
            return LOGITS_BITS
        if has_slope(self._graph.by_name[name]):
            return MAX_BITS  # the finer the steps of what it makes, the finer the factors that runtimes multiply by
        if not all(self._graph.only_computes(c) for c in consumers):
            return self._spec.residual_bits
        return max(b for c in consumers for b in self.wanted(c))

    def narrower(self, name: str, num_bits: int) -> dict[int, list[str]]:
        """Bit width -> the consumers that want it, if it is narrower than the tensor."""
        found: dict[int, list[str]] = {}
        for consumer in self._graph.consumers[name]:
            if self._graph.only_computes(consumer) and max(self.wanted(consumer)) < num_bits:
                found.setdefault(max(self.wanted(consumer)), []).append(consumer)
        return found


def make_plan(model: tf_keras.Model, spec: QuantizationSpec) -> QuantizationPlan:
    """Decides where quantizers belong in a float functional model.

    A tensor that only compute layers read has the widest of their input bit widths. One that an addition,
    concatenation, product or average reads has spec.residual_bits. Compute layers that want fewer bits than it has read
    it through a requantization, one for each width. Logits have 8 bits.

    Raises:
      UnsupportedLayers: layers cannot become integer operators; lists all of them.
      ExperimentError: integers cannot express the pixels' normalisation, or a rule of bit widths matches no layer with
        a kernel.
    """
    if found := problems(model):
        raise UnsupportedLayers(model, found)
    graph = LayerGraph(model)
    widths = _Widths(graph, spec)
    zero_pixel = -pixel_params(model).grid.qmin
    pixels = next(n for n in graph.by_name if graph.role(n) == "pixels" and graph.ends_operator(n))
    output_grids: dict[str, IntegerGrid] = {}
    requantized: dict[tuple[str, str], str] = {}
    fixed: dict[str, float] = {}
    handed_on: dict[str, int] = {}  # bit width of the integers that a layer hands on

    shares = graph.negative_shares(zero_pixel)

    def make_grid(name: str, num_bits: int) -> IntegerGrid:
        return activation_grid(num_bits, shares[name])

    for name in graph.by_name:
        if graph.role(name) == "pass":
            edge = (graph.parents[name][0], name)
            handed_on[name] = output_grids[requantized[edge]].num_bits if edge in requantized else handed_on[edge[0]]
        elif not graph.ends_operator(name):
            continue
        else:
            if name == pixels:
                output_grids[name] = pixel_grid(zero_pixel)
            elif is_sigmoid(graph.by_name[name]):
                output_grids[name], fixed[name] = SIGMOID_GRID, SIGMOID_INTERVAL
            else:
                output_grids[name] = make_grid(name, widths.handed_on(name))
            handed_on[name] = output_grids[name].num_bits
        narrower = widths.narrower(name, handed_on[name])
        for num_bits, consumers in narrower.items():
            requantize = name + (REQUANTIZED if len(narrower) == 1 else f"_{num_bits}bit{REQUANTIZED}")
            output_grids[requantize] = make_grid(name, num_bits)
            requantized.update({(name, consumer): requantize for consumer in consumers})

    batch_norms = _batch_norms(graph, [name for name in output_grids if name != pixels], requantized)
    clipped_by_grid = frozenset(
        name
        for name, grid in output_grids.items()
        if grid.qmin == 0
        and graph.only_clips(name)
        and (
            name in batch_norms or graph.clips_alone(name) or activation_name(graph.by_name[name]) != "relu6"
        )  # an operator with a RELU6 ends at 6 whatever the grid
    )
    weight_grids = {name: weight_grid(widths.of(name, "weight_bits"), spec.narrow_range) for name in widths.computes}
    return QuantizationPlan(weight_grids, output_grids, requantized, clipped_by_grid, fixed, batch_norms)


def _batch_norms(
    graph: LayerGraph, tensors: Iterable[str], requantized: Mapping[tuple[str, str], str]
) -> dict[str, str]:
    """Tensors that only compute layers read, at full width -> the BatchNormalization that makes each.

    A ReLU that is an operator of its own makes its tensor itself: something else reads that BatchNormalization, too.
    """
    found = {}
    for name in tensors:
        consumers = graph.consumers.get(name)
        if (
            consumers
            and not graph.clips_alone(name)
            and all(graph.only_computes(c) and (name, c) not in requantized for c in consumers)
        ):
            made_by = graph.by_name[graph.parents[name][0] if graph.only_clips(name) else name]
            if isinstance(made_by, _layers.BatchNormalization) and made_by.scale:
                found[name] = made_by.name
    return found
