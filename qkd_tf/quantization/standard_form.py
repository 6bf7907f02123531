"""A user's float model in standard form: the same function of pixels, in layers that the plan knows.

Two readings of the layer graph. The first (`student_reading`) makes it flat, every layer used once and doing one thing.
The second, here, looks at neighbouring layers: the normalisation of pixels moves into the kernels that read them, a
  BatchNormalization without a kernel before it gets a kernel of ones, and sums of several tensors become sums of two.
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
    """A user's model in standard form, and how it was obtained.

    Attributes:
      model: flat functional model from pixels [N, H, W, C], 0..255, to logits.
      notes: what a user should know, one per line.
      reading: the first reading.
      feed: the normalisation that the user applies before the given model reads pixels; None for none.
      twin: builds the same model with the user's padding, which reads as 0.0 in each channel, where a .tflite has one
        zero pixel for all channels. Its `borders` says whether there is such padding.
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
    """A user's model in standard form; `model` is left unchanged.

    Args:
      model: functional or Sequential. Rescaling and Normalization at its beginning count as the normalisation with
        which its weights were trained; a model without any reads pixels normalised by `trained`.
      trained: the normalisation for a model that begins with none; None if unknown.
      own: the normalisation that such a model gets.
      keeps_own: whether a model that begins with one gets `own`, too; otherwise it keeps its own, as far as one scale
        and one whole zero pixel can express it.
      num_classes: classes of the data; None to take them from the model.
      reads_signals: whether the model reads signals: what `trained` makes of 8 bits, even if it begins with a
        normalisation of its own. The result has the signals' normalisation.

    Raises:
      ExperimentError: a layer has no integer form in a .tflite, a layer with weights is used twice, or nothing says how
        the model's pixels are normalised.
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
                "trained with by --student_weights_mean and --student_weights_std, such as 0 and 1 for raw pixels; a "
                "model that is not trained yet best begins with Rescaling(1 / 255)"
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
        borders = "; only borders differ, because padding is that mean" if shaped.has_borders else ""
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
    """A note: which normalisation replaces the model's own or that of its training, and why."""
    fits = given.is_as(Affine.of(given.nearest(), len(given.scale)))
    why = "" if fits else " (an 8-bit input has one scale, and a whole number as its mean)"
    return f"pixels are normalised by {mine} instead of {given}{why}"


class _Shaped(Copier):
    """The second reading, of a flat model: combines neighbouring layers into integer operators.

    Args:
      input_shape: shape of an example; for a series (T, C), which the flat model reads as a map (1, T, C).
      own: how the resulting model normalises pixels.
      trained: how the flat model normalises pixels, or expects them.
      exact_borders: whether padding of pixels reads as 0.0 in each channel, as in the flat model.

    Attributes:
      model: the result, with one Rescaling at the beginning.
      adapts: whether the two normalisations differ.
      takes_up: whether kernels absorb the difference; otherwise a separate layer does.
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
        """Kernels that read pixels, with the paddings before them; None if something else reads pixels."""
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
        """A kernel that reads pixels and absorbs the scale and offset of their normalisation.

        The offset goes into the bias, or, without one, into the moving mean of the BatchNormalization.
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
        """Padding by pixels that read as 0.0, if asked for and different from the padding of a .tflite."""
        values = -self._step.offset / self._step.scale
        if not np.any(np.round(values, 6)) or not np.any(padding):
            return None
        self.has_borders = True
        return BorderPadding(padding, values) if self._exact_borders else None

    def _scale(self, name: str, x, scale: np.ndarray, offset: np.ndarray):
        """scale * x + offset for each channel, as a depthwise 1x1 convolution."""
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
        """A BatchNormalization after a depthwise convolution of ones: together a scale and a bias for each channel."""
        name = self.free_name(f"{call.name}_scale")
        ones = _layers.DepthwiseConv2D(1, use_bias=False, trainable=False, name=name)
        scaled = self.add(ones, [x], [np.ones((1, 1, x.shape[-1], 1), np.float32)])
        changed = {"axis": -1} if len(call.inputs[0].shape) == 2 else {}
        return self.same(dataclasses.replace(call, inputs=[scaled]), **changed)

    def _as_map(self, name: str, x, apply: Callable):
        """Applies `apply` to a vector as a map of one pixel."""
        if len(x.shape) != 2:
            return apply(x)
        x = self.add(_layers.Reshape((1, 1, x.shape[-1]), name=self.free_name(f"{name}_map")), [x])
        return self.add(_layers.Flatten(name=self.free_name(f"{name}_flat")), [apply(x)])


class BorderPadding(_layers.Layer):
    """Pads each channel of a map by its own value.

    Args:
      padding: ((top, bottom), (left, right)).
      values: padding value of each channel, [C].
    """

    def __init__(self, padding, values: np.ndarray):
        super().__init__()
        self._padding, self._values = [(0, 0), *padding, (0, 0)], tf.constant(values, tf.float32)

    def call(self, x):
        return tf.pad(x - self._values, self._padding) + self._values
