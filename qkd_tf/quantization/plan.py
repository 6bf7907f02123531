"""Which tensor of a float model gets which grid: a reading of the layer graph, nothing is built here.

The plan speaks of tensors by the name of the layer that hands them on. Only tensors that
exist in the integer .tflite have a grid: a convolution, its BatchNormalization and its ReLU
are one integer operator, so the grid sits on the last of them.
"""

import dataclasses
import re
from collections.abc import Mapping

import tf_keras

from qkd_tf.experiment import ExperimentError, QuantizationSpec
from qkd_tf.integers.grid import (
    MAX_BITS,
    IntegerGrid,
    TensorQuantParams,
    activation_params,
    pixel_grid,
    signed_grid,
    unsigned_grid,
    weight_grid,
)
from qkd_tf.integers.runtime_arithmetic import LOGISTIC_STEPS
from qkd_tf.models.activations import activation_name

LOGITS_BITS = 8
SIGMOID_GRID = unsigned_grid(8)
SIGMOID_INTERVAL = 1 / LOGISTIC_STEPS  # TFLite's LOGISTIC has no other
REQUANTIZE_SUFFIX = "_requantize"

# What a layer is to the integer graph:
#   pixels     the network's input and its normalisation
#   compute    has a quantized kernel and reads its input at the activation bit width
#   fold       disappears into the operator before it
#   arithmetic computes on residual tensors and makes a new one
#   pass       moves integers about without changing them
_layers = tf_keras.layers
ROLES: Mapping[type, str] = {
    _layers.InputLayer: "pixels",
    _layers.Rescaling: "pixels",
    _layers.Conv2D: "compute",
    _layers.DepthwiseConv2D: "compute",
    _layers.Dense: "compute",
    _layers.BatchNormalization: "fold",
    _layers.ReLU: "fold",
    _layers.Activation: "fold",
    _layers.Add: "arithmetic",
    _layers.Multiply: "arithmetic",
    _layers.Concatenate: "arithmetic",
    _layers.AveragePooling2D: "arithmetic",
    _layers.GlobalAveragePooling2D: "arithmetic",
    _layers.MaxPooling2D: "pass",
    _layers.ZeroPadding2D: "pass",
    _layers.Flatten: "pass",
    _layers.Reshape: "pass",
    _layers.Dropout: "pass",
}
KERNELS: Mapping[type, str] = {
    _layers.Conv2D: "kernel",
    _layers.DepthwiseConv2D: "depthwise_kernel",
    _layers.Dense: "kernel",
}
ACTIVATIONS = ("linear", "relu", "relu6")
HINTS: Mapping[str, str] = {
    "softmax": "end in logits, the loss applies the softmax",
    "sigmoid": "write it as a layer of its own, Activation('sigmoid')",
    "swish": "write it as Activation('sigmoid') and Multiply",
}


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """Grids by layer name.

    Attributes:
      weight_grids: kernel of each compute layer.
      output_grids: tensor handed on by each layer that ends an operator, requantize layers included.
      requantized: (producer, consumer) -> name of the requantize layer to be put between them. One
        such layer serves all consumers of a tensor that it serves.
      clipped_by_grid: ReLU layers that the grid of their output makes superfluous, and ReLU6 layers whose grid shall
        end at 6 at the latest.
      fixed: intervals that are not learned, by tensor: those of sigmoids.
      carried: tensor -> the BatchNormalization that makes it, where compute layers alone read it (`fake_quant`
        says what that is good for).
    """

    weight_grids: dict[str, IntegerGrid]
    output_grids: dict[str, IntegerGrid]
    requantized: dict[tuple[str, str], str]
    clipped_by_grid: frozenset[str]
    fixed: dict[str, float]
    carried: dict[str, str]


def parents(layer) -> list:
    """Layers whose outputs `layer` reads, in order."""
    inbound = layer.inbound_nodes[0].inbound_layers if layer.inbound_nodes else []
    return inbound if isinstance(inbound, list) else [inbound]


