"""What each kind of layer is to the integer graph."""

from collections.abc import Mapping

import tf_keras

from qkd_tf.models.activations import activation_name

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


def scales_channels(layer) -> bool:
    """Whether a layer is a depthwise convolution of 1x1: a scale for each channel."""
    return isinstance(layer, _layers.DepthwiseConv2D) and tuple(layer.kernel_size) == (1, 1)
