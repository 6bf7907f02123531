"""The first reading of a student: flat, in layers that the plan knows; others are refused by name.

It adds rows to `models.reading` for SeparableConv2D, swish and others that equal several layers, or none at inference.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tf_keras
from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from qkd_tf.console.counting import with_article
from qkd_tf.experiment import ExperimentError
from qkd_tf.models.activations import activation_name, is_relu, slope, upper_end, word
from qkd_tf.models.augmenting import at_front
from qkd_tf.models.copier import Call, Copier, called_in_training, calls, has_constants, maker
from qkd_tf.models.normalization import is_nothing
from qkd_tf.models.operations import as_layer
from qkd_tf.models.reading import Reading
from qkd_tf.models.remedies import OPERATIONS, REMEDIES
from qkd_tf.models.training_only import AUGMENTING, TRAINING_ONLY
from qkd_tf.quantization import one_axis
from qkd_tf.quantization.roles import ACTIVATIONS, LAYERS

_layers = tf_keras.layers
_AUGMENTING = "give --horizontal_flip, --crop_padding or --augment=package.module:function"


def notes_on_unused(unused: Sequence) -> list[str]:
    """What becomes of layers that Keras applies in training and this training does not."""
    named = {layer.name: f"{layer.name} ({type(layer).__name__})" for layer in unused}
    augmenting = [named.pop(layer.name) for layer in unused if isinstance(layer, AUGMENTING)]
    rows = (
        ("augmentation layers are", augmenting, f"to augment the training pictures, {_AUGMENTING}"),
        ("layers for training alone are", list(named.values()), "of such layers only Dropout is used in training"),
    )
    return [
        f"note: the student's {what} used neither in training nor in the file: {', '.join(layers)}; {remedy}"
        for what, layers, remedy in rows
        if layers
    ]


def unsupported(model: tf_keras.Model) -> dict[str, str]:
    """Layer name -> what the layer is and what to do, for each layer without an integer form in a .tflite."""
    told = {node.layer.name: what for node in calls(model) if (what := _refusal(node))}
    in_training = "is called with training=True, but a file only runs inference; leave the argument out"
    return told | {layer.name: in_training for layer in called_in_training(model)}


def _refusal(node) -> str:
    layer, kind = node.layer, type(node.layer)
    if as_layer(node) is not None or is_nothing(layer):
        return ""
    if kind not in LAYERS and kind not in StudentReading.rewrites:
        own = "" if kind.__module__.startswith("tf_keras.") else "custom layer "
        if kind.__name__ == "TFOpLambda":
            return f"is TensorFlow's {layer.get_config()['function']}; {OPERATIONS}"
        kinds = LAYERS.keys() | StudentReading.rewrites.keys() - {CustomScaleLayer}
        known = ", ".join(sorted(known.__name__ for known in kinds))
        return f"is {with_article(own + kind.__name__)}; {REMEDIES.get(kind.__name__, f'use one of {known}')}"
    if told := one_axis.problem(node):
        return told
    if kind is _layers.Permute and not _keeps_order(node):
        return f"reorders its input by {layer.dims}, which no supported operator does; store the data in that order"
    if has_constants(node):
        return "reads a constant beside tensors of the graph; make it a bias, or Rescaling on pixels"
    function = activation_name(layer)
    if function.startswith(("function", "layer", "relu(")) and not is_relu(function):
        return f"applies {function}; use relu, relu6, leaky_relu, swish, sigmoid or a softmax at the end"
    return ""


class StudentReading(Reading):
    """The first reading of a student: rewrites layers as others, and drops those that do nothing at inference.

    Attributes:
      augmenting: augmentation layers at the beginning, each with the map from the model's input to what it reads.
    """

    fused = ACTIVATIONS  # what an integer convolution applies itself

    def __init__(self, model: tf_keras.Model, input_shape: tuple[int, int, int], num_classes: int | None = None):
        uses = [node.layer for node in calls(model) if node.layer.weights]
        if again := [layer.name for layer in uses if sum(layer is other for other in uses) > 1]:
            raise ExperimentError(
                f"layer {again[0]} is used several times and has weights; give each use its own layer"
            )
        self._over_maps: list = []  # layers that calls refer to by their id
        self._unused: list[tuple] = []  # layers that Keras applies in training, and the tensors that they read
        super().__init__(model, input_shape, num_classes)
        found = [(layer, at_front(layer, tensor)) for layer, tensor in self._unused]
        self.augmenting = [(layer, reads) for layer, reads in found if reads is not None]
        self.notes += notes_on_unused([layer for layer, reads in found if reads is None])

    def shape_read(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The input shape, in which a series (T, C) is a map of one row."""
        return (1, *input_shape) if len(input_shape) == one_axis.SERIES_RANK - 1 else input_shape

    def call(self, call: Call):
        if is_nothing(call.layer) and not (type(call.layer) is _layers.Dropout and not call.in_inference):
            if isinstance(call.layer, TRAINING_ONLY) and not call.in_inference:
                self._unused.append((call.layer, call.inputs[0]))
            return call.inputs[0]
        call = self.over_maps(call)
        return self.depthwise(call) if _is_depthwise(call.layer) else super().call(call)

    def over_maps(self, call: Call) -> Call:
        """A call of a layer over one axis, as a call of the equal layer over maps; other calls as they are."""
        if (row := one_axis.row_for(call.node)) is None:
            return call
        inputs = call.inputs
        if one_axis.is_causal(call.layer):
            name = self.free_name(f"{call.name}_pad")
            inputs = [self.add(_layers.ZeroPadding2D(one_axis.causal_padding(call.layer), name=name), inputs)]
        self._over_maps.append(one_axis.over_maps(call.layer, row, tuple(inputs[0].shape)))
        return dataclasses.replace(call, layer=self._over_maps[-1], inputs=inputs)

    def operation(self, call: Call, layer: tf_keras.layers.Layer):
        if isinstance(layer, _layers.Activation | _layers.LeakyReLU):
            return self.activation(activation_name(layer), call.name, call.inputs)
        if isinstance(layer, _layers.Subtract | _layers.GlobalMaxPooling2D):
            return self.rewrites[type(layer)](self, dataclasses.replace(call, layer=layer))
        found = self._rescaled(call, layer) if isinstance(layer, _layers.Rescaling) else None
        return super().operation(call, layer) if found is None else found

    def rescaling(self, call: Call):
        found = self._rescaled(call, call.layer)
        return self.same(call) if found is None else found

    def _rescaled(self, call: Call, layer: _layers.Rescaling):
        """Moves a positive factor into relu(a * x + b), or into a product with that; None for anything else."""
        scale, offset = _scalars(layer)
        return self._times(call.inputs[0], scale, call.name) if scale > 0 and offset == 0 else None

    def _times(self, tensor, factor: float, name: str):
        """factor * tensor without another layer, if possible; its last layer gets the name.

        factor * relu6(a * x + b) = relu(factor * a * x + factor * b), which ends at 6 * factor. So a hard sigmoid is
        one operator, and rounds once.
        """
        last = maker(tensor)
        if isinstance(last, _layers.Multiply):
            for place, given in enumerate(inputs := list(last.input)):
                if (scaled := self._times(given, factor, self.free_name(f"{name}_gate"))) is not None:
                    inputs[place] = scaled
                    return self.add(_layers.Multiply(name=name), inputs)
            return None
        if not (isinstance(last, _layers.ReLU | _layers.Activation) and is_relu(activation_name(last))):
            return None
        before = maker(last.input)
        if not isinstance(before, _layers.Rescaling) or isinstance(maker(before.input), _layers.InputLayer):
            return None
        scale, offset = _scalars(before)
        if not math.isfinite(scale * offset):
            return None
        moved = _layers.Rescaling(factor * scale, factor * offset, name=self.free_name(f"{name}_scale"))
        end = upper_end(activation_name(last))
        x = self.add(moved, [before.input])
        return self.add(_layers.ReLU(end and factor * end, name=name), [x])

    def activation(self, function: str, name: str, inputs: list):
        if function == "linear":
            return inputs[0]
        if function == "swish":
            gate = self.add(_layers.Activation("sigmoid", name=self.free_name(f"{name}_sigmoid")), inputs)
            return self.add(_layers.Multiply(name=name), [inputs[0], gate])
        if function not in ACTIVATIONS and is_relu(function):
            return self.add(_layers.ReLU(upper_end(function), name=name), inputs)
        if (alpha := slope(function)) is not None:
            return self.add(_layers.LeakyReLU(alpha, name=name) if alpha else _layers.ReLU(name=name), inputs)
        if function == "hard_sigmoid":  # of tf_keras: clip(0.2 x + 0.5, 0, 1); that of Keras 3 comes written out
            x = self.add(_layers.Rescaling(0.2, 0.5, name=self.free_name(f"{name}_scale")), inputs)
            return self.add(_layers.ReLU(1.0, name=name), [x])
        return super().activation(function, name, inputs)

    def activation_layer(self, call: Call):
        return self.activation(activation_name(call.layer), call.name, call.inputs)

    def relu(self, call: Call):
        return self.activation_layer(call) if slope(activation_name(call.layer)) is not None else self.same(call)

    def softmax(self, call: Call):
        return self.activation_layer(call) if call.layer.axis == -1 else self.same(call)

    def separable(self, call: Call):
        """A depthwise convolution, then a 1x1 convolution with the bias and the activation."""
        layer = call.layer
        config = layer.get_config()
        depthwise_kernel, pointwise_kernel, *bias = layer.get_weights()
        kept = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "data_format", "trainable")
        depthwise = _layers.DepthwiseConv2D(
            **{key: config[key] for key in kept}, use_bias=False, name=self.free_name(f"{call.name}_depthwise")
        )
        pointwise = _layers.Conv2D(
            config["filters"], 1, use_bias=config["use_bias"], trainable=config["trainable"], name=call.name
        )
        x = self.add(depthwise, call.inputs, [depthwise_kernel])
        x = self.add(pointwise, [x], [pointwise_kernel, *bias])
        function = activation_name(layer)
        return (
            x
            if function == "linear"
            else self.activation(function, self.free_name(f"{call.name}_{word(function)}"), [x])
        )

    def depthwise(self, call: Call):
        """A depthwise convolution, for a Conv2D with a group for each channel."""
        layer = call.layer
        config, channels = layer.get_config(), call.inputs[0].shape[-1]
        kernel, *bias = layer.get_weights()
        kept = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", "trainable")
        depthwise = _layers.DepthwiseConv2D(
            **{key: config[key] for key in kept}, depth_multiplier=layer.filters // channels, name=call.name
        )
        x = self.add(depthwise, call.inputs, [kernel.reshape(*kernel.shape[:2], channels, -1), *bias])
        function = activation_name(layer)
        return (
            x
            if function == "linear"
            else self.activation(function, self.free_name(f"{call.name}_{word(function)}"), [x])
        )

    def batch_norm(self, call: Call):
        """A BatchNormalization with a beta, which takes the rounding of the bias."""
        if call.layer.center:
            return self.same(call)
        *gamma, mean, variance = call.layer.get_weights()
        return self.same(call, [*gamma, np.zeros_like(mean), mean, variance], center=True)

    def average_pool(self, call: Call):
        """Average pooling without padding, if "same" adds none."""
        layer = call.layer
        axes = zip(call.inputs[0].shape[1:3], layer.pool_size, layer.strides, strict=True)
        fits = layer.data_format == "channels_last" and not any(sum(same_padding(*axis)) for axis in axes)
        return self.same(call, **({"padding": "valid"} if fits else {}))

    def reshape(self, call: Call):
        """A Reshape to a map of one row, if a series is asked for."""
        if not one_axis.makes_series(call.node):
            return self.same(call)
        return self.add(_layers.Reshape((1, *call.layer.target_shape), name=call.name), call.inputs)

    def permute(self, call: Call):
        """A Reshape, for a Permute that moves no number in memory."""
        shape = tuple(call.node.output_shapes[1:])
        shape = (1, *shape) if one_axis.makes_series(call.node) else shape
        return self.add(_layers.Reshape(shape, name=call.name), call.inputs)

    def average(self, call: Call):
        """A sum, then its share."""
        total = self.add(_layers.Add(name=self.free_name(f"{call.name}_sum")), call.inputs)
        return self.add(_layers.Rescaling(1 / len(call.inputs), name=call.name), [total])

    def difference(self, call: Call):
        """x + (-1) * y."""
        x, y = call.inputs
        negative = self.add(_layers.Rescaling(-1.0, name=self.free_name(f"{call.name}_negative")), [y])
        return self.add(_layers.Add(name=call.name), [x, negative])

    def scaled_sum(self, call: Call):
        """x + scale * y, as in tf_keras.applications' InceptionResNetV2."""
        x, y = call.inputs
        scaled = _layers.Rescaling(call.layer.scale, name=self.free_name(f"{call.name}_scaled"))
        return self.add(_layers.Add(name=call.name), [x, self.add(scaled, [y])])

    def joined(self, call: Call):
        """Nothing, if there is only one tensor, which is passed on."""
        return self.same(call) if len(call.inputs) > 1 else call.inputs[0]

    def product(self, call: Call):
        """A product, in which a vector beside a map has one value per channel, as Keras' Multiply reads it."""
        if {len(x.shape) for x in call.inputs} == {2, one_axis.MAP_RANK}:
            inputs = [self._as_map(x, call.name) if len(x.shape) == 2 else x for x in call.inputs]
            call = dataclasses.replace(call, inputs=inputs)
        return self.joined(call)

    def _as_map(self, vector, name: str):
        reshape = _layers.Reshape((1, 1, vector.shape[-1]), name=self.free_name(f"{name}_per_channel"))
        return self.add(reshape, [vector])

    def global_max_pool(self, call: Call):
        """One window over the whole map."""
        layer = call.layer
        height = 1 if layer.data_format == "channels_last" else 2
        name = call.name if layer.keepdims else self.free_name(f"{call.name}_map")
        window = tuple(call.inputs[0].shape[height : height + 2])
        x = self.add(_layers.MaxPooling2D(window, data_format=layer.data_format, name=name), call.inputs)
        return x if layer.keepdims else self.add(_layers.Flatten(name=call.name), [x])

    rewrites: Mapping[type, Callable] = {
        CustomScaleLayer: scaled_sum,
        **dict.fromkeys((_layers.Add, _layers.Concatenate), joined),
        _layers.Multiply: product,
        _layers.Activation: activation_layer,
        _layers.Average: average,
        _layers.AveragePooling2D: average_pool,
        _layers.BatchNormalization: batch_norm,
        _layers.GlobalMaxPooling2D: global_max_pool,
        **dict.fromkeys((_layers.ReLU, _layers.LeakyReLU), relu),
        _layers.Normalization: Copier.same,
        _layers.Permute: permute,
        _layers.Rescaling: rescaling,
        _layers.Reshape: reshape,
        _layers.SeparableConv2D: separable,
        _layers.Softmax: softmax,
        _layers.Subtract: difference,
        **dict.fromkeys(one_axis.ONE_AXIS, Copier.same),  # of which `over_maps` leaves none
    }


def _is_depthwise(layer) -> bool:
    """Whether a Conv2D has a group for each channel, and strides that TensorFlow's depthwise kernels support."""
    return (
        isinstance(layer, _layers.Conv2D)
        and layer.data_format == "channels_last"
        and layer.groups > 1 == layer.kernel.shape[2]
        and layer.strides[0] == layer.strides[1]
    )


def _scalars(layer: _layers.Rescaling) -> tuple[float, float]:
    """Scale and offset; NaN for one that is not a single number."""
    return tuple(float(v) if np.ndim(v) == 0 else math.nan for v in (layer.scale, layer.offset))


def _keeps_order(node) -> bool:
    """Whether a Permute moves only axes of length one, so that all numbers stay where they are in memory."""
    shape = node.input_shapes[1:]
    moved = [axis for axis in node.layer.dims if shape[axis - 1] != 1]
    return None not in shape and moved == sorted(moved)


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Rows or columns, before and after, that "same" adds to a map of `size`."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2
