"""The role of each kind of layer in the integer graph."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tf_keras

from qkd_tf.contract.batch_norm import BatchNorm
from qkd_tf.models.activations import activation_name

_layers = tf_keras.layers


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """The role of one kind of layer in the integer graph.

    Attributes:
      role: one of pixels      the network's input and its normalisation compute     has a quantized kernel and reads
        its input at the activation bit width fold        disappears into the operator before it arithmetic  computes on
        residual tensors and makes a new one pass        moves integers without changing them
      kernel: attribute that holds the kernel of a compute layer.
      operator: TFLite's name of the operator with that kernel.
    """

    role: str
    kernel: str = ""
    operator: str = ""


LAYERS: Mapping[type, LayerKind] = {
    _layers.InputLayer: LayerKind("pixels"),
    _layers.Rescaling: LayerKind("pixels"),
    _layers.Conv2D: LayerKind("compute", "kernel", "CONV_2D"),
    _layers.DepthwiseConv2D: LayerKind("compute", "depthwise_kernel", "DEPTHWISE_CONV_2D"),
    _layers.Dense: LayerKind("compute", "kernel", "FULLY_CONNECTED"),
    _layers.BatchNormalization: LayerKind("fold"),
    _layers.ReLU: LayerKind("fold"),
    _layers.Activation: LayerKind("fold"),
    _layers.Add: LayerKind("arithmetic"),
    _layers.Multiply: LayerKind("arithmetic"),
    _layers.Concatenate: LayerKind("arithmetic"),
    _layers.AveragePooling2D: LayerKind("arithmetic"),
    _layers.GlobalAveragePooling2D: LayerKind("arithmetic"),
    _layers.LeakyReLU: LayerKind("arithmetic"),
    _layers.PReLU: LayerKind("arithmetic"),
    _layers.Cropping2D: LayerKind("pass"),
    _layers.MaxPooling2D: LayerKind("pass"),
    _layers.UpSampling2D: LayerKind("pass"),
    _layers.ZeroPadding2D: LayerKind("pass"),
    _layers.Flatten: LayerKind("pass"),
    _layers.Reshape: LayerKind("pass"),
    _layers.Dropout: LayerKind("pass"),
}
ACTIVATIONS = ("linear", "relu", "relu6")
HINTS: Mapping[str, str] = {
    "softmax": "only a softmax at the very end is left out; remove this one",
    "sigmoid": "write it as a layer of its own, Activation('sigmoid')",
    "swish": "write it as Activation('sigmoid') and Multiply",
}


def parents(layer) -> list:
    """Layers whose outputs `layer` reads, in order."""
    inbound = layer.inbound_nodes[0].inbound_layers if layer.inbound_nodes else []
    return inbound if isinstance(inbound, list) else [inbound]


def role(layer) -> str:
    return "arithmetic" if is_sigmoid(layer) else LAYERS[type(layer)].role


def has_kernel(layer) -> bool:
    return type(layer) in LAYERS and bool(LAYERS[type(layer)].kernel)


def num_channel_axes(layer) -> int:
    """How many of a kernel's last axes are those of output channels."""
    return 2 if isinstance(layer, _layers.DepthwiseConv2D) else 1


def kernel_size(layer) -> int:
    """Number of weights of a compute layer's kernel."""
    return math.prod(getattr(layer, LAYERS[type(layer)].kernel).shape)


def is_sigmoid(layer) -> bool:
    """Whether a layer is only a sigmoid, which is an operator of its own, LOGISTIC."""
    return isinstance(layer, _layers.Activation) and activation_name(layer) == "sigmoid"


def has_slope(layer) -> bool:
    """Whether a layer multiplies negative values by a slope of its own."""
    return isinstance(layer, _layers.LeakyReLU | _layers.PReLU)


def averages_what_is_there(layer) -> bool:
    """Whether a layer averages over windows without the padding: an AVERAGE_POOL_2D, then a requantization."""
    return isinstance(layer, _layers.AveragePooling2D) and layer.padding == "same"


def producer(layer):
    """The layer that computed `layer`'s output: itself, or the one before layers that only move integers."""
    while role(layer) == "pass":
        (layer,) = parents(layer)
    return layer


def scales_channels(layer) -> bool:
    """Whether a layer is a depthwise 1x1 convolution: a scale for each channel."""
    return isinstance(layer, _layers.DepthwiseConv2D) and tuple(layer.kernel_size) == (1, 1)


def batch_norm_of(layer: tf_keras.layers.BatchNormalization) -> BatchNorm:
    """The present parameters of a BatchNormalization with a beta."""
    beta = layer.beta.numpy()
    gamma = layer.gamma.numpy() if layer.scale else np.ones_like(beta)
    return BatchNorm(gamma, beta, layer.moving_mean.numpy(), layer.moving_variance.numpy(), layer.epsilon)
