"""Writes what the exporter needs: a plain Keras student, integers, and what they mean."""

import collections
import pathlib
from collections.abc import Iterator
from concurrent import futures

import numpy as np
from tqdm import tqdm

from qkd_tf import archive, disk_errors, durable
from qkd_tf.data import Splits
from qkd_tf.evaluate import predict_logits
from qkd_tf.quantization.grid import dequantize, quantize, save_params
from qkd_tf.quantization.integer_steps import put_on_integer_steps
from qkd_tf.quantization.integer_student import IntegerStudent
from qkd_tf.quantization.plan import producer
from qkd_tf.quantization.runtime_arithmetic import ARITHMETICS
from qkd_tf.quantization.scheme import QuantizedStudent
from qkd_tf.run_folder import RunFolder

NUM_CODE_IMAGES = 32
# Pixels whose logits are predicted in every runtime's integers: all of CIFAR-10's test split, or 204 of 224 x 224.
INTEGER_PIXELS = 10_000 * 32 * 32
# Pixels that a thread computes at a time: what it has in hand stays in the cache, and memory bounded.
THREAD_PIXELS = 32 * 32 * 32
NUM_THREADS = 4


def write(student: QuantizedStudent, splits: Splits, folder: RunFolder) -> float:
    """Puts the student on integer steps and writes `folder.handoff`, whole or not at all:

      student.keras          float model of standard Keras layers, kernels on their grid
      weights.npz            integer kernels, int8, by layer name, in Keras' layout
      weight_params.json     quantization parameters of each kernel
      tensor_params.json     parameters of each tensor, by name of the layer that hands it on
      labels.txt             class names, one a line
      test_images.npy, test_labels.npy   the test split, pixels uint8
      student_logits.npy     the quantized student's logits on it, as stored int8
      integer_logits.npz     the same as each runtime's integer arithmetic makes them, by row of ARITHMETICS; of the
                             first images alone where there are more than INTEGER_PIXELS
      integer_codes.npz      every tensor's integers on the first images, by "row/tensor"
      manifest.json          SHA-256 of each of them

    Returns:
      Top-1 of the quantized student on the test split, in percent.

    Raises:
      OSError: it cannot be written; the handoff of before is kept.
    """
    with durable.whole_folder(folder.handoff) as target:
        return _write(student, splits, target)


def _write(student: QuantizedStudent, splits: Splits, target: pathlib.Path) -> float:
    put_on_integer_steps(student)
    integers, weight_params = {}, {}
    for name, quantized in student.weights.items():
        params = quantized.params()
        integers[name] = quantize(quantized.kernel.numpy(), params)
        weight_params[name] = params
        layer = student.plain.get_layer(name)
        kernel, *rest = layer.get_weights()
        layer.set_weights([dequantize(integers[name], params).reshape(kernel.shape), *rest])
    with disk_errors.writing(target):
        student.plain.save(target / "student.keras")
    archive.save_npz(target / "weights.npz", integers)
    save_params(target / "weight_params.json", weight_params)
    pixels_name, pixel_params = student.pixels
    tensor_params = {pixels_name: pixel_params, **{name: q.params() for name, q in student.outputs.items()}}
    save_params(target / "tensor_params.json", tensor_params)
    (target / "labels.txt").write_text("\n".join(splits.label_names) + "\n")

    logits, labels = predict_logits(student.model, splits.test)
    _write_images(target / "test_images.npy", splits)
    np.save(target / "test_labels.npy", labels)
    (output_name,) = student.plain.output_names
    output = producer(student.plain.get_layer(output_name)).name
    np.save(target / "student_logits.npy", quantize(logits, tensor_params[output]))
    _write_predictions(IntegerStudent(student), output_name, splits, target)
    return 100.0 * float(np.mean(np.argmax(logits, axis=-1) == labels))


def _write_images(path: pathlib.Path, splits: Splits) -> None:
    """Batch by batch: the test split need not fit in memory."""
    shape = (splits.fingerprint["num_test"], *splits.image_shape)
    with open(path, "wb") as file:  # not a memory map, which dies without a word where the disk is full
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for images, _ in splits.test.as_numpy_iterator():
            file.write(images.tobytes())


def num_integer_images(splits: Splits) -> int:
    """Of how many test images integer logits are predicted."""
    height, width, _ = splits.image_shape
    return min(splits.fingerprint["num_test"], max(NUM_CODE_IMAGES, INTEGER_PIXELS // (height * width)))


def _write_predictions(student: IntegerStudent, output: str, splits: Splits, target: pathlib.Path) -> None:
    """What each runtime is going to compute, from the student alone."""
    codes, logits = collections.defaultdict(list), collections.defaultdict(list)
    num_images, num_done = num_integer_images(splits), 0
    bar = tqdm(desc="integer student", total=num_images, unit="image", mininterval=1)
    for predictions in _predictions(student, splits, num_images):
        for runtime, predicted in predictions.items():
            logits[runtime].append(predicted[output])
            if num_done < NUM_CODE_IMAGES:
                for name, values in predicted.items():
                    codes[f"{runtime}/{name}"].append(values[: NUM_CODE_IMAGES - num_done])
        num_done += len(predicted[output])
        bar.update(num_done - bar.n)
    bar.close()
    codes, logits = ({name: np.concatenate(parts) for name, parts in found.items()} for found in (codes, logits))
    archive.save_npz(target / "integer_codes.npz", codes, compressed=True)
    archive.save_npz(target / "integer_logits.npz", logits)


def _predictions(
    student: IntegerStudent, splits: Splits, num_images: int
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """Every tensor's integers by runtime and name, of a few images of the test split after the other."""

    def predict(images):
        return dict(zip(ARITHMETICS, student.predict_each(images, ARITHMETICS.values()), strict=True))

    height, width, _ = splits.image_shape
    size = max(1, THREAD_PIXELS // (height * width))
    batches = splits.test.unbatch().take(num_images).batch(NUM_THREADS * size)
    with futures.ThreadPoolExecutor(NUM_THREADS) as threads:
        for images, _ in batches.as_numpy_iterator():
            yield from threads.map(predict, [images[start : start + size] for start in range(0, len(images), size)])
