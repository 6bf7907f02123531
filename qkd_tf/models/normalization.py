"""How a network normalises pixels before anything else reads them, and how kernels absorb that."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import ExperimentError, PixelNormalization, require
from qkd_tf.models.copier import readers
from qkd_tf.models.training_only import TRAINING_ONLY, StandIn

WHOLE_PIXEL_DIGITS = 4  # -offset / scale of a whole pixel is one to rounding
NORMALIZING = (layers.Rescaling, layers.Normalization)


@dataclasses.dataclass(frozen=True)
class Affine:
    """scale * pixel + offset, with one value of each per channel."""

    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def identity(cls, channels: int) -> "Affine":
        return cls(np.ones(channels), np.zeros(channels))

    @classmethod
    def of(cls, normalization: PixelNormalization, channels: int) -> "Affine":
        """A normalisation as a map of pixels.

        Raises:
          ExperimentError: it has another number of channels.
        """
        num_values = len(normalization.mean)
        require(
            num_values in (1, channels),
            f"a network is given pixel means for {num_values} channels, the images have {channels}",
        )
        mean, std = (
            np.broadcast_to(np.asarray(v, np.float64), channels) for v in (normalization.mean, normalization.std)
        )
        return cls(1.0 / std, -mean / std)

    def then(self, scale: np.ndarray, offset: np.ndarray) -> "Affine":
        return Affine(self.scale * scale, self.offset * scale + offset)

    def after(self, other: "Affine") -> "Affine":
        """The map from a pixel's value under `other` to its value under this one."""
        scale = self.scale / other.scale
        return Affine(scale, self.offset - scale * other.offset)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels * self.scale + self.offset).astype(np.float32)

    @property
    def zero_pixels(self) -> np.ndarray:
        """The pixel that becomes 0.0, one per channel."""
        return np.round(-self.offset / self.scale, WHOLE_PIXEL_DIGITS)

    def nearest(self) -> PixelNormalization:
        """One scale and one whole zero pixel for all channels, as a .tflite input has them."""
        mean = float(np.clip(np.round(np.mean(self.zero_pixels)), 0, 254))
        return PixelNormalization((mean,), (float(np.mean(1.0 / np.abs(self.scale))),))

    def is_as(self, other: "Affine") -> bool:
        return bool(np.all(self.zero_pixels == other.zero_pixels) and np.allclose(self.scale, other.scale, rtol=1e-6))

    def __str__(self) -> str:
        def text(values: np.ndarray) -> str:
            told = values[:1] if np.all(values == values[0]) else values
            return ",".join(f"{value + 0.0:g}" for value in told)  # which is 0 for -0.0

        return f"mean {text(self.zero_pixels)} and deviation {text(1.0 / self.scale)}"


def front(model: tf_keras.Model) -> tuple[list, Affine | None]:
    """The layers at a flat model's beginning that normalise pixels, and their map; None if there are no such layers.

    Each is the only reader of the one before; layers that do nothing at inference may stand between them.

    Raises:
      ExperimentError: a scale of 0.
    """
    read_by = readers(model)
    affine, found, passed = Affine.identity(model.input_shape[-1]), [], []
    layer = pixels(model)
    while len(read_by(layer)) == 1:
        (layer,) = read_by(layer)
        if is_nothing(layer):
            passed.append(layer)
        elif isinstance(layer, NORMALIZING):
            affine = affine.then(*scale_and_offset(layer, len(affine.scale)))
            found += [*passed, layer]
            passed = []
        else:
            break
    if not found:
        return [], None
    if not (np.all(np.isfinite(affine.scale)) and np.all(affine.scale)):
        raise ExperimentError(f"layer {found[-1].name} scales pixels by 0 or by a number that is not finite")
    return found, affine


def normalizes(model: tf_keras.Model) -> bool:
    """Whether every path from a flat model's input meets a Rescaling or Normalization before any other weights.

    A layer for which this is unknown, such as a Lambda or a user's own, ends a path.
    """
    read_by = readers(model)

    def meets(layer) -> bool:
        if isinstance(layer, NORMALIZING):
            return True
        kind = type(layer)
        is_known = (
            isinstance(layer, StandIn) or kind.__module__.startswith("tf_keras.") and "Lambda" not in kind.__name__
        )
        passes = is_known and (not layer.weights or isinstance(layer, TRAINING_ONLY))
        return passes and bool(read_by(layer)) and all(map(meets, read_by(layer)))

    first = read_by(pixels(model))
    return bool(first) and all(map(meets, first))


def pixels(model: tf_keras.Model):
    """The input layer."""
    (layer,) = [layer for layer in model.layers if isinstance(layer, layers.InputLayer)]
    return layer


def is_nothing(layer) -> bool:
    """Whether a layer passes its input on unchanged at inference, wherever it is used."""
    if isinstance(layer, tf_keras.Sequential):
        return not layer.layers
    kind = isinstance(layer, (*TRAINING_ONLY, layers.Identity))
    return kind and all(node.input_shapes == node.output_shapes for node in layer.inbound_nodes)


def scale_and_offset(layer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of a Rescaling or Normalization layer, one per channel.

    Raises:
      ExperimentError: the layer has a value for each pixel or row.
    """
    if isinstance(layer, layers.Rescaling):
        pair = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    else:
        deviation = np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), tf_keras.backend.epsilon())
        mean = np.asarray(layer.mean, np.float64)
        pair = (deviation, mean) if layer.invert else (1.0 / deviation, -mean / deviation)
    try:
        one_each = [v.reshape(-1) if v.size in (1, channels) else v.reshape(channels) for v in pair]
    except ValueError:
        raise ExperimentError(
            f"layer {layer.name} normalises by values of shape {pair[0].shape}; one value, or one per channel, is "
            "expected; normalise the data by the others instead"
        ) from None
    return tuple(np.broadcast_to(v, channels) for v in one_each)


def conv_taking_up(kernel: np.ndarray, step: Affine) -> tuple[np.ndarray, np.ndarray]:
    """The kernel [h, w, C / groups, out] and output bias that absorb `step`, so that they read inputs without it."""
    groups = len(step.scale) // kernel.shape[2]
    scale, offset = (
        np.repeat(v.reshape(groups, -1).T, kernel.shape[3] // groups, axis=1) for v in (step.scale, step.offset)
    )
    return kernel * scale, np.einsum("hwio,io->o", kernel, offset)


def depthwise_taking_up(kernel: np.ndarray, step: Affine) -> tuple[np.ndarray, np.ndarray]:
    """The same for a kernel [h, w, C, multiplier]; outputs are ordered by channel, then multiplier."""
    return kernel * step.scale[:, np.newaxis], (kernel.sum((0, 1)) * step.offset[:, np.newaxis]).ravel()


def dense_taking_up(kernel: np.ndarray, step: Affine) -> tuple[np.ndarray, np.ndarray]:
    """The same for a kernel [H * W * C, out], channels last."""
    scale, offset = (np.resize(v, len(kernel)) for v in (step.scale, step.offset))
    return kernel * scale[:, np.newaxis], offset @ kernel


TAKING_UP: Mapping[type, Callable] = {
    layers.Conv2D: conv_taking_up,
    layers.DepthwiseConv2D: depthwise_taking_up,
    layers.Dense: dense_taking_up,
}
