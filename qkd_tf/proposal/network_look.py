"""What can be seen of a network before anything is chosen: whether it was trained, and on which pixels."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tf_keras
from tf_keras import layers

from qkd_tf import networks
from qkd_tf.experiment import NetworkSpec, PixelNormalization
from qkd_tf.models.copier import leaves
from qkd_tf.models.likeness import Subject
from qkd_tf.models.normalization import Affine, front

BUILDS = {"student": networks.build_student, "teacher": networks.build_teacher}
RAW = PixelNormalization((0.0,), (1.0,))
# What models are trained on that do not normalise pixels themselves.
RANGES: Mapping[str, PixelNormalization] = {
    "pixels of 0 to 255": RAW,
    "pixels of 0 to 1": PixelNormalization((0.0,), (255.0,)),
    "pixels of -1 to 1": PixelNormalization((127.5,), (127.5,)),
    "pixels normalised by ImageNet's mean and deviation": PixelNormalization(
        (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    ),
}
NUM_ANSWERS = 256  # training examples on which a trained network is tried
CLEAR = 10.0  # points of top-1 by which one range of pixels must exceed all others to be chosen


@dataclasses.dataclass(frozen=True)
class NetworkLook:
    """A network on examples of one shape.

    Attributes:
      spec: the network as the user named it.
      role: "student" or "teacher".
      subject: the model as given, and how it is fed; None for a zoo teacher.
      model: the one that would train.
      is_trained: whether its weights seem to be trained.
      augments: whether it is a student with augmentation layers, which training applies.
    """

    spec: NetworkSpec
    role: str
    subject: Subject | None
    model: tf_keras.Model
    is_trained: bool
    augments: bool = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def normalization(self) -> str:
        """How the user's own network normalises pixels itself, in words; "" if it does not."""
        if not self.spec.is_own or self.spec.reads_signals or self.is_fed:
            return ""
        _, affine = front(self.subject.reading.model)
        return str(affine) if affine else "in more than one place"

    @property
    def is_fed(self) -> bool:
        """Whether it expects normalised pixels."""
        return self.subject is not None and self.subject.feed is not None and not self.spec.reads_signals

    @property
    def has_untrained_file(self) -> bool:
        """Whether it is an untrained saved model: full_precision trains such a student, but not such a teacher."""
        return self.spec.is_saved and not self.is_trained

    @property
    def is_fed_unknown_pixels(self) -> bool:
        """Whether neither the user's network nor a flag says on which pixels it was trained."""
        told = self.spec.weights_normalization is not None or (self.spec.is_told and not self.spec.has_weights)
        return self.spec.is_own and self.is_trained and not told and self.is_fed

    @property
    def has_frozen_statistics(self) -> bool:
        """Whether it has BatchNormalization, and all of it is frozen."""
        found = [layer for layer in self.model.layers if isinstance(layer, layers.BatchNormalization)]
        return bool(found) and not any(layer.trainable for layer in found)

    @property
    def num_values(self) -> int:
        """Number of values that a student's layers output for one example."""
        return sum(math.prod(layer.output.shape[1:]) for layer in self.model.layers)

    def top1(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of examples [N, ...] uint8, in percent, that the given model classifies correctly."""
        return _percent(_right(self.subject, images, labels))

    def right(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Which of these examples it classifies correctly, [N] bool; in the best range if its pixels are unknown."""
        if not self.is_fed_unknown_pixels:
            return _right(self.subject, images, labels)
        return max(self._right_by_range(images, labels).values(), key=np.sum)

    def top1_by_range(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """`top1` by row of RANGES, for the rows that fit the number of channels."""
        return {title: _percent(right) for title, right in self._right_by_range(images, labels).items()}

    def _right_by_range(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        channels, found = images.shape[-1], {}
        for title, pixels in RANGES.items():
            if len(pixels.mean) in (1, channels):
                fed = dataclasses.replace(self.subject, feed=Affine.of(pixels, channels))
                found[title] = _right(fed, images, labels)
        return found


def looked_at(spec: NetworkSpec, role: str, shape: tuple[int, ...], num_classes: int) -> NetworkLook:
    """Builds or opens a network for examples of a shape.

    Raises:
      ExperimentError: as `networks.build_student` and `networks.build_teacher`, except for unknown pixels.
    """
    if spec.is_own and spec.has_weights and spec.weights_normalization is None:
        network = BUILDS[role](dataclasses.replace(spec, weights_normalization=RAW), shape, num_classes)
    else:
        network = BUILDS[role](spec, shape, num_classes)
    is_trained = seems_trained(network.subject.given) if spec.is_own else spec.has_weights
    return NetworkLook(spec, role, network.subject, network.model, is_trained, network.augmenting is not None)


def clear_range(top1: Mapping[str, float]) -> str | None:
    """The row of RANGES on which a model is far better than on all others; None if there is none."""
    best, second = sorted(top1, key=top1.get, reverse=True)[:2]
    return best if top1[best] - top1[second] >= CLEAR else None


def seems_trained(model: tf_keras.Model) -> bool:
    """Whether any bias, BatchNorm parameter or statistic has left its initial value, equal for all channels.

    A model without any of these counts as trained.
    """
    with_weights = [layer for layer in leaves(model) if not isinstance(layer, layers.Normalization)]
    vectors = [
        weight.numpy()
        for layer in with_weights
        for weight in layer.weights
        if len(weight.shape) == 1 and weight.dtype.is_floating
    ]
    return not vectors or not all(map(_is_first_value, vectors))


def _is_first_value(vector: np.ndarray) -> bool:
    return bool(np.all(vector == vector[0])) and (len(vector) > 1 or vector[0] in (0.0, 1.0))


def _right(subject: Subject, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    outputs = subject.outputs(images)
    if outputs.shape[-1] > 1:
        classes = outputs.argmax(-1)
    else:
        classes = outputs[:, 0] > (0.5 if subject.reading.head == "one sigmoid" else 0.0)
    return classes == labels


def _percent(right: np.ndarray) -> float:
    return 100.0 * float(np.mean(right))
