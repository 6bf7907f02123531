"""Logits and top-1 of Keras models on a split."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tf_keras

from qkd_tf.process.portions import num_images, portions, values_of_tensors

TENSOR_BYTES = 128 << 20  # of a network's largest tensor; three or four of that size are in memory at a time


def predict_logits(model: tf_keras.Model, batches: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Runs `model` in inference mode over batches of (pixels, labels).

    Returns:
      (logits [N, K], labels [N]).
    """
    logits, labels = predict_each({"model": model}, batches)
    return logits["model"], labels


def predict_each(models: Mapping[str, tf_keras.Model], batches: Iterable) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`predict_logits` of several models in one pass: each picture is decoded only once.

    Returns:
      (logits [N, K] by name, labels [N]).
    """
    logits: dict[str, list[np.ndarray]] = {name: [] for name in models}
    labels = []
    for images, batch_labels in batches:
        for name, model in models.items():
            logits[name].append(predict(model, images))
        labels.append(np.asarray(batch_labels))
    return {name: np.concatenate(parts) for name, parts in logits.items()}, np.concatenate(labels)


def predict(model: tf_keras.Model, images: np.ndarray) -> np.ndarray:
    """Logits [n, K] of pixels [n, H, W, C], computed on fewer images at a time if a network's tensors are large."""
    of_image = np.dtype(np.float32).itemsize * max(values_of_tensors(model.layers), default=1)
    parts = portions(images, num_images(TENSOR_BYTES, of_image)) if len(images) else [images]
    return np.concatenate([model.predict_on_batch(part) for part in parts])


def top1(model: tf_keras.Model, batches: Iterable) -> float:
    """Share of images, in percent, whose largest logit is that of the label."""
    return top1_of(*predict_logits(model, batches))


def top1_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The same for logits [n, ..., K], which may cover only the first images, and labels [N, ...]."""
    return 100.0 * float(np.mean(np.argmax(logits, axis=-1) == labels[: len(logits)]))


@dataclasses.dataclass(frozen=True)
class IntegerTop1:
    """Top-1, in percent, of a student in integers on the first `num_images` of the test split."""

    top1: float
    num_images: int


@dataclasses.dataclass(frozen=True)
class StudentAccuracy:
    """A handed-over student's accuracy on the test split.

    Attributes:
      judge: the arithmetic in which its file is judged, a key of `integers`. In it all test images count.
      real_numbers_top1: top-1 in percent of the quantized student in training's arithmetic, float on grids.
      integers: arithmetic -> top-1 of the student in it.
      paired: `chance.paired` of the judge's integers and training's arithmetic.
    """

    judge: str
    real_numbers_top1: float
    integers: Mapping[str, IntegerTop1]
    paired: Mapping[str, Any]

    @property
    def top1(self) -> float:
        """The top-1 that counts: in the judge's integers, in percent."""
        return self.integers[self.judge].top1

    def __str__(self) -> str:
        integers, reals = f"{self.top1:.2f} % in the integers of {self.judge}", f"{self.real_numbers_top1:.2f} %"
        return f"student {integers}, {reals} in floating point"

    def note(self, trained: float | None) -> str:
        """A note on why one student has several numbers; "" if they are equal.

        Args:
          trained: top-1 on the same images at the end of the last phase, in percent; None if nothing was trained.
        """
        steps = [] if trained is None else [(trained, "as trained")]
        steps.append((self.real_numbers_top1, "once biases and scales are rounded to integer steps"))
        steps.append((self.top1, f"with the rounding of {self.judge} in addition, as in the file"))
        if len({f"{top1:.2f}" for top1, _ in steps}) == 1:
            return ""
        return f"note: the same student step by step: {', '.join(f'{top1:.2f} % {what}' for top1, what in steps)}"
