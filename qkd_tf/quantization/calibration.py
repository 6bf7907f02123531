"""First intervals, from the weights and from a few batches of activations."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tf_keras

from qkd_tf.experiment import ExperimentError
from qkd_tf.quantization.grid import IntegerGrid
from qkd_tf.quantization.scheme import QuantizedStudent, QuantizedTensor

SAMPLES_PER_BATCH = 65_536
MSE_CANDIDATES = 100


def minmax_interval(x: np.ndarray, grid: IntegerGrid) -> float:
    """max|x| / qmax: nothing is clipped."""
    return float(np.max(np.abs(x))) / grid.qmax


def lsq_interval(x: np.ndarray, grid: IntegerGrid) -> float:
    """2 * mean|x| / sqrt(qmax) (LSQ section 2.1)."""
    return 2.0 * float(np.mean(np.abs(x))) / float(np.sqrt(grid.qmax))


def mse_interval(x: np.ndarray, grid: IntegerGrid) -> float:
    """Of MSE_CANDIDATES shares of the min-max interval, the one whose grid is nearest to x in mean square."""
    if not np.any(x):
        return 0.0
    candidates = minmax_interval(x, grid) * np.arange(1, MSE_CANDIDATES + 1) / MSE_CANDIDATES

    def error(interval: float) -> float:
        q = np.clip(np.round(x / interval), grid.qmin, grid.qmax)
        return float(np.mean((q * interval - x) ** 2))

    return float(min(candidates, key=error))


INITS: Mapping[str, Callable[[np.ndarray, IntegerGrid], float]] = {
    "minmax": minmax_interval,
    "lsq": lsq_interval,
    "mse": mse_interval,
}


def calibrate(student: QuantizedStudent, images: Iterable[np.ndarray], init: str, seed: int = 0) -> None:
    """Sets every interval from the float student's weights and its activations on `images`.

    Args:
      images: batches [N, H, W, C] of pixels. Min-max sees all values of them; the other
        inits see SAMPLES_PER_BATCH of each tensor and batch, drawn with `seed`.
      init: a key of INITS.

    Raises:
      ExperimentError: weights or activations that are not finite; the layer is named.
    """
    choose = INITS[init]
    for name, quantized in student.weights.items():
        _assign(name, quantized, choose(quantized.kernel.numpy(), quantized.grid))

    names = [name for name, quantized in student.outputs.items() if quantized.interval.trainable]
    watch = tf_keras.Model(student.plain.inputs, {name: student.plain.get_layer(name).output for name in names})
    rng = np.random.default_rng(seed)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in images:
        for name, value in watch.predict_on_batch(batch).items():
            flat = value.reshape(-1)
            if flat.size > SAMPLES_PER_BATCH:
                extremes = [flat.min(), flat.max()]
                flat = np.append(rng.choice(flat, SAMPLES_PER_BATCH), extremes)
            seen[name].append(flat)
    for name in names:
        quantized = student.outputs[name]
        _assign(name, quantized, choose(np.concatenate(seen[name]), quantized.grid))


def _assign(name: str, quantized: QuantizedTensor, interval: float) -> None:
    """An all-zero tensor has no range: any positive interval serves, 1.0 is taken."""
    if not np.isfinite(interval):
        raise ExperimentError(f"layer {name} has values that are not finite; its first weights are broken")
    quantized.interval.assign(quantized.interval.constraint(np.float32(interval if interval > 0 else 1.0)))
