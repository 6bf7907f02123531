"""Writes what the exporter needs: a plain Keras student, its integers, and their meaning."""

import collections
import dataclasses
import math
import pathlib
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from qkd_tf.contract.chance import paired
from qkd_tf.contract.grid import dequantize, quantize, save_params
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS, int4_row, row_of
from qkd_tf.contract.targets import TARGETS
from qkd_tf.contract.weight_storage import form
from qkd_tf.data import Splits
from qkd_tf.evaluate import IntegerTop1, StudentAccuracy, predict, top1_of
from qkd_tf.experiment import ExperimentError, TargetSpec, require
from qkd_tf.outcome import handed_split
from qkd_tf.process.cpu import ARM64
from qkd_tf.process.portions import num_images, portions, values_of_image
from qkd_tf.quantization.integer_graph import IntegerGraph
from qkd_tf.quantization.integer_limits import require_within_limits
from qkd_tf.quantization.integer_steps import put_on_integer_steps
from qkd_tf.quantization.integer_student import IntegerStudent, stored_layers
from qkd_tf.quantization.roles import producer
from qkd_tf.quantization.scheme import QuantizedStudent
from qkd_tf.storage import archive, disk_errors, durable
from qkd_tf.storage.run_folder import RunFolder

# Images whose every tensor is handed over, and bytes that their integers may take in all arithmetics together. A single
# image is handed over whatever it takes.
NUM_CODE_IMAGES = 32
MAX_CODE_BYTES = 256 << 20
# Pixels whose logits are predicted in the integers of runtimes that do not judge: all of CIFAR-10's test split, or 204
# pictures of 224 x 224.
INTEGER_PIXELS = 10_000 * 32 * 32
# Bytes of the largest tensor, in 64 bits, that one thread computes at a time, so that it fits the cache; and that all
# threads may take together if a single image exceeds the former.
THREAD_BYTES = 8 << 20
THREADS_BYTES = 128 << 20
NUM_THREADS = 4


@dataclasses.dataclass(frozen=True)
class HandedOver:
    """A student on integer steps whose handoff is written: later code may read it but must not change it.

    Attributes:
      student: latent weights in `student.plain` too.
      accuracy: accuracy on the test split, in the judge's integers and in others.
    """

    student: QuantizedStudent
    accuracy: StudentAccuracy


def write(
    student: QuantizedStudent,
    splits: Splits,
    folder: RunFolder,
    device: TargetSpec | None = None,
    onlooker: Callable[[tf.Tensor, tf.Tensor], None] = lambda images, labels: None,
) -> HandedOver:
    """Puts the student on integer steps and writes `folder.handoff`, whole or not at all:

      student.keras          float model of standard Keras layers, kernels on their grid
      weights.npz            integer kernels, int8, by layer name, in Keras' layout
      weight_params.json     quantization parameters of each kernel
      tensor_params.json     parameters of each tensor, by name of the layer whose output it is
      labels.txt             class names, one per line
      test_images.npy        the test split's pixels, uint8; for a large split instead
      test_split.json        what reads it again, and the SHA-256 that proves it (`handed_split`)
      test_labels.npy        its labels
      student_logits.npy     the quantized student's logits on it in floating point, as stored int8
      integer_logits.npz     its logits in each runtime's integer arithmetic, by row of ARITHMETICS; on the whole
                             test split in the judge's, on its first INTEGER_PIXELS in others
      integer_codes.npz      every tensor's integers on the first `num_code_images`, by "row/tensor"
      manifest.json          SHA-256 of each of them

    The test split is read once and never kept in memory; `onlooker` sees it as it passes.

    Args:
      device: the device that the file is for, which decides the row of ARITHMETICS in which it is judged; None for a
        phone.
      onlooker: called with each batch of the test split, pixels [n, H, W, C] and labels [n].

    Raises:
      OSError: it cannot be written; an earlier handoff is kept.
      ExperimentError: no file can hold the student, or TensorFlow does not sum whole numbers exactly on this machine.
    """
    device = device or TargetSpec()
    put_on_integer_steps(student, TARGETS[device.target].rounds_twice)
    with durable.whole_folder(folder.handoff) as target:
        return HandedOver(student, _write(student, splits, target, device, onlooker))


