"""A user's float model in standard form: the same function of pixels, in layers of which the plan knows what they are.

Two readings of the layer graph. The first makes it flat, every layer used once and doing one thing: nested models are
opened, SeparableConv2D and swish are taken apart, a softmax at the end is left out. The second looks at neighbours:
a BatchNormalization that no kernel stands before gets one of ones, and sums of several tensors become sums of two.
Layers keep their names, and with them the weights that they have.
"""

import collections
from collections.abc import Callable, Mapping

import numpy as np
import tf_keras

from qkd_tf.experiment import ExperimentError, PixelNormalization
from qkd_tf.models.grouped import without_xla
from qkd_tf.models.weights import adapt_normalization
from qkd_tf.quantization.plan import KERNELS, ROLES, activation_name

_layers = tf_keras.layers
FUSED_ACTIVATIONS = ("linear", "relu", "relu6")  # what an integer convolution applies itself
WHOLE_PIXEL_DIGITS = 4  # -offset / scale of a whole pixel is one to rounding
REMEDIES: Mapping[str, str] = {
    **dict.fromkeys(
        ("Lambda", "TFOpLambda", "SlicingOpLambda", "ClassMethod"),
        "write it with Keras layers (Rescaling on pixels, ReLU, Add, Multiply, Concatenate, Reshape)",
    ),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM2D"), "use convolutions and pooling"),
    **dict.fromkeys(("LeakyReLU", "PReLU", "ELU", "ThresholdedReLU"), "use ReLU, ReLU(6) or Activation('swish')"),
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "UnitNormalization"),
        "use BatchNormalization, which becomes a part of the convolution",
    ),
    **dict.fromkeys(
        ("RandomFlip", "RandomCrop", "RandomRotation", "RandomZoom", "RandomContrast", "RandomBrightness"),
        "leave it out: pictures are cropped and mirrored by --crop_padding and --horizontal_flip",
    ),
    "Resizing": "leave it out: --image_size resizes pictures",
    "Subtract": "use Add, with the sign in the weights",
}


class UnsupportedLayers(ExperimentError):
    """Layers that have no place in an integer .tflite.

    Attributes:
      model: the user's.
      refusals: what each is and what to do, by layer name.
    """

    def __init__(self, model: tf_keras.Model, refusals: dict[str, str]):
        lines = "; ".join(f"layer {name} {what}" for name, what in refusals.items())
        super().__init__(f"{model.name} cannot become an integer .tflite: {lines}")
        self.model, self.refusals = model, refusals


def leaves(model: tf_keras.Model) -> list:
    """The layers of a model and of the models in it, without the models themselves."""
    found = []
    for layer in model.layers:
        found += leaves(layer) if isinstance(layer, tf_keras.Model) else [layer]
    return found


def unsupported(model: tf_keras.Model) -> dict[str, str]:
    """Layer name -> what the layer is and what to do, for each layer that has no place in an integer .tflite."""
    found = {}
    for layer in leaves(model):
        kind = type(layer)
        if kind not in ROLES and kind not in REWRITES:
            own = "custom layer " if not kind.__module__.startswith("tf_keras.") else ""
            known = ", ".join(sorted(known.__name__ for known in ROLES.keys() | REWRITES.keys()))
            found[layer.name] = f"is a {own}{kind.__name__}; {REMEDIES.get(kind.__name__, f'use one of {known}')}"
    return found


def standard_form(
    model: tf_keras.Model,
    input_shape: tuple[int, int, int],
    trained: PixelNormalization | None,
    own: PixelNormalization,
) -> tuple[tf_keras.Model, list[str]]:
    """A flat functional model from pixels [N, H, W, C], 0..255, to logits. `model` is left as it is.

    Args:
      model: functional or Sequential. Rescaling and Normalization at its beginning are taken for the normalisation
        that its weights were trained under; a model without any reads what `trained` makes of pixels.
      trained: the normalisation of a model that begins with none; None where it is not known.
      own: the normalisation that such a model shall have. A model that begins with its own keeps that as far
        as one scale and one whole zero pixel can be it.

    Returns:
      The model and what a user should know, a line each.

    Raises:
      ExperimentError: a layer that has no place in an integer .tflite, one with weights that is used twice, or a model
        of which nobody said how its pixels are normalised.
    """
    if found := unsupported(model):
        raise UnsupportedLayers(model, found)
    flat = _Flat(model, input_shape)
    inside = flat.normalization()
    if inside is not None:
        trained, own = inside, _nearest(inside)
    if trained is None:
        raise ExperimentError(
            f"{model.name} does not normalise its pixels itself; say which normalisation its weights were "
            "trained under, by --student_weights_mean and --student_weights_std, for instance 0 and 1 for raw pixels"
        )
    shaped = _Shaped(flat.model, own)
    if trained != own:
        adapt_normalization(shaped.model, trained, own)
        flat.notes.append(
            f"{model.name}: pixels are normalised by mean {_text(own.mean)} and deviation {_text(own.std)}, the first "
            "kernel is adapted to it"
            + ("" if trained.mean == own.mean else " (padding now reads as that mean: borders differ a little)")
        )
    return without_xla(shaped.model), flat.notes


