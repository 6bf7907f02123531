"""A student that is quantized in many ways, and what it loses in each."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras
from tqdm import tqdm

from qkd_tf.contract.grid import TensorQuantParams
from qkd_tf.evaluate import top1_of
from qkd_tf.experiment import ExperimentError, QuantizationSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.forward import QuantizedForward, quantized_forward
from qkd_tf.quantization.plan import make_plan
from qkd_tf.quantization.roles import kernel_size
from qkd_tf.storage import durable

MEASURED = ["top1", "divergence"]  # a file of an earlier version lacks the second, and is measured again


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """One layer at one bit width.

    Attributes:
      num_bits: bit width of the layer's kernel, and of its input if the rule says so.
      top1: top-1 of the student on the validation split, in percent, with all other layers unchanged.
      loss: points of top-1 below the unchanged student's.
      saved_bytes: bytes saved in the kernel at its true width; negative if `num_bits` is more than it has.
      divergence: mean KL(unchanged student || this one) over validation images, in nats.
    """

    layer: str
    num_bits: int
    top1: float
    loss: float
    saved_bytes: float
    divergence: float = 0.0

    @property
    def rule(self) -> str:
        return of_kernel_and_input(self.layer, self.num_bits)


def of_kernel_and_input(layer: str, num_bits: int) -> str:
    """The --bits_rule for exactly that layer."""
    return f"{re.escape(layer)}=w{num_bits}a{num_bits}"


def of_kernel(layer: str, num_bits: int) -> str:
    """As `of_kernel_and_input`, but for the kernel only."""
    return f"{re.escape(layer)}=w{num_bits}"


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples on which students are calibrated and judged.

    Attributes:
      calibration: batches of images.
      validation: batches of (images, labels).
    """

    calibration: Sequence[np.ndarray]
    validation: tf.data.Dataset


class Subject:
    """A float student in standard form, to be quantized in ways other than `spec`.

    Args:
      plain: the float student; left unchanged.
      spec: quantization of the student with which others are compared.
      kernels, tensors: its intervals, by layer. They are used where the grid is the same; others are calibrated.
    """

    def __init__(
        self,
        plain: tf_keras.Model,
        spec: QuantizationSpec,
        examples: Examples,
        seed: int,
        kernels: Mapping[str, TensorQuantParams] = {},
        tensors: Mapping[str, TensorQuantParams] = {},
    ):
        self.plain, self.spec, self.plan = plain, spec, make_plan(plain, spec)
        self._examples, self._seed, self._kernels, self._tensors = examples, seed, kernels, tensors
        self.bits = {layer: grid.num_bits for layer, grid in self.plan.weight_grids.items()}
        self.layers = list(self.bits)

    def calibrated(self) -> "Subject":
        """The same with intervals from calibration, done once for all comparisons."""
        student = quantized_forward(self.plain, self.spec)
        calibrate(student, self._examples.calibration, self.spec.interval_init, self._seed)
        found = ({name: tensor.params() for name, tensor in of.items()} for of in (student.weights, student.outputs))
        return Subject(self.plain, self.spec, self._examples, self._seed, *found)

    def judge(self, *rules: str) -> tuple[float, float]:
        """Top-1 on the validation split, in percent, and divergence, with these bits rules after those of the spec."""
        logits, labels = self._answers(*rules)
        own, other = self._own_log_probabilities, _log_probabilities(logits)
        return top1_of(logits, labels), float(np.mean(np.sum(np.exp(own) * (own - other), axis=-1)))

    @functools.cached_property
    def _own_log_probabilities(self) -> np.ndarray:
        return _log_probabilities(self._answers()[0])

    def _answers(self, *rules: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, ..., K] and labels [N, ...] of the validation split."""
        spec = dataclasses.replace(self.spec, bits_rule=self.spec.bits_rule + rules)
        student = quantized_forward(self.plain, spec)
        others = self.take_known_intervals(student)
        calibrate(student, self._examples.calibration, spec.interval_init, self._seed, only=others)
        self.take_known_intervals(student)  # of a kernel whose layer hands on another tensor, or the reverse
        seen = [(student.logits(images).numpy(), np.asarray(labels)) for images, labels in self._examples.validation]
        logits, labels = (np.concatenate(part) for part in zip(*seen, strict=True))
        return logits, labels

    def take_known_intervals(self, student: QuantizedForward) -> set[str]:
        """Sets the known intervals where the grid is the same. Returns the names of layers with another grid."""
        others = set()
        for tensors, known in ((student.weights, self._kernels), (student.outputs, self._tensors)):
            for name, tensor in tensors.items():
                if name in known and tensor.grid == known[name].grid:
                    tensor.interval.assign(known[name].scale)
                else:
                    others.add(name)
        return others

    def saved_bytes(self, layer: str, num_bits: int) -> float:
        return self.true_bytes(layer, self.bits[layer]) - self.true_bytes(layer, num_bits)

    def true_bytes(self, layer: str, num_bits: int) -> float:
        """Bytes of a kernel at its bit width, packed without gaps."""
        return kernel_size(self.plain.get_layer(layer)) * num_bits / 8


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def measure(
    subject: Subject,
    cells: Sequence[tuple[str, int]],
    path: pathlib.Path,
    identity: dict,
    rule: Callable[[str, int], str] = of_kernel_and_input,
) -> list[Sensitivity]:
    """Measures a student for each (layer, bits). `path` keeps what is done, so that a restart resumes there.

    Args:
      identity: what else decides the numbers; a file with another identity is begun anew.
      rule: (layer, bits) -> the --bits_rule of a cell.

    Raises:
      ExperimentError: the file is damaged.
    """
    try:
        known = durable.read_json(path) if path.exists() else {}
    except durable.DamageError as damage:
        raise ExperimentError(f"{damage}; move it away, and it is measured again") from damage
    identity = {**identity, "measured": MEASURED}
    done = known if known.get("identity") == identity else {"identity": identity, "rows": []}
    if "baseline_top1" not in done:
        done["baseline_top1"], _ = subject.judge()
    found = {(row["layer"], row["num_bits"]): Sensitivity(**row) for row in done["rows"]}
    for layer, num_bits in tqdm(cells, desc="sensitivity", unit="student"):
        if (layer, num_bits) in found:
            continue
        top1, divergence = subject.judge(rule(layer, num_bits))
        saved = subject.saved_bytes(layer, num_bits)
        row = Sensitivity(layer, num_bits, top1, done["baseline_top1"] - top1, saved, divergence)
        found[layer, num_bits] = row
        done["rows"].append(dataclasses.asdict(row))
        durable.write_json(path, done)
    return [found[cell] for cell in cells]


def table(rows: list[Sensitivity], stored: Callable[[str, int], float], trained: Mapping[str, int]) -> str:
    """A Markdown table, the most sensitive layers first.

    Args:
      stored: (layer, bits) -> bytes of a kernel as the target stores it.
      trained: bit width by layer.
    """
    lines = [("layer", "bits", "top-1, %", "loss, points", "divergence", "bytes saved", "as stored"), ("---",) * 7]
    for row in sorted(rows, key=lambda row: (-row.loss, -row.divergence)):
        as_stored = stored(row.layer, trained[row.layer]) - stored(row.layer, row.num_bits)
        measured = f"{row.top1:.2f}", f"{row.loss:+.2f}", f"{row.divergence:.4f}"
        lines.append((row.layer, str(row.num_bits), *measured, f"{row.saved_bytes:,.0f}", f"{as_stored:,.0f}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
