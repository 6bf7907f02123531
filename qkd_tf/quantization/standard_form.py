"""A user's float model in standard form: the same function of pixels, in layers of which the plan knows what they are.

Two readings of the layer graph. The first (`student_reading`) makes it flat, every layer used once and doing one thing.
The second, here, looks at neighbours: the normalisation of pixels moves into the kernels that read them, a
BatchNormalization that no kernel stands before gets one of ones, and sums of several tensors become sums of two.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.experiment import ExperimentError, PixelNormalization
from qkd_tf.models.activations import activation_name
from qkd_tf.models.copier import Call, Copier, maker, readers
from qkd_tf.models.normalization import NORMALIZING, TAKING_UP, Affine, front, pixels, scale_and_offset
from qkd_tf.models.reading import Reading
from qkd_tf.quantization.refusals import UnsupportedLayers
from qkd_tf.quantization.roles import has_kernel
from qkd_tf.quantization.student_reading import StudentReading, same_padding, unsupported

_layers = tf_keras.layers


@dataclasses.dataclass(frozen=True)
class StandardForm:
    """A user's model and what came of it.

    Attributes:
      model: flat functional model from pixels [N, H, W, C], 0..255, to logits.
      notes: what a user should know, one per line.
      reading: the first reading.
      feed: what a user makes of pixels before the model as it came reads them; None for nothing.
      twin: makes the same model with borders as the user's: padding that reads as 0.0 in each channel, where one zero
        pixel for all channels has to do in a .tflite. Its `borders` tells whether there are such.
    """

    model: tf_keras.Model
    notes: list[str]
    reading: Reading
    feed: Affine | None
    twin: Callable[[], tf_keras.Model]
    has_borders: bool


def standard_form(
    model: tf_keras.Model,
    input_shape: tuple[int, int, int],
    trained: PixelNormalization | None,
    own: PixelNormalization,
    keeps_own: bool = False,
    num_classes: int | None = None,
    reads_signals: bool = False,
) -> StandardForm:
    """A user's model in standard form; `model` is left as it is.

    Args:
      model: functional or Sequential. Rescaling and Normalization at its beginning are taken for the normalisation
        that its weights were trained under; a model without any reads what `trained` makes of pixels.
      trained: the normalisation of a model that begins with none; None where it is not known.
      own: the normalisation that such a model shall have.
      keeps_own: so shall a model that begins with one; else it keeps that, as far as one scale and one whole zero pixel
        can be it.
      num_classes: of the data; None where the model tells.
      reads_signals: the model reads what `trained` makes of 8 bits, also where it begins with a normalisation of its
        own; the one that comes of it has that of the signals.

    Raises:
      ExperimentError: a layer that has no place in an integer .tflite, one with weights that is used twice, or a model
        of which nobody said how its pixels are normalised.
    """
    if found := unsupported(model):
        raise UnsupportedLayers(model, [f"layer {name} {what}" for name, what in found.items()])
    reading = StudentReading(model, input_shape, num_classes)
    _, inside = front(reading.model)
    feed = None
    if inside is None or reads_signals:
        if trained is None:
            raise ExperimentError(
                f"{model.name} does not normalise its pixels itself; give the normalization that its weights were "
                "trained with by --student_weights_mean and --student_weights_std, such as 0 and 1 for raw pixels"
            )
        feed = Affine.of(trained, input_shape[-1])
        inside = feed if inside is None else feed.then(inside.scale, inside.offset)
    elif not keeps_own:
        own = inside.nearest()
    notes = list(reading.notes)
    shaped = _Shaped(reading.model, input_shape, own, inside)
    if shaped.adapts:
        mine = Affine.of(own, input_shape[-1])
        told = f"signals are read as {mine}" if reads_signals else _instead(mine, inside)
        where = "the first kernel is adapted" if shaped.takes_up else "then scaled per channel"
        borders = "; only borders differ a little, because padding is that mean" if shaped.has_borders else ""
        notes.append(f"{model.name}: {told}, {where}{borders}")
    return StandardForm(
        shaped.model,
        notes,
        reading,
        feed,
        lambda: _Shaped(reading.model, input_shape, own, inside, exact_borders=True).model,
        shaped.has_borders,
    )


def _instead(mine: Affine, given: Affine) -> str:
    """By what pixels are normalised in the place of what a model does, or was trained with, and why."""
    fits = given.is_as(Affine.of(given.nearest(), len(given.scale)))
    why = "" if fits else " (an 8-bit input has one scale, and a whole number as its mean)"
    return f"pixels are normalised by {mine} in the place of {given}{why}"


class _Shaped(Copier):
    """The second reading, of a flat model: neighbours that make integer operators.

    Args:
      input_shape: of an example; of a series (T, C), which the flat model reads as a map (1, T, C).
      own: how the model that comes of it normalises pixels.
      trained: how the flat model does, or reads them.
      exact_borders: padding of pixels reads as 0.0 in each channel, as in the flat model.

    Attributes:
      model: what came of it, with one Rescaling at the beginning.
      adapts: whether the two normalisations differ.
      takes_up: whether kernels take up what they differ by; else a layer of its own does.
      has_borders: whether padding of pixels, unless exact_borders, differs from that of the flat model.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        input_shape: tuple[int, ...],
        own: PixelNormalization,
        trained: Affine,
        exact_borders: bool = False,
    ):
        super().__init__()
        own_affine = Affine.of(own, model.input_shape[-1])
        self.adapts, self.has_borders = not trained.is_as(own_affine), False
        self._step, self._exact_borders = trained.after(own_affine), exact_borders
        self._readers = readers(model)
        self._front = {layer.name for layer in front(model)[0]}
        self._shifts: dict[str, np.ndarray] = {}  # of outputs, by the kernel's layer: its BatchNormalization has them
        paths = self._paths(next(reversed(front(model)[0]), pixels(model))) if self.adapts else []
        self.takes_up = paths is not None
        self._paths_by_name = {layer.name: layer for layer in paths or ()}

        tensor = tf_keras.Input(input_shape, name="pixels")
        self._names.add("pixels")
        (mean,), (std,) = own.mean, own.std
        normalization = _layers.Rescaling(1.0 / std, -mean / std, name=self.free_name("normalization", "pixels"))
        x = self.add(normalization, [tensor])
        if x.shape[1:] != model.input_shape[1:]:  # a series, which is a map of one row from here on
            x = self.add(_layers.Reshape(model.input_shape[1:], name=self.free_name("row")), [x])
        if self.adapts and not self.takes_up:
            x = self._scale(self.free_name("normalization_scale"), x, self._step.scale, self._step.offset)
        (output,) = self.copy(model, [x])
        self.model = self.finished(tensor, output, model.name)

    def _paths(self, layer) -> list | None:
        """Kernels that read pixels and the paddings before them; None where something else reads pixels."""
        found = []
        for reader in self._readers(layer):
            if type(reader) in TAKING_UP:
                found.append(reader)
                continue
            after = None
            if isinstance(reader, _layers.ZeroPadding2D) and reader.data_format == "channels_last":
                after = self._paths(reader)
                after = after and [reader, *after]
            elif isinstance(reader, _layers.Dropout):
                after = self._paths(reader)
            elif isinstance(reader, _layers.Flatten | _layers.Reshape) and len(reader.output_shape) == 2:
                unpadded = not isinstance(layer, _layers.ZeroPadding2D)
                dense = [r for r in self._readers(reader) if type(r) is _layers.Dense]
                after = dense if unpadded and len(dense) == len(self._readers(reader)) else None
            if not after:
                return None
            found += after
        return found

    def call(self, call: Call):
        layer = call.layer
        if layer.name in self._front:
            return call.inputs[0]
        if layer.name in self._paths_by_name:
            return self._pad(call) if isinstance(layer, _layers.ZeroPadding2D) else self._take_up(call)
        if isinstance(layer, NORMALIZING):
            return self._scale(call.name, call.inputs[0], *scale_and_offset(layer, layer.output_shape[-1]))
        if isinstance(layer, _layers.BatchNormalization):
            return self._batch_norm(call)
        if isinstance(layer, _layers.Add) and len(call.inputs) > 2:
            x = call.inputs[0]
            for number, term in enumerate(call.inputs[1:-1], start=1):
                x = self.add(_layers.Add(name=self.free_name(f"{call.name}_{number}")), [x, term])
            return self.add(_layers.Add(name=call.name), [x, call.inputs[-1]])
        return self.same(call)

    def _take_up(self, call: Call):
        """A kernel that reads pixels, and what they were trained to be multiplied by and added to.

        What is added goes into the bias, or into the moving mean of the BatchNormalization of a layer without one.
        """
        layer, changed = call.layer, {}
        kernel, *bias = layer.get_weights()
        kernel, shift = TAKING_UP[type(layer)](kernel, self._step)
        after = self._readers(layer)
        if not bias and len(after) == 1 and isinstance(after[0], _layers.BatchNormalization):
            self._shifts[layer.name] = shift
            weights = [kernel]
        elif bias or np.any(shift):
            changed["use_bias"] = True
            weights = [kernel, shift + (bias[0] if bias else 0.0)]
        else:
            weights = [kernel]
        if getattr(layer, "padding", "valid") == "same":
            dilated = [(size - 1) * rate + 1 for size, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
            axes = zip(call.inputs[0].shape[1:3], dilated, layer.strides, strict=True)
            if padding := self._border([same_padding(*axis) for axis in axes]):
                call, changed["padding"] = dataclasses.replace(call, inputs=[padding(call.inputs[0])]), "valid"
        return self.same(call, weights, **changed)

    def _pad(self, call: Call):
        padding = self._border(call.layer.padding)
        return padding(call.inputs[0]) if padding else self.same(call)

    def _border(self, padding) -> "BorderPadding | None":
        """Padding by pixels that read as 0.0, where they are asked for and others than those of a .tflite."""
        values = -self._step.offset / self._step.scale
        if not np.any(np.round(values, 6)) or not np.any(padding):
            return None
        self.has_borders = True
        return BorderPadding(padding, values) if self._exact_borders else None

    def _scale(self, name: str, x, scale: np.ndarray, offset: np.ndarray):
        """scale * x + offset for each channel, as a depthwise convolution of 1x1."""
        channels = x.shape[-1]
        weights = [np.broadcast_to(scale, channels).reshape(1, 1, -1, 1), np.broadcast_to(offset, channels)]
        return self._as_map(
            name, x, lambda x: self.add(_layers.DepthwiseConv2D(1, trainable=False, name=name), [x], weights)
        )

    def _batch_norm(self, call: Call):
        (before,) = call.layer.inbound_nodes[0].keras_inputs
        before = maker(before)
        if has_kernel(before) and activation_name(before) == "linear" and len(self._readers(before)) == 1:
            *trained, mean, variance = call.layer.get_weights()
            return self.same(call, [*trained, mean - self._shifts.get(before.name, np.float32(0)), variance])
        return self._as_map(call.name, call.inputs[0], lambda x: self._batch_norm_alone(call, x))

    def _batch_norm_alone(self, call: Call, x):
        """Behind a depthwise convolution of ones: together a scale and a bias for each channel."""
        name = self.free_name(f"{call.name}_scale")
        ones = _layers.DepthwiseConv2D(1, use_bias=False, trainable=False, name=name)
        scaled = self.add(ones, [x], [np.ones((1, 1, x.shape[-1], 1), np.float32)])
        changed = {"axis": -1} if len(call.inputs[0].shape) == 2 else {}
        return self.same(dataclasses.replace(call, inputs=[scaled]), **changed)

    def _as_map(self, name: str, x, apply: Callable):
        """What `apply` makes of a vector as of a map of one pixel."""
        if len(x.shape) != 2:
            return apply(x)
        x = self.add(_layers.Reshape((1, 1, x.shape[-1]), name=self.free_name(f"{name}_map")), [x])
        return self.add(_layers.Flatten(name=self.free_name(f"{name}_flat")), [apply(x)])


class BorderPadding(_layers.Layer):
    """Pads maps by a value of its own in each channel.

    Args:
      padding: ((top, bottom), (left, right)).
      values: [C].
    """

    def __init__(self, padding, values: np.ndarray):
        super().__init__()
        self._padding, self._values = [(0, 0), *padding, (0, 0)], tf.constant(values, tf.float32)

    def call(self, x):
        return tf.pad(x - self._values, self._padding) + self._values