def _write(
    student: QuantizedStudent, splits: Splits, target: pathlib.Path, device: TargetSpec, onlooker: Callable
) -> StudentAccuracy:
    integer_student = IntegerStudent(student)
    require_within_limits(integer_student)
    saved = student.float_copy()
    integers, weight_params = {}, {}
    for name, quantized in student.weights.items():
        params = quantized.params()
        integers[name] = quantize(quantized.values().numpy(), params)
        weight_params[name] = params
        layer = saved.get_layer(name)
        kernel, *rest = layer.get_weights()
        layer.set_weights([dequantize(integers[name], params).reshape(kernel.shape), *rest])
    with disk_errors.writing(target):
        saved.save(target / "student.keras")
    archive.save_npz(target / "weights.npz", integers)
    save_params(target / "weight_params.json", weight_params)
    pixels_name, pixel_params = student.pixels
    tensor_params = {pixels_name: pixel_params, **{name: q.params() for name, q in student.outputs.items()}}
    save_params(target / "tensor_params.json", tensor_params)
    (target / "labels.txt").write_text("\n".join(splits.label_names) + "\n")

    look = _Look(student, handed_split.passing(splits, target), splits.fingerprint["num_test"], onlooker)
    judge = judging_row(integer_student, device)
    predicted = _write_predictions(student, integer_student, look, target, judge)
    logits, labels = np.concatenate(look.logits), np.concatenate(look.labels)
    np.save(target / "test_labels.npy", labels)
    output = producer(student.plain.get_layer(look.output_name)).name
    stored = quantize(logits, tensor_params[output])
    np.save(target / "student_logits.npy", stored)
    integers = {row: IntegerTop1(top1_of(found, labels), len(found)) for row, found in predicted.items()}
    both = (np.argmax(found, axis=-1) for found in (predicted[judge], stored))
    return StudentAccuracy(judge, top1_of(logits, labels), integers, paired(*both, labels))


def judging_row(integers: IntegerStudent, device: TargetSpec) -> str:
    """The row of ARITHMETICS in which the target's judge computes the file on such a processor as this one."""
    target, convolutions, pointwise = TARGETS[device.target], False, False
    if device.storage != "int8":
        for kernel in integers.kernels.values():
            stored = form(kernel.stored, device.storage, target)
            convolutions |= stored.is_int4 and stored.operator != "FULLY_CONNECTED"
            pointwise |= stored.operator != kernel.stored.operator
    return row_of(target.judges[0], int4_row(platform.machine().lower() in ARM64), convolutions, pointwise)


class _Look:
    """The only pass over the test split: computes the floating-point student's logits for each batch.

    Args:
      batches: of (pixels [n, H, W, C] uint8, labels [n]).
      num_images: number of images in all batches.

    Attributes:
      logits, labels: those of the batches so far.
      first: the first images, in parts, up to the number on which runtimes other than the judge are predicted.
    """

    def __init__(self, student: QuantizedStudent, batches: handed_split.Batches, num_images: int, onlooker: Callable):
        self._model, self._batches, self._onlooker = student.model, batches, onlooker
        self._num_first = num_integer_images(student, num_images)
        (self.output_name,) = student.plain.output_names
        self.num_images = num_images
        self.logits: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.first: list[np.ndarray] = []

    def images(self) -> Iterator[np.ndarray]:
        """The images of each batch; call it once, and read it to the end."""
        num_left = self._num_first
        for images, labels in self._batches:
            self.logits.append(predict(self._model, images))
            self.labels.append(np.asarray(labels))
            self._onlooker(images, labels)
            images = np.asarray(images)
            if num_left:
                self.first.append(images[:num_left])
                num_left -= len(self.first[-1])
            yield images


def code_bytes_of_image(student: QuantizedStudent) -> int:
    """Bytes of one image in integer_codes.npz: int8 of every tensor, in each arithmetic."""
    return len(ARITHMETICS) * values_of_image(stored_layers(student))


def num_code_images(student: QuantizedStudent) -> int:
    """Number of test images for which every tensor's integers are handed over."""
    return min(NUM_CODE_IMAGES, num_images(MAX_CODE_BYTES, code_bytes_of_image(student)))