def _text(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _nearest(trained: PixelNormalization) -> PixelNormalization:
    """One scale and one whole zero pixel for all channels, as a .tflite input has them."""
    mean = float(np.clip(np.round(np.mean(trained.mean)), 0, 254))
    return PixelNormalization((mean,), (float(np.mean(trained.std)),))


class _Copier:
    """Copies a model layer by layer; subclasses say what becomes of a layer.

    Attributes:
      notes: what a user should know, a line each.
    """

    def __init__(self):
        self.notes: list[str] = []
        self._names: set[str] = set()
        self._weights: list[tuple[tf_keras.layers.Layer, list[np.ndarray]]] = []

    def copy(self, model: tf_keras.Model, inputs: list, outer: str = "") -> list:
        """The tensors that stand for the model's outputs, where `inputs` are those for its inputs."""
        tensors = {id(old): new for old, new in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                layer = node.layer
                if isinstance(layer, _layers.InputLayer):
                    continue
                arguments = [tensors[id(tensor)] for tensor in node.keras_inputs]
                if isinstance(layer, tf_keras.Model):
                    outputs = self.copy(layer, arguments, layer.name)
                else:
                    outputs = [self.layer(layer, self._unused(layer.name, outer), arguments)]
                tensors |= {id(old): new for old, new in zip(_flat(node.outputs), outputs, strict=True)}
        return [tensors[id(tensor)] for tensor in model.outputs]

    def layer(self, layer, name: str, inputs: list):
        """The tensor that stands for a layer's output."""
        raise NotImplementedError

    def add(self, layer, inputs: list, weights: list[np.ndarray] = ()):
        """Applies a new layer that is to have these weights."""
        self._names.add(layer.name)
        output = layer(inputs if len(inputs) > 1 else inputs[0])
        self._weights.append((layer, list(weights)))
        return output

    def same(self, layer, name: str, inputs: list, **changed):
        """Applies a copy of a layer, with its weights."""
        weights = layer.get_weights()
        return self.add(type(layer).from_config({**layer.get_config(), "name": name, **changed}), inputs, weights)

    def set_weights(self) -> None:
        for layer, weights in self._weights:
            layer.set_weights(weights)

    def _unused(self, name: str, outer: str) -> str:
        while name in self._names:
            name = f"{outer or 'again'}_{name}"
        return name


class _Flat(_Copier):
    """The first reading: one model, each layer used once, each doing one thing.

    Attributes:
      model: what came of it, from the network's input on, normalisation included.
    """

    def __init__(self, model: tf_keras.Model, input_shape: tuple[int, int, int]):
        super().__init__()
        used = collections.Counter(id(layer) for layer in _uses(model) if layer.weights)
        if again := [layer.name for layer in leaves(model) if used[id(layer)] > 1]:
            raise ExperimentError(
                f"layer {again[0]} is used several times and has weights; give each use its own layer"
            )
        self._final = _final_layers(model)
        pixels = tf_keras.Input(input_shape, name="pixels")
        self._names.add("pixels")
        (output,) = self.copy(model, [pixels])
        self.model = tf_keras.Model(pixels, output, name=model.name)
        self.set_weights()

    def layer(self, layer, name: str, inputs: list):
        rewrite = REWRITES.get(type(layer))
        if rewrite is not None:
            return rewrite(self, layer, name, inputs)
        if _is_depthwise(layer):
            return self.depthwise(layer, name, inputs)
        if type(layer) in KERNELS and activation_name(layer) not in FUSED_ACTIVATIONS:
            x = self.same(layer, name, inputs, activation="linear")
            return self.activation(layer, f"{name}_{activation_name(layer)}", [x])
        return self.same(layer, name, inputs)

    def activation(self, layer, name: str, inputs: list, function: str = ""):
        """Activation functions that are no part of a convolution, and the softmax that the loss applies."""
        function = function or activation_name(layer)
        if function == "softmax" and id(layer) in self._final:
            self.notes.append(f"layer {layer.name}: the softmax at the end is left out; the file gives logits")
            return inputs[0]
        if function == "linear":
            return inputs[0]
        if function in ("swish", "silu"):  # one function, two names
            gate = self.add(_layers.Activation("sigmoid", name=f"{name}_sigmoid"), inputs)
            return self.add(_layers.Multiply(name=name), [inputs[0], gate])
        return self.add(_layers.Activation(function, name=name), inputs)

    def softmax(self, layer, name: str, inputs: list):
        return self.activation(layer, name, inputs, "softmax")

    def separable(self, layer, name: str, inputs: list):
        """A depthwise convolution, then one of 1x1 that has the bias and the activation."""
        config = layer.get_config()
        depthwise_kernel, pointwise_kernel, *bias = layer.get_weights()
        window = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "data_format")
        depthwise = _layers.DepthwiseConv2D(
            **{key: config[key] for key in window}, use_bias=False, name=f"{name}_depthwise"
        )
        pointwise = _layers.Conv2D(config["filters"], 1, use_bias=config["use_bias"], name=name)
        x = self.add(depthwise, inputs, [depthwise_kernel])
        x = self.add(pointwise, [x], [pointwise_kernel, *bias])
        function = activation_name(layer)
        return x if function == "linear" else self.activation(layer, f"{name}_{function}", [x])

    def depthwise(self, layer, name: str, inputs: list):
        """A depthwise convolution for one that has a group for each channel."""
        config = layer.get_config()
        kernel, *bias = layer.get_weights()
        shared = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", "trainable")
        channels = inputs[0].shape[-1]
        depthwise = _layers.DepthwiseConv2D(
            **{key: config[key] for key in shared}, depth_multiplier=layer.filters // channels, name=name
        )
        x = self.add(depthwise, inputs, [kernel.reshape(*kernel.shape[:2], channels, -1), *bias])
        function = activation_name(layer)
        return x if function == "linear" else self.activation(layer, f"{name}_{function}", [x])

    def batch_norm(self, layer, name: str, inputs: list):
        """With a beta, which is where the rounding of the bias goes."""
        if layer.center:
            return self.same(layer, name, inputs)
        *gamma, mean, variance = layer.get_weights()
        config = {**layer.get_config(), "name": name, "center": True}
        return self.add(type(layer).from_config(config), inputs, [*gamma, np.zeros_like(mean), mean, variance])

    def average_pool(self, layer, name: str, inputs: list):
        """Without padding, where "same" has none to add."""
        fits = layer.data_format == "channels_last" and not any(
            _same_padding(*axis) for axis in zip(inputs[0].shape[1:3], layer.pool_size, layer.strides, strict=True)
        )
        return self.same(layer, name, inputs, **({"padding": "valid"} if fits else {}))

    def global_max_pool(self, layer, name: str, inputs: list):
        """One window over the whole map."""
        height = 1 if layer.data_format == "channels_last" else 2
        pool_name = name if layer.keepdims else f"{name}_map"
        window = tuple(inputs[0].shape[height : height + 2])
        pool = _layers.MaxPooling2D(window, data_format=layer.data_format, name=pool_name)
        x = self.add(pool, inputs)
        return x if layer.keepdims else self.add(_layers.Flatten(name=name), [x])

    def normalization(self) -> PixelNormalization | None:
        """What Rescaling and Normalization layers at the network's beginning make of pixels; None for no such layer."""
        channels = self.model.input_shape[-1]
        scale, offset = np.ones(channels), np.zeros(channels)
        front = _front(self.model)
        for layer in front:
            if isinstance(layer, _layers.Rescaling):
                a, b = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
            else:
                deviation = np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), tf_keras.backend.epsilon())
                a = 1.0 / deviation.reshape(-1)
                b = -np.asarray(layer.mean, np.float64).reshape(-1) * a
            scale, offset = scale * a, offset * a + b
        if not front:
            return None
        mean, std = np.round(-offset / scale, WHOLE_PIXEL_DIGITS), 1.0 / scale
        if np.all(mean == mean[0]) and np.all(std == std[0]):
            mean, std = mean[:1], std[:1]
        return PixelNormalization(tuple(mean.tolist()), tuple(std.tolist()))


