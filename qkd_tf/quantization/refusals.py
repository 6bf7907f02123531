"""Why a model in standard form cannot become an integer .tflite, and what to do about it."""

import collections
import re

import tf_keras

from qkd_tf.console.counting import counted, with_article
from qkd_tf.experiment import ExperimentError
from qkd_tf.models.activations import activation_name, is_relu
from qkd_tf.models.copier import leaves
from qkd_tf.quantization.layer_graph import LayerGraph
from qkd_tf.quantization.roles import ACTIVATIONS, HINTS, LAYERS, is_sigmoid, role

_layers = tf_keras.layers
LARGEST_SLOPE = 128  # XNNPACK's LEAKY_RELU multiplies by 256ths; of a slope below a 128th too little would be left


class UnsupportedLayers(ExperimentError):
    """Layers without an integer form in a .tflite.

    Args:
      lines: "layer NAME …", what each is and what to do; a line that begins in another way concerns the whole model.

    Attributes:
      model: the model that has them.
      refusals: layer name -> what it is and what to do.
    """

    def __init__(self, model: tf_keras.Model, lines: list[str]):
        super().__init__(f"{model.name} cannot become an integer .tflite: {'; '.join(_each_once(lines))}")
        self.model = model
        names = (layer.name for layer in leaves(model))
        self.refusals = {name: line for name in names for line in lines if line.startswith(f"layer {name} ")}


def _each_once(lines: list[str]) -> list[str]:
    """Of lines that differ in the layer's name alone, the first and how many more there are."""
    alike = collections.defaultdict(list)
    for line in lines:
        alike[re.sub(r"^layer \S+ ", "", line)].append(line)
    counts = ((first, len(others)) for first, *others in alike.values())
    return [first + (f" (and {counted(more, 'more layer')} like it)" if more else "") for first, more in counts]


def problems(model: tf_keras.Model) -> list[str]:
    """Why a model cannot become an integer .tflite, one reason per line, with what to do."""
    found = []
    if isinstance(model, tf_keras.Sequential):
        return ["the model is Sequential; build it with the functional API, tf_keras.Model(inputs, outputs)"]
    for layer in model.layers:
        if type(layer) not in LAYERS:
            known = ", ".join(kind.__name__ for kind in LAYERS)
            found.append(f"layer {layer.name} is {with_article(type(layer).__name__)}; use one of {known}")
        elif len(layer.inbound_nodes) > 1:
            found.append(f"layer {layer.name} is used {len(layer.inbound_nodes)} times; give each use its own layer")
    if found:
        return found
    if len(model.outputs) != 1 or len(model.inputs) != 1:
        return [
            f"the model has {counted(len(model.inputs), 'input')} and {counted(len(model.outputs), 'output')}; "
            "one of each is expected"
        ]
    graph = LayerGraph(model)
    for layer in model.layers:
        found += [f"layer {layer.name} {problem}" for problem in _layer_problems(graph, layer)]
    return found


def _layer_problems(graph: LayerGraph, layer) -> list[str]:
    found = []
    activation = activation_name(layer)
    bounded = isinstance(layer, _layers.ReLU) and is_relu(activation)
    sloped = isinstance(layer, _layers.LeakyReLU)
    if activation not in ACTIVATIONS and not bounded and not sloped and not is_sigmoid(layer):
        found.append(f"has activation {activation}; {HINTS.get(activation, 'use relu, relu6, swish or leaky_relu')}")
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
    if isinstance(layer, _layers.UpSampling2D) and layer.interpolation != "nearest":
        found.append(f"has interpolation {layer.interpolation}; use nearest, which moves integers as they are")
    if isinstance(layer, _layers.BatchNormalization) and list(layer.axis) != [len(layer.input_shape) - 1]:
        found.append(f"normalises axis {list(layer.axis)}; use the last axis, the channels")
    if isinstance(layer, _layers.ReLU) and (layer.negative_slope or layer.threshold):
        found.append("has a negative slope or a threshold; use ReLU or LeakyReLU")
    if sloped and not 1 / LARGEST_SLOPE <= abs(layer.alpha) < LARGEST_SLOPE:
        found.append(f"has slope {layer.alpha:g}; LiteRT takes 1/{LARGEST_SLOPE} to {LARGEST_SLOPE}: use 0.01, or ReLU")
    if isinstance(layer, _layers.Rescaling):
        (source,) = graph.parents[layer.name]
        if not isinstance(graph.by_name[source], _layers.InputLayer) or len(graph.consumers[source]) > 1:
            found.append("must be the only layer that reads the network's input, because it normalises the pixels")
    if graph.role(layer.name) == "fold":
        chain = graph.operator(layer.name)
        root, before = graph.by_name[chain[0]], [graph.by_name[n] for n in chain[:-1]]
        if isinstance(layer, _layers.BatchNormalization):
            if len(before) != 1 or role(root) != "compute" or activation_name(root) != "linear":
                found.append("does not directly follow a convolution or Dense layer, so it cannot be folded")
            if not layer.center:
                found.append("has no beta, which is needed for the rounding of the bias; use center=True")
        if any(len(graph.consumers[b.name]) > 1 for b in before):
            found.append(f"reads {before[-1].name}, whose output is read elsewhere too; it cannot be folded")
    return found


def _multiply_problem(layer) -> str | None:
    """One of two multiplied tensors must have the product's shape, the other that or one value per channel."""
    if len(layer.input_shape) != 2:
        return f"multiplies {len(layer.input_shape)} tensors; multiply two at a time"
    shape = layer.output_shape
    gate = (None, *[1] * (len(shape) - 2), shape[-1])
    if any(s not in (shape, gate) for s in layer.input_shape) or shape not in layer.input_shape:
        return f"multiplies shapes {layer.input_shape}; one of them may have one value per channel, {gate}"
    return None


def _pads_channels(layer) -> bool:
    return isinstance(layer, _layers.ZeroPadding2D) and layer.data_format == "channels_first"
