"""Reads the folder that training hands over."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tf_keras

from qkd_tf.contract.grid import TensorQuantParams, dequantize, load_params
from qkd_tf.contract.resuming import to_its_end
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS, LATER
from qkd_tf.storage import durable
from qkd_tf.storage.archive import first_line, load_npz, non_finite, open_npz
from qkd_tf.storage.saved_model import load_model
from tflite_export.export_error import ExportError
from tflite_export.split import Reread, UnreadableError, file_of, pixels, prove

NAMES = ("student.keras", "weights.npz", "weight_params.json", "tensor_params.json", "labels.txt")
PREDICTIONS = ("integer_logits.npz", "integer_codes.npz")
ARRAYS = ("test_labels.npy", "student_logits.npy")

MAX_TEXT = 64 << 20  # bytes of a text file; what training writes has kilobytes


@dataclasses.dataclass(frozen=True)
class Handoff:
    """Everything that training hands to the export.

    Attributes:
      student: plain float Keras model; its kernels lie on their grids.
      weights: integer kernels, int8, by layer name, in Keras' layout.
      weight_params, tensor_params: quantization parameters of kernels, and of tensors by the name of the layer that
        outputs them.
      label_names: class names.
      test_images: [N, H, W, C] uint8 pixels to slice and iterate over: a memory map or, for a large split, an object
        that reads them again. test_labels: [N].
      student_logits: [N, K] int8: the quantized Keras student's logits, as stored codes.
      integer_logits: the logits in each runtime's arithmetic, by row of ARITHMETICS. An earlier version's handoff may
        lack the rows in LATER. For a large test split, some cover only the first images.
      integer_codes: int8 integers of every tensor on the first images, by row, then by tensor; each is read on access.
    """

    student: tf_keras.Model
    weights: dict[str, np.ndarray]
    weight_params: dict[str, TensorQuantParams]
    tensor_params: dict[str, TensorQuantParams]
    label_names: list[str]
    test_images: np.ndarray | Reread
    test_labels: np.ndarray
    student_logits: np.ndarray
    integer_logits: dict[str, np.ndarray]
    integer_codes: Mapping[str, Mapping[str, np.ndarray]]


def load_handoff(folder: pathlib.Path) -> Handoff:
    """Opens a handoff; images and the integers of tensors stay on disk until they are read.

    Raises:
      ExportError: one of its files is missing, was changed or leads out of the folder; the student brings code; files
        contradict each other; or a test split that was too large to copy is no longer what training read.
    """
    names = (*NAMES, *PREDICTIONS, file_of(folder), *ARRAYS)
    missing = [name for name in names if not (folder / name).exists()]
    if missing and (folder / "handoff").is_dir():
        raise ExportError(f"{folder} is a run; give its handoff, {folder / 'handoff'}")
    if missing:
        raise ExportError(
            f"{folder} lacks {', '.join(missing)}, which the end of training writes; {to_its_end(folder.parent)}"
        )
    for path in (folder / name for name in names):
        if not (path.is_file() and path.resolve().is_relative_to(folder.resolve())):  # a pipe would never end
            raise ExportError(f"{path} is not a file in that folder; give the folder as training wrote it")
        if path.suffix in (".json", ".txt") and path.stat().st_size > MAX_TEXT:
            raise ExportError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_TEXT:,} are read")
    try:
        durable.check(folder)
        return _load(folder)
    except ExportError:
        raise
    except UnreadableError as error:
        raise ExportError(str(error)) from error
    except durable.DamageError as damage:
        raise ExportError(f"{damage}; {to_its_end(folder.parent)}, which writes it again") from damage
    except Exception as error:  # whatever zip, HDF5, JSON, NumPy and Keras make of a stranger's files
        raise ExportError(f"{folder} cannot be read: {first_line(error)}; {to_its_end(folder.parent)}") from error


def _load(folder: pathlib.Path) -> Handoff:
    integers, integer_logits = (load_npz(folder / name) for name in ("weights.npz", "integer_logits.npz"))
    integer_codes = open_npz(folder / "integer_codes.npz").rows()
    if not (integer_logits.keys() == integer_codes.keys() and integer_codes.keys() | LATER == set(ARITHMETICS)):
        raise ExportError(
            f"{folder} was written by another version; {to_its_end(folder.parent)}, which writes it again"
        )
    labels, logits = (np.lib.format.open_memmap(folder / name, mode="r") for name in ARRAYS)
    images = pixels(folder)
    student = load_model(folder / "student.keras")
    weight_params = load_params(folder / "weight_params.json")
    for name, codes in integers.items():
        kernel = student.get_layer(name).get_weights()[0]
        if not np.array_equal(dequantize(codes, weight_params[name]).reshape(kernel.shape), kernel):
            raise ExportError(f"{folder}: the integers of layer {name} in weights.npz are not those of student.keras")
    handoff = Handoff(
        student=student,
        weights=integers,
        weight_params=weight_params,
        tensor_params=load_params(folder / "tensor_params.json"),
        label_names=(folder / "labels.txt").read_text().removesuffix("\n").split("\n"),
        test_images=images,
        test_labels=np.asarray(labels),
        student_logits=logits,
        integer_logits=integer_logits,
        integer_codes=integer_codes,
    )
    for what, found, expected in _demands(handoff):
        if found != expected:
            raise ExportError(f"{folder} contradicts itself: {what} {found}; {expected} is expected")
    if isinstance(images, Reread):
        prove(folder, images)
    return handoff


def _demands(handoff: Handoff) -> Iterator[tuple[str, object, object]]:
    """The facts on which the parts of a handoff must agree: (what, found, expected)."""
    student, images, num_images = handoff.student, handoff.test_images, len(handoff.test_images)
    yield "the student has inputs and outputs", (len(student.inputs), len(student.outputs)), (1, 1)
    logits = student.output_shape[1:]
    yield (
        "the test split has",
        (images.dtype.name, images.shape),
        ("uint8", (max(1, num_images), *student.input_shape[1:])),
    )
    labels, num_classes = handoff.test_labels, logits[-1]
    yield "student.keras:", non_finite({weight.name: weight.numpy() for weight in student.weights}), ""
    yield "labels.txt has classes", len(handoff.label_names), num_classes
    yield "test_labels.npy has", labels.shape, (num_images, *(1 for _ in logits[1:]))
    yield "labels are integers", labels.dtype.kind in "iu", True
    yield "labels are in range", bool(labels.min() >= 0 and labels.max() < num_classes), True
    yield "weights.npz has layers", sorted(handoff.weights), sorted(handoff.weight_params)
    for name, codes in handoff.weights.items():
        yield f"layer {name} of weights.npz has", codes.dtype.name, "int8"
    found = handoff.student_logits
    yield "student_logits.npy has", (found.dtype.name, found.shape), ("int8", (num_images, *logits))
    for row, found in handoff.integer_logits.items():
        num_logits = min(max(1, len(found)), num_images)
        yield f"{row} of integer_logits.npz has", (found.dtype.name, found.shape), ("int8", (num_logits, *logits))
    first = next(iter(handoff.integer_codes["litert"].values()), np.zeros(0, np.int8))
    num_codes = min(max(1, len(first)), num_images)
    for row, tensors in handoff.integer_codes.items():
        yield f"{row} of integer_codes.npz lacks", sorted(handoff.tensor_params.keys() - tensors.keys()), []
        for name, found in tensors.items():
            expected = ("int8", (num_codes, *student.get_layer(name).output.shape[1:]))
            yield f"{row}/{name} of integer_codes.npz has", (found.dtype.name, found.shape), expected