REWRITES: Mapping[type, Callable] = {
    _layers.Activation: _Flat.activation,
    _layers.AveragePooling2D: _Flat.average_pool,
    _layers.BatchNormalization: _Flat.batch_norm,
    _layers.GlobalMaxPooling2D: _Flat.global_max_pool,
    _layers.Normalization: _Copier.same,
    _layers.SeparableConv2D: _Flat.separable,
    _layers.Softmax: _Flat.softmax,
}


class _Shaped(_Copier):
    """The second reading, of a flat model: neighbours that make integer operators.

    Attributes:
      model: what came of it, with one Rescaling at the beginning.
    """

    def __init__(self, model: tf_keras.Model, own: PixelNormalization):
        super().__init__()
        self._front = {layer.name for layer in _front(model)}
        pixels = tf_keras.Input(model.input_shape[1:], name="pixels")
        self._names.add("pixels")
        (mean,), (std,) = own.mean, own.std
        self._normalization = _layers.Rescaling(1.0 / std, -mean / std, name=self._unused("normalization", "pixels"))
        (output,) = self.copy(model, [self.add(self._normalization, [pixels])])
        self.model = tf_keras.Model(pixels, output, name=model.name)
        self.set_weights()

    def layer(self, layer, name: str, inputs: list):
        if layer.name in self._front:
            return inputs[0]
        if isinstance(layer, _layers.BatchNormalization) and not _follows_kernel(layer):
            return self._scaled(layer, name, inputs[0])
        if isinstance(layer, _layers.Add) and len(inputs) > 2:
            x = inputs[0]
            for number, term in enumerate(inputs[1:-1], start=1):
                x = self.add(_layers.Add(name=f"{name}_{number}"), [x, term])
            inputs = [x, inputs[-1]]
        return self.same(layer, name, inputs)

    def _scaled(self, layer, name: str, x):
        """A depthwise convolution of ones before a BatchNormalization: together a scale and a bias for each channel."""
        flat = len(x.shape) == 2
        if flat:
            x = self.add(_layers.Reshape((1, 1, x.shape[-1]), name=f"{name}_map"), [x])
        ones = _layers.DepthwiseConv2D(1, use_bias=False, trainable=False, name=f"{name}_scale")
        x = self.add(ones, [x], [np.ones((1, 1, x.shape[-1], 1), np.float32)])
        x = self.same(layer, name, [x], **({"axis": -1} if flat else {}))
        return self.add(_layers.Flatten(name=f"{name}_flat"), [x]) if flat else x


