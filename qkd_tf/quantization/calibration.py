"""First intervals, from the weights and from a few batches of activations."""

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.contract.grid import IntegerGrid
from qkd_tf.experiment import ExperimentError
from qkd_tf.process.portions import num_images, portions, values_of_image
from qkd_tf.quantization.roles import parents, producer
from qkd_tf.quantization.scheme import PlannedStudent, QuantizedTensor

SAMPLES_PER_BATCH = 65_536
# Of all tensors that are looked at together. It takes a batch of 128 of MobileNetV2 at CIFAR's size whole: in parts, a
# float tensor's last bits may be others.
WATCHED_BYTES = 1 << 30
STEPS = 64  # most steps of an output that one step of an all-zero input may be; operators support a few hundred
MSE_CANDIDATES = 100


def minmax_interval(x: np.ndarray, grid: IntegerGrid) -> float:
    """The smallest interval with which the grid covers all of x, so that nothing is clipped.

    For a signed grid that is max|x| / qmax, although it may have one more integer below 0.
    """
    if 0 < -grid.qmin < grid.qmax:
        return max(float(np.max(x)) / grid.qmax, float(np.min(x)) / grid.qmin, 0.0)
    return float(np.max(np.abs(x))) / grid.qmax


def lsq_interval(x: np.ndarray, grid: IntegerGrid) -> float:
    """2 * mean|x| / sqrt(qmax) (LSQ section 2.1)."""
    return 2.0 * float(np.mean(np.abs(x))) / float(np.sqrt(grid.qmax))


def mse_interval(x: np.ndarray, grid: IntegerGrid) -> float:
    """Of MSE_CANDIDATES shares of the min-max interval, the one with the smallest mean square error."""
    if not np.any(x):
        return 0.0
    candidates = minmax_interval(x, grid) * np.arange(1, MSE_CANDIDATES + 1) / MSE_CANDIDATES
    q = np.empty(np.shape(x), candidates.dtype)  # again and again: most of the time would go into new memory

    def error(interval: float) -> float:
        np.divide(x, interval, out=q)
        np.round(q, out=q)
        np.clip(q, grid.qmin, grid.qmax, out=q)
        np.multiply(q, interval, out=q)
        np.subtract(q, x, out=q)
        return float(np.mean(np.square(q, out=q)))

    return float(min(candidates, key=error))


class Sample:
    """What an init sees of one tensor in a batch, collected part by part: all values if there are at most `num_kept`,
    else that many, drawn with repetition, and the smallest and largest one.

    Args:
      num_values: values of the tensor over the whole batch.
    """

    def __init__(self, num_values: int, num_kept: int, rng: np.random.Generator):
        self._is_whole = num_values <= num_kept
        self._places = np.arange(num_values) if self._is_whole else rng.integers(0, num_values, num_kept)
        self._picked = np.empty(self._places.shape, np.float32)
        self._low, self._high = np.float32(np.inf), np.float32(-np.inf)
        self._num_seen = 0

    def add(self, values: np.ndarray) -> None:
        """The next values of the tensor, [n] float32."""
        places = self._places - self._num_seen
        inside = (0 <= places) & (places < values.size)
        self._picked[inside] = values[places[inside]]
        self._low, self._high = np.minimum(self._low, values.min()), np.maximum(self._high, values.max())
        self._num_seen += values.size

    def values(self) -> np.ndarray:
        """[n] float32; call it after all parts were added."""
        return self._picked if self._is_whole else np.append(self._picked, [self._low, self._high])


INITS: Mapping[str, Callable[[np.ndarray, IntegerGrid], float]] = {
    "minmax": minmax_interval,
    "lsq": lsq_interval,
    "mse": mse_interval,
}