def num_integer_images(student: QuantizedStudent, num_test: int) -> int:
    """Number of test images whose integer logits are predicted for runtimes other than the judge."""
    num_pixels = math.prod(student.plain.input_shape[1:-1])
    return min(num_test, max(num_code_images(student), INTEGER_PIXELS // num_pixels))


def require_readable(student: QuantizedStudent, num_test: int = 0) -> None:
    """Call it before training, which at its end writes what the exporter must read.

    Args:
      num_test: images in the test split; 0 if not known yet.

    Raises:
      ExperimentError: a file of the handoff would have more bytes than are read.
    """
    (logits,) = (student.plain.get_layer(name) for name in student.plain.output_names)
    num_logits = num_test + (len(ARITHMETICS) - 1) * num_integer_images(student, num_test)
    for what, num_bytes, remedy in (
        (
            "the integers of all tensors of one image",
            num_code_images(student) * code_bytes_of_image(student),
            "smaller pictures (--image_size) or a smaller student",
        ),
        ("the logits", num_logits * values_of_image([logits]), "fewer test images or a student with fewer logits"),
    ):
        require(
            archive.holds(num_bytes),
            f"{what}, in each arithmetic of {', '.join(ARITHMETICS)}, would take {num_bytes:,} bytes in the handoff, "
            f"whose files may have at most {archive.MAX_BYTES:,} bytes; use {remedy}",
        )


def _write_predictions(
    student: QuantizedStudent, integer_student: IntegerStudent, look: _Look, target: pathlib.Path, judge: str
) -> dict[str, np.ndarray]:
    """Writes what each runtime will compute, from the student alone. Returns the logits by row of ARITHMETICS."""
    num_codes = min(num_code_images(student), look.num_images)
    rules = {row: integer_student.rules(arithmetic) for row, arithmetic in ARITHMETICS.items()}
    asked = [look.num_images] + [num_integer_images(student, look.num_images)] * (len({*rules.values()}) - 1)
    predicted = sum(number for number in asked if number > num_codes)  # the others the definition gives
    with tqdm(
        desc="computing the file's integers for every runtime",
        total=predicted,
        unit="image",
        unit_scale=look.num_images / max(1, predicted),  # an image is one, in however many arithmetics
        bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_fmt}]",
        mininterval=1,
        disable=not predicted,
    ) as bar:
        judged = _logits(integer_student, judge, look.images(), look.num_images, num_codes, bar)
        first = np.concatenate(look.first)
        codes = _first_codes(integer_student, first[:num_codes])
        known = {rules[judge]: _checked(judge, judged, codes[judge][look.output_name])}  # of rows that compute alike
        for row, tensors in codes.items():
            if rules[row] not in known:
                found = _logits(integer_student, row, [first], len(first), num_codes, bar)
                known[rules[row]] = _checked(row, found, tensors[look.output_name])
    named = {f"{row}/{name}": values for row, tensors in codes.items() for name, values in tensors.items()}
    archive.save_npz(target / "integer_codes.npz", named, compressed=True)
    logits = {row: known[rules[row]][: None if row == judge else len(first)] for row in codes}
    archive.save_npz(target / "integer_logits.npz", logits)
    return logits


def _first_codes(student: IntegerStudent, images: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Every tensor's integers by row of ARITHMETICS and name, by the definition, a few images per thread."""
    of_image = np.dtype(np.int64).itemsize * student.largest_tensor
    size = num_images(THREAD_BYTES, of_image)
    num_threads = min(NUM_THREADS, num_images(THREADS_BYTES, size * of_image))
    with futures.ThreadPoolExecutor(num_threads) as threads:
        parts = list(
            threads.map(lambda batch: student.predict_each(batch, ARITHMETICS.values()), portions(images, size))
        )
    known: dict[tuple, np.ndarray] = {}  # arithmetics share the tensors on which they agree
    return {
        row: {name: _joined([part[i][name] for part in parts], known) for name in parts[0][i]}
        for i, row in enumerate(ARITHMETICS)
    }


def _joined(parts: list[np.ndarray], known: dict[tuple, np.ndarray]) -> np.ndarray:
    """The parts as one array; `known` caches it by the ids of the parts, which must live as long."""
    key = tuple(map(id, parts))
    if key not in known:
        known[key] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return known[key]


def _logits(
    student: IntegerStudent, row: str, parts: Iterable[np.ndarray], num_images: int, num_codes: int, bar: tqdm
) -> list[np.ndarray]:
    """Logits of all images in one arithmetic, by the graph, in batches; none if the definition gives them all."""
    if num_images == num_codes:
        collections.deque(parts, maxlen=0)  # they pass all the same
        return []
    found = []
    for logits in IntegerGraph(student, ARITHMETICS[row], num_images).logits(parts):
        found.append(logits)
        bar.update(len(logits))
    return found


def _checked(row: str, found: list[np.ndarray], first: np.ndarray) -> np.ndarray:
    """The logits of all images; the graph must agree with the definition on the first ones."""
    if not found:
        return first
    logits = np.concatenate(found)
    if not np.array_equal(logits[: len(first)], first):
        raise ExperimentError(
            f"TensorFlow does not sum whole numbers exactly on this machine: in the arithmetic of {row} the student's "
            "graph has other logits than its definition in NumPy; report it with the processor's name, and let another "
            "machine finish the run"
        )
    return logits