def role(layer) -> str:
    return "arithmetic" if is_sigmoid(layer) else ROLES[type(layer)]


def is_sigmoid(layer) -> bool:
    """Whether a layer is a sigmoid and nothing else: an operator of its own, LOGISTIC."""
    return isinstance(layer, _layers.Activation) and activation_name(layer) == "sigmoid"


def producer(layer):
    """The layer that made the tensor `layer` hands on: itself, or the one before the layers that only move integers."""
    while role(layer) == "pass":
        (layer,) = parents(layer)
    return layer


def pixel_params(model: tf_keras.Model) -> TensorQuantParams:
    """Quantization parameters of the network's input: the pixels themselves, under the model's normalisation.

    Raises:
      ExperimentError: the normalisation is not one scale and one whole zero pixel for all channels.
    """
    rescaling = [layer for layer in model.layers if isinstance(layer, _layers.Rescaling)]
    if not rescaling:
        return activation_params(pixel_grid(0), 1.0)
    if len(rescaling) > 1:
        names = ", ".join(layer.name for layer in rescaling)
        raise ExperimentError(f"layers {names} all rescale; the pixels are normalised once, by one Rescaling")
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


class _Graph:
    """The layers of a functional model with the questions that the plan asks of them."""

    def __init__(self, model: tf_keras.Model):
        self.layers = model.layers
        self.outputs = set(model.output_names)
        self.parents = {layer.name: [p.name for p in parents(layer)] for layer in self.layers}
        self.by_name = {layer.name: layer for layer in self.layers}
        self.consumers = {layer.name: [] for layer in self.layers}
        for layer in self.layers:
            for parent in self.parents[layer.name]:
                self.consumers[parent].append(layer.name)
        self._roles: dict[str, str] = {}
        for layer in self.layers:
            clips = role(layer) == "fold" and not isinstance(layer, _layers.BatchNormalization)
            self._roles[layer.name] = "arithmetic" if clips and not self._clips_in_operator(layer.name) else role(layer)

    def role(self, name: str) -> str:
        """That of `plan.role`; but an activation function that no operator before it can apply is arithmetic."""
        return self._roles[name]

    def _clips_in_operator(self, name: str) -> bool:
        """Whether the operator before an activation layer applies it: a kernel's or an Add, read by nothing else."""
        (parent,) = self.parents[name]
        root = self.by_name[self.operator(parent)[0]]
        return len(self.consumers[parent]) == 1 and (role(root) == "compute" or isinstance(root, _layers.Add))

    def clips_alone(self, name: str) -> bool:
        """Whether the layer is an activation function that is an operator of its own."""
        return self.only_clips(name, ("relu", "relu6")) and self.role(name) == "arithmetic"

    def ends_operator(self, name: str) -> bool:
        """Whether the layer's output is a tensor of the integer graph that has a grid of its own."""
        consumers = self.consumers[name]
        if self.role(name) == "pass":
            return False
        if self.role(name) == "pixels":
            return not (len(consumers) == 1 and self.role(consumers[0]) == "pixels")
        return not (len(consumers) == 1 and self.role(consumers[0]) == "fold")

    def operator(self, name: str) -> list[str]:
        """The layers that are one operator with `name`, which ends it: root first."""
        chain = [name]
        while self.role(chain[0]) == "fold":
            chain.insert(0, self.parents[chain[0]][0])
        return chain

    def readers(self, name: str) -> list[str]:
        """Compute and arithmetic layers that read the tensor, directly or through pass layers."""
        found = []
        for consumer in self.consumers[name]:
            found += self.readers(consumer) if self.role(consumer) == "pass" else [consumer]
        return found

    def moved_by(self, name: str) -> list[str]:
        """The layers that only move integers between a layer's input and the layer that made it, last first."""
        (parent,) = self.parents[name]
        return [parent, *self.moved_by(parent)] if self.role(parent) == "pass" else []

    def only_computes(self, name: str) -> bool:
        """Whether all that is made of the layer's input or output are inputs of compute layers."""
        names = [name] if self.role(name) != "pass" else self.readers(name)
        return bool(names) and all(self.role(n) == "compute" for n in names)

    def only_clips(self, name: str, activations: tuple[str, ...]) -> bool:
        """Whether the layer does nothing but apply one of `activations`."""
        layer = self.by_name.get(name)
        return isinstance(layer, (_layers.ReLU, _layers.Activation)) and activation_name(layer) in activations

    def is_output(self, name: str) -> bool:
        return name in self.outputs or any(self.is_output(c) for c in self.consumers[name] if self.role(c) == "pass")

    def is_non_negative(self, name: str, zero_pixel: int) -> bool:
        if self.role(name) == "pixels":
            return zero_pixel == 0
        chain = self.operator(name)
        if any(activation_name(self.by_name[n]).startswith(("relu", "sigmoid")) for n in chain):
            return True
        return self.role(chain[0]) in ("arithmetic", "pass") and all(
            self.is_non_negative(parent, zero_pixel) for parent in self.parents[chain[0]]
        )


