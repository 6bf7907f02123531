"""diagnosis.json: the quantization error of each tensor, and the classes that full precision gives the test split.

Only the report uses it.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.contract.grid import TensorQuantParams, dequantize, quantize
from qkd_tf.evaluate import predict
from qkd_tf.outcome.handoff import HandedOver
from qkd_tf.process.portions import num_images, portions, values_of_image
from qkd_tf.quantization.scheme import QuantizedStudent
from qkd_tf.storage.durable import write_whole
from qkd_tf.storage.run_folder import RunFolder

FORMAT = 1
NUM_IMAGES = 32
# Images that are compared at a time, and bytes that their activations may take, both in float and quantized.
BATCH = 4
HELD_BYTES = 128 << 20


class TensorError:
    """Sums, batch by batch, over a quantized tensor and the same tensor without rounding.

    SQNR = 10 log10(sum r^2 / sum (q - r)^2) in dB, cosine = sum(q r) / sqrt(sum q^2 sum r^2), r the reference.
    """

    def __init__(self, params: TensorQuantParams):
        self._params = params
        self._low = (params.grid.qmin - 0.5) * params.scale
        self._high = (params.grid.qmax + 0.5) * params.scale
        self._sums = np.zeros(5)  # of r^2, (q - r)^2, q r, q^2, and (q' - r)^2 of r on the tensor's grid
        self._size = self._clipped = 0
        self._lowest, self._highest = np.inf, -np.inf

    def add(self, quantized: np.ndarray, reference: np.ndarray) -> None:
        q, r = (np.asarray(x, np.float64).ravel() for x in (quantized, reference))
        own = dequantize(quantize(reference, self._params), self._params).ravel() - r
        self._sums += r @ r, (q - r) @ (q - r), q @ r, q @ q, own @ own
        self._size += r.size
        self._clipped += int(np.sum((r < self._low) | (r > self._high)))
        self._lowest, self._highest = min(self._lowest, r.min()), max(self._highest, r.max())

    def row(self) -> dict:
        """SQNR in dB, None without an error or a signal; cosine, None if a tensor is all 0.

        `own_sqnr` is that of the tensor's grid alone: of the reference rounded to it, without the error of earlier
        tensors. `lowest` and `highest` are those of the reference; `clipped` is the share of it, in percent, outside
        the grid.
        """
        signal, noise, product, square, own = self._sums
        return {
            "own_sqnr": _decibels(signal, own),
            "sqnr": _decibels(signal, noise),
            "cosine": float(product / np.sqrt(signal * square)) if signal and square else None,
            "lowest": float(self._lowest),
            "highest": float(self._highest),
            "clipped": 100.0 * self._clipped / self._size,
        }


def _decibels(signal: float, noise: float) -> float | None:
    return float(10 * np.log10(signal / noise)) if signal and noise else None


class Reference:
    """The full-precision network from which quantization began, and its classes on the test split, seen batch by batch.

    Args:
      student: the student before it is handed over, with full precision in `student.plain`.
      origin: `Experiment.full_precision_origin`, or "statistics" if a student with weights has BatchNorm
        statistics that were measured here. With a random start there is nothing to compare.
      as_given: the user's network, if `student.plain` computes something else; its classes are looked at then.

    Attributes:
      weights: the weights of `student.plain` at that time.
    """

    def __init__(self, student: QuantizedStudent, origin: str, as_given: tf_keras.Model | None = None):
        self.origin = origin
        self.weights = student.plain.get_weights()
        self._model = None if origin == "random" else as_given or student.float_copy()
        self._first: list[np.ndarray] = []
        self._classes: list[np.ndarray] = []
        self._right: list[np.ndarray] = []

    def look(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """The next batch of the test split, pixels [n, H, W, C] and labels [n, ...]."""
        if num_left := NUM_IMAGES - sum(map(len, self._first)):
            self._first.append(np.asarray(images)[:num_left])
        if self._model is not None:
            self._classes.append(np.argmax(predict(self._model, images), axis=-1))
            self._right.append(self._classes[-1] == np.asarray(labels))

    @property
    def images(self) -> np.ndarray:
        """The first NUM_IMAGES of the test split."""
        return np.concatenate(self._first)

    @property
    def classes(self) -> list[int] | None:
        """Class of each image; None for a random start, and if logits are a map."""
        return np.concatenate(self._classes).tolist() if self._classes and self._classes[0].ndim == 1 else None

    @property
    def top1(self) -> float | None:
        """Top-1 in percent; None for a random start."""
        return 100.0 * float(np.mean(np.concatenate(self._right))) if self._right else None


def write(handed_over: HandedOver, reference: Reference, folder: RunFolder) -> dict:
    """Writes `folder.diagnosis`.

    On the first images of the test split, each kernel and activation is compared twice: with the same weights without
    rounding, and with the full precision from which quantization began.

    Args:
      reference: one that has seen the whole test split.

    Returns:
      `origin`, and the `test_top1` of full precision in percent, None for a random start.
    """
    student = handed_over.student
    weights = {"unrounded": student.plain.get_weights()}
    if reference.origin != "random":
        weights["full_precision"] = reference.weights
    facts = {"origin": reference.origin, "test_top1": reference.top1}
    content = {
        "format": FORMAT,
        "full_precision": {**facts, "classes": reference.classes},
        "num_images": len(reference.images),
        "tensors": measure(student, reference.images, weights),
    }
    write_whole(folder.diagnosis, json.dumps(content) + "\n")
    return facts


def measure(
    student: QuantizedStudent, images: np.ndarray, references: Mapping[str, list[np.ndarray]]
) -> list[dict[str, Any]]:
    """The error of each quantized tensor relative to the same tensor in float students.

    Args:
      images: [N, H, W, C] pixels.
      references: weights of `student.plain` by name.

    Returns:
      A row for each kernel and activation, in the order of the model: `layer`, `tensor`, and for each reference, by its
      name, `TensorError.row`.
    """
    plain, names = student.float_copy(), list(student.outputs)
    errors = {(name, key): TensorError(student.outputs[name].params()) for name in names for key in references}
    quantized = tf_keras.Model(student.model.inputs, {name: student.tensor(name) for name in names})
    watched = tf_keras.Model(plain.inputs, {name: plain.get_layer(name).output for name in names})
    of_image = 2 * np.dtype(np.float32).itemsize * values_of_image(plain.get_layer(name) for name in names)
    for batch in portions(images, min(BATCH, num_images(HELD_BYTES, of_image))):
        got = quantized.predict_on_batch(batch)
        for key, weights in references.items():
            plain.set_weights(weights)
            expected = watched.predict_on_batch(batch)
            for name in names:
                errors[name, key].add(got[name], expected[name])
    kernels = {}
    for key, weights in references.items():
        plain.set_weights(weights)
        for name, tensor in student.weights.items():
            params = tensor.params()
            kernels[name, key] = TensorError(params)
            rounded = dequantize(quantize(tensor.values().numpy(), params), params)
            exact = tensor.quantizer.before(tf.constant(plain.get_layer(name).get_weights()[0]))
            kernels[name, key].add(rounded, np.asarray(exact))
    return [
        {"layer": layer, "tensor": tensor}
        | {key: (kernels if tensor == "kernel" else errors)[layer, key].row() for key in references}
        for layer, tensor, *_ in student.coverage()[1:]  # pixels are integers
    ]