def calibrate(
    student: PlannedStudent,
    images: Iterable[np.ndarray],
    init: str,
    seed: int = 0,
    only: Collection[str] | None = None,
) -> None:
    """Sets every interval from the float student's weights and its activations on `images`.

    Args:
      images: batches [N, H, W, C] of pixels; a large batch is computed in parts that fit WATCHED_BYTES. Min-max sees
        all values; the other inits see SAMPLES_PER_BATCH of each tensor and batch, drawn with `seed`.
      init: a key of INITS.
      only: names of the layers whose intervals are set, to the same values as if all were; None for all. An all-zero
        tensor takes the other intervals as they are.

    Raises:
      ExperimentError: weights or activations are not finite; names the layer.
    """
    choose = INITS[init]
    kernels = {
        name: choose(quantized.values().numpy(), quantized.grid)
        for name, quantized in student.weights.items()
        if only is None or name in only
    }
    num_kept = 0 if choose is minmax_interval else SAMPLES_PER_BATCH
    seen = _seen(student, images, num_kept, np.random.default_rng(seed), only)
    tensors = {name: choose(values, student.outputs[name].grid) for name, values in seen.items()}
    for found, quantized in ((tensors, student.outputs), (kernels, student.weights)):
        for name, interval in found.items():
            _assign(name, quantized[name], interval)
    for name in reversed([name for name, interval in tensors.items() if interval == 0]):
        _assign(name, student.outputs[name], _of_zeros(student.plain.get_layer(name), student))
    for name in reversed([name for name, interval in kernels.items() if interval == 0]):
        _assign(name, student.weights[name], _of_zero_kernel(student.plain.get_layer(name), student))


def _seen(
    student: PlannedStudent,
    images: Iterable[np.ndarray],
    num_kept: int,
    rng: np.random.Generator,
    only: Collection[str] | None,
) -> dict[str, np.ndarray]:
    """`Sample.values` over all batches, for each tensor whose interval is learned.

    Samples are drawn for unused tensors, too, so that a tensor's samples do not depend on `only`.
    """
    learned = [name for name, quantized in student.outputs.items() if quantized.interval.trainable]
    names = [name for name in learned if only is None or name in only]
    if not names:
        return {}
    num_values = {name: values_of_image([student.plain.get_layer(name)]) for name in learned}
    layers = {name: student.plain.get_layer(name) for name in names}
    watch = tf.function(
        tf_keras.Model(student.plain.inputs, {name: layer.output for name, layer in layers.items()}), autograph=False
    )
    size = num_images(WATCHED_BYTES, np.dtype(np.float32).itemsize * values_of_image(layers.values()))
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in images:
        drawn = {name: Sample(len(batch) * number, num_kept, rng) for name, number in num_values.items()}
        samples = {name: drawn[name] for name in names}
        for part in portions(batch, size):
            tensors = watch(part, training=False)
            for name, sample in samples.items():
                sample.add(np.asarray(tensors.pop(name)).ravel())  # in place, and let go before the next
        for name, sample in samples.items():
            seen[name].append(sample.values())
    return {name: np.concatenate(values) for name, values in seen.items()}


def _of_zeros(layer, student: PlannedStudent) -> float:
    """Interval of an all-zero tensor, which has no range: 1.0, or less if operators could not hold that ratio.

    A residual branch is all zeros at first if its last BatchNormalization has gamma_initializer="zeros"; then the sum's
    own interval serves. For a kernel's input, one step must become only a few steps of the output.
    """
    found = [1.0]
    for reader in (node.outbound_layer for node in layer.outbound_nodes):
        kernel = student.weights.get(reader.name)
        made = _made_by(reader, student)
        found += [interval * (STEPS / float(kernel.interval) if kernel else 1.0) for interval in made]
    return min(found)


def _of_zero_kernel(layer, student: PlannedStudent) -> float:
    """Interval of an all-zero kernel: one step of its products is one step of its output."""
    source = producer(parents(layer)[0]).name
    read = student.outputs[source].interval if source in student.outputs else student.pixels[1].scale
    return min(_made_by(layer, student), default=1.0) / float(read)


def _made_by(layer, student: PlannedStudent) -> list[float]:
    """Intervals of the tensors that a layer, or what follows it in its operator, outputs."""
    if layer.name in student.outputs:
        return [float(student.outputs[layer.name].interval)]
    return [i for node in layer.outbound_nodes for i in _made_by(node.outbound_layer, student)]


def _assign(name: str, quantized: QuantizedTensor, interval: float) -> None:
    if not np.isfinite(interval):
        raise ExperimentError(f"layer {name} has values that are not finite; its first weights are broken")
    quantized.interval.assign(quantized.interval.constraint(np.float32(interval)))