def problems(model: tf_keras.Model) -> list[str]:
    """What keeps a model from becoming an integer .tflite, a line each, with what to do."""
    found = []
    if isinstance(model, tf_keras.Sequential):
        return ["the model is Sequential; build it with the functional API, tf_keras.Model(inputs, outputs)"]
    for layer in model.layers:
        if type(layer) not in ROLES:
            known = ", ".join(kind.__name__ for kind in ROLES)
            found.append(f"layer {layer.name} is a {type(layer).__name__}; use one of {known}")
        elif len(layer.inbound_nodes) > 1:
            found.append(f"layer {layer.name} is used {len(layer.inbound_nodes)} times; give each use its own layer")
    if found:
        return found
    if len(model.outputs) != 1 or len(model.inputs) != 1:
        return [f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is expected"]
    graph = _Graph(model)
    for layer in model.layers:
        found += [f"layer {layer.name} {problem}" for problem in _layer_problems(graph, layer)]
    return found


def _layer_problems(graph: _Graph, layer) -> list[str]:
    found = []
    activation = activation_name(layer)
    if activation not in ACTIVATIONS and not is_sigmoid(layer):
        found.append(f"has activation {activation}; {HINTS.get(activation, 'use relu or relu6')}")
    if getattr(layer, "data_format", "channels_last") != "channels_last" and not isinstance(
        layer,
        _layers.ZeroPadding2D,  # padding of channels is written that way
    ):
        found.append("has data_format channels_first; use channels_last")
    if isinstance(layer, _layers.Dense) and len(layer.input_shape) != 2:
        found.append(f"reads a tensor of shape {layer.input_shape}; put Flatten or pooling before Dense")
    if role(layer) == "compute" and any(_pads_channels(graph.by_name[n]) for n in graph.moved_by(layer.name)):
        found.append("reads channels that a ZeroPadding2D makes, which TensorFlow cannot run; pad after it")
    if isinstance(layer, _layers.Add) and len(graph.parents[layer.name]) != 2:
        found.append(f"adds {len(graph.parents[layer.name])} tensors; add two at a time")
    if isinstance(layer, _layers.Multiply) and (problem := _multiply_problem(layer)):
        found.append(problem)
    if isinstance(layer, _layers.AveragePooling2D) and layer.padding != "valid":
        found.append(f"has padding {layer.padding}; use valid")
    if isinstance(layer, _layers.BatchNormalization) and list(layer.axis) != [len(layer.input_shape) - 1]:
        found.append(f"normalises axis {list(layer.axis)}; use the last axis, the channels")
    if isinstance(layer, _layers.ReLU) and (layer.negative_slope or layer.threshold):
        found.append("has a negative slope or a threshold; use plain ReLU")
    if isinstance(layer, _layers.Rescaling):
        (source,) = graph.parents[layer.name]
        if not isinstance(graph.by_name[source], _layers.InputLayer) or len(graph.consumers[source]) > 1:
            found.append("must be the one reader of the network's input: it normalises the pixels")
    if graph.role(layer.name) == "fold":
        chain = graph.operator(layer.name)
        root, before = graph.by_name[chain[0]], [graph.by_name[n] for n in chain[:-1]]
        if isinstance(layer, _layers.BatchNormalization):
            if len(before) != 1 or role(root) != "compute" or activation_name(root) != "linear":
                found.append("does not directly follow a convolution or Dense layer, so it cannot be folded")
            if not layer.center:
                found.append("has no beta, which takes up the rounding of the bias; use center=True")
        if any(len(graph.consumers[b.name]) > 1 for b in before):
            found.append(f"reads {before[-1].name}, whose output is read elsewhere too; it cannot be folded")
    return found


def _multiply_problem(layer) -> str | None:
    """Of two tensors that are multiplied one has the shape of the product, the other that or one value a channel."""
    if len(layer.input_shape) != 2:
        return f"multiplies {len(layer.input_shape)} tensors; multiply two at a time"
    shape = layer.output_shape
    gate = (None, *[1] * (len(shape) - 2), shape[-1])
    if any(s not in (shape, gate) for s in layer.input_shape) or shape not in layer.input_shape:
        return f"multiplies shapes {layer.input_shape}; one of them may have one value a channel, {gate}"
    return None


def _pads_channels(layer) -> bool:
    return isinstance(layer, _layers.ZeroPadding2D) and layer.data_format == "channels_first"


def _rules_by_layer(spec: QuantizationSpec, computes: list[str]) -> dict[str, dict[str, int | None]]:
    """What the rules say of each compute layer, None where nothing; of several rules the last one holds."""
    found = {name: {"weight_bits": None, "activation_bits": None} for name in computes}
    for rule in spec.rules:
        layers = [name for name in computes if re.fullmatch(rule.pattern, name)]
        if not layers:
            raise ExperimentError(f"--bits_rule={rule} fits no layer with a kernel; there are {', '.join(computes)}")
        for name in layers:
            for what in found[name]:
                if getattr(rule, what) is not None:
                    found[name][what] = getattr(rule, what)
    return found


def _scales_channels(layer) -> bool:
    return isinstance(layer, _layers.DepthwiseConv2D) and tuple(layer.kernel_size) == (1, 1)


def _ends(before: Mapping[str, list[str]], graph: _Graph) -> set[str]:
    """Compute layers that no other one comes before, on any path; a scale for each channel is none.

    Args:
      before: layer -> the layers next to it, towards the pixels for the first ones, towards the logits for the last.
    """
    computes = {n for n in graph.by_name if graph.role(n) == "compute" and not _scales_channels(graph.by_name[n])}
    met: dict[str, bool] = {}  # whether there is a compute layer before this one

    def meets(name: str) -> bool:
        if name not in met:
            met[name] = any(n in computes or meets(n) for n in before[name])
        return met[name]

    order = list(graph.by_name) if before is graph.parents else reversed(graph.by_name)
    return {name for name in order if not meets(name) and name in computes}  # in an order that needs no deep recursion


def make_plan(model: tf_keras.Model, spec: QuantizationSpec) -> QuantizationPlan:
    """Reads a float functional model and says where quantizers belong.

    Kernels: spec.weight_bits; first and last compute layers, those with no other before or behind them, have their own
    width, and spec.bits_rule goes before either. A tensor read by compute layers alone has the widest of their input
    bit widths. One that an addition, concatenation, product or average reads has spec.residual_bits. Compute layers
    that want fewer bits than it has read it through a requantization, one for each width. A depthwise convolution of
    1x1 is a scale for each channel: its kernel has 8 bits, and it reads residual tensors as they are. Logits have 8
    bits.

    Raises:
      ExperimentError: a layer that cannot become an integer operator, all of them are listed; or a rule of bit widths
        that no layer with a kernel fits.
    """
    if found := problems(model):
        raise ExperimentError("this student cannot be quantized: " + "; ".join(found))
    graph = _Graph(model)
    zero_pixel = -pixel_params(model).grid.qmin
    pixels = next(n for n in graph.by_name if graph.role(n) == "pixels" and graph.ends_operator(n))
    first, last = _ends(graph.parents, graph), _ends(graph.consumers, graph)
    computes = [name for name in graph.by_name if graph.role(name) == "compute"]
    rules = _rules_by_layer(spec, computes)

    def bits(name: str, what: str) -> int:
        """Of "weight_bits" or "activation_bits", those of a compute layer."""
        if (by_rule := rules[name][what]) is not None:
            return by_rule
        if name in last:
            return spec.last_layer_bits
        if name in first:
            return spec.first_layer_bits
        if _scales_channels(graph.by_name[name]):
            return {"weight_bits": MAX_BITS, "activation_bits": spec.residual_bits}[what]
        return getattr(spec, what)

    def input_bits(name: str) -> list[int]:
        """What the compute layers want that read a layer's output, or are the layer."""
        readers = graph.readers(name) if graph.role(name) != "compute" else [name]
        return [bits(r, "activation_bits") for r in readers if graph.role(r) == "compute"]

    weight_grids = {name: weight_grid(bits(name, "weight_bits"), spec.narrow_range) for name in computes}
    output_grids: dict[str, IntegerGrid] = {}
    requantized: dict[tuple[str, str], str] = {}
    fixed: dict[str, float] = {}
    carried: dict[str, int] = {}  # bit width of the integers a layer hands on

    for name in graph.by_name:
        if not (graph.ends_operator(name) or graph.role(name) == "pass"):
            continue

        def make_grid(num_bits: int, name: str = name) -> IntegerGrid:
            non_negative = graph.is_non_negative(name, zero_pixel)
            return unsigned_grid(num_bits) if non_negative else signed_grid(num_bits)

        if graph.role(name) == "pass":
            edge = (graph.parents[name][0], name)
            carried[name] = output_grids[requantized[edge]].num_bits if edge in requantized else carried[edge[0]]
        elif name == pixels:
            carried[name] = 8
            output_grids[name] = pixel_grid(zero_pixel)
        elif graph.is_output(name):
            carried[name] = LOGITS_BITS
            output_grids[name] = make_grid(LOGITS_BITS)
        else:
            only_computes = all(graph.only_computes(c) for c in graph.consumers[name])
            wanted = [b for c in graph.consumers[name] for b in input_bits(c)]
            carried[name] = max(wanted) if only_computes else spec.residual_bits
            output_grids[name] = make_grid(carried[name])
        if is_sigmoid(graph.by_name[name]):
            carried[name], output_grids[name] = SIGMOID_GRID.num_bits, SIGMOID_GRID
            fixed[name] = SIGMOID_INTERVAL
        narrower: dict[int, list[str]] = {}
        for consumer in graph.consumers[name]:
            if graph.only_computes(consumer) and max(input_bits(consumer)) < carried[name]:
                narrower.setdefault(max(input_bits(consumer)), []).append(consumer)
        for num_bits, consumers in narrower.items():
            requantize = name + (REQUANTIZE_SUFFIX if len(narrower) == 1 else f"_{num_bits}bit{REQUANTIZE_SUFFIX}")
            output_grids[requantize] = make_grid(num_bits)
            requantized.update({(name, consumer): requantize for consumer in consumers})

    read_by_kernels = {
        name
        for name in output_grids.keys() - {pixels}
        if graph.consumers.get(name)
        and all(graph.only_computes(c) and (name, c) not in requantized for c in graph.consumers[name])
    }
    carried = {}
    for name in read_by_kernels:
        made_by = graph.by_name[graph.parents[name][0] if graph.only_clips(name, ("relu", "relu6")) else name]
        if isinstance(made_by, _layers.BatchNormalization) and made_by.scale:
            carried[name] = made_by.name
    clipped_by_grid = frozenset(
        name
        for name, grid in output_grids.items()
        if grid.qmin == 0
        and graph.only_clips(name, ("relu", "relu6") if name in carried or graph.clips_alone(name) else ("relu",))
    )
    return QuantizationPlan(weight_grids, output_grids, requantized, clipped_by_grid, fixed, carried)