def _is_depthwise(layer) -> bool:
    """Whether a Conv2D has a group for each channel, and strides that TensorFlow's depthwise kernels take."""
    return (
        isinstance(layer, _layers.Conv2D)
        and layer.data_format == "channels_last"
        and layer.groups > 1 == layer.kernel.shape[2]
        and layer.strides[0] == layer.strides[1]
    )


def _same_padding(size: int, window: int, stride: int) -> int:
    """Rows, or columns, that "same" adds to a map of `size`."""
    return max((-(-size // stride) - 1) * stride + window - size, 0)


def _follows_kernel(batch_norm) -> bool:
    """Whether it can be folded: a linear layer with a kernel stands before it, which nothing else reads."""
    before = batch_norm.inbound_nodes[0].inbound_layers
    return type(before) in KERNELS and activation_name(before) == "linear" and len(before.outbound_nodes) == 1


def _front(model: tf_keras.Model) -> list:
    """The layers at a flat model's beginning that normalise pixels, each the one reader of the one before."""
    found, (layer,) = [], [layer for layer in model.layers if isinstance(layer, _layers.InputLayer)]
    while len(layer.outbound_nodes) == 1:
        layer = layer.outbound_nodes[0].layer
        if not isinstance(layer, (_layers.Rescaling, _layers.Normalization)):
            break
        found.append(layer)
    return found


def _final_layers(model: tf_keras.Model) -> set[int]:
    """The layer that makes the output, in nested models too."""
    layer = model.outputs[0]._keras_history.layer
    return _final_layers(layer) if isinstance(layer, tf_keras.Model) else {id(layer)}


def _uses(model: tf_keras.Model) -> list:
    """Leaf layers, once for each use."""
    found = []
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            found += _uses(node.layer) if isinstance(node.layer, tf_keras.Model) else [node.layer]
    return found


def _flat(tensors) -> list:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]
