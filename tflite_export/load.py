"""Reads the folder that training hands over."""

import dataclasses
import pathlib

import numpy as np
import tf_keras

from qkd_tf.archive import first_line, load_npz
from qkd_tf.quantization.grid import TensorQuantParams, dequantize, load_params
from qkd_tf.quantization.runtime_arithmetic import ARITHMETICS
from qkd_tf.saved_model import load_model

NAMES = ("student.keras", "weights.npz", "weight_params.json", "tensor_params.json", "labels.txt")
PREDICTIONS = ("integer_logits.npz", "integer_codes.npz")
ARRAYS = ("test_images.npy", "test_labels.npy", "student_logits.npy")


class ExportError(ValueError):
    """What keeps a handoff from becoming a .tflite, told in one line."""


@dataclasses.dataclass(frozen=True)
class Handoff:
    """What crosses the door between training and export.

    Attributes:
      student: plain float Keras model; its kernels lie on their grids.
      weights: integer kernels, int8, by layer name, in Keras' layout.
      weight_params, tensor_params: quantization parameters of kernels, and of tensors by the name of
        the layer that hands them on.
      label_names: class names.
      test_images: [N, H, W, C] uint8 pixels; test_labels: [N].
      student_logits: [N, K] int8: the quantized Keras student's logits, as stored codes.
      integer_logits: the same as each runtime's arithmetic makes them, by row of ARITHMETICS; of the first images
        alone where the test split is large.
      integer_codes: int8 integers of every tensor on the first images, by row, then by tensor.
    """

    student: tf_keras.Model
    weights: dict[str, np.ndarray]
    weight_params: dict[str, TensorQuantParams]
    tensor_params: dict[str, TensorQuantParams]
    label_names: list[str]
    test_images: np.ndarray
    test_labels: np.ndarray
    student_logits: np.ndarray
    integer_logits: dict[str, np.ndarray]
    integer_codes: dict[str, dict[str, np.ndarray]]


def load_handoff(folder: pathlib.Path) -> Handoff:
    """Opens a handoff; images stay on disk until they are read.

    Raises:
      ExportError: a file of it is missing, or its files contradict each other.
    """
    missing = [name for name in NAMES + PREDICTIONS + ARRAYS if not (folder / name).exists()]
    if missing:
        raise ExportError(
            f"{folder} lacks {', '.join(missing)}; run python -m qkd_tf.train to its end first, it writes them"
        )
    try:
        return _load(folder)
    except ExportError:
        raise
    except Exception as error:  # whatever zip, HDF5, JSON, NumPy and Keras make of a stranger's files
        raise ExportError(f"{folder} cannot be read: {first_line(error)}; run python -m qkd_tf.train again") from error


def _load(folder: pathlib.Path) -> Handoff:
    integers, integer_logits, all_codes = (load_npz(folder / name) for name in ("weights.npz", *PREDICTIONS))
    if integer_logits.keys() != ARITHMETICS.keys():
        raise ExportError(f"{folder} is of another version; run python -m qkd_tf.train again, it writes it anew")
    integer_codes: dict[str, dict[str, np.ndarray]] = {runtime: {} for runtime in integer_logits}
    for path, codes in all_codes.items():
        runtime, _, tensor = path.partition("/")
        integer_codes[runtime][tensor] = codes
    images, labels, logits = (np.lib.format.open_memmap(folder / name, mode="r") for name in ARRAYS)
    student = load_model(folder / "student.keras")
    weight_params = load_params(folder / "weight_params.json")
    for name, codes in integers.items():
        kernel = student.get_layer(name).get_weights()[0]
        if not np.array_equal(dequantize(codes, weight_params[name]).reshape(kernel.shape), kernel):
            raise ExportError(f"{folder}: the integers of layer {name} in weights.npz are not those of student.keras")
    return Handoff(
        student=student,
        weights=integers,
        weight_params=weight_params,
        tensor_params=load_params(folder / "tensor_params.json"),
        label_names=(folder / "labels.txt").read_text().splitlines(),
        test_images=images,
        test_labels=np.asarray(labels),
        student_logits=logits,
        integer_logits=integer_logits,
        integer_codes=integer_codes,
    )
