"""A student that is quantized in many ways, and what it loses by each."""

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
    """One layer at one width.

    Attributes:
      num_bits: of the layer's kernel, and of its input where the rule says so.
      top1: of the student on the validation split, in percent, all other layers as they were.
      loss: points of top-1 below that student's.
      saved_bytes: of the kernel at its true width; negative where `num_bits` is more than it has.
      divergence: of its answers from that student's: mean KL(that || this) over validation images, in nats.
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
    """The --bits_rule of that layer and no other."""
    return f"{re.escape(layer)}=w{num_bits}a{num_bits}"


def of_kernel(layer: str, num_bits: int) -> str:
    """As `of_kernel_and_input`; its input stays as it is."""
    return f"{re.escape(layer)}=w{num_bits}"


@dataclasses.dataclass(frozen=True)
class Examples:
    """What students are calibrated and judged on.

    Attributes:
      calibration: batches of images.
      validation: batches of (images, labels).
    """

    calibration: Sequence[np.ndarray]
    validation: tf.data.Dataset


class Subject:
    """A float student in standard form, to be quantized in other ways than `spec` says.

    Args:
      plain: left as it is.
      spec: the student that others are compared with.
      kernels, tensors: its intervals, by layer. They hold wherever a grid is the same; others are calibrated.
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
        """The same whose intervals are from calibration, once for all that is compared."""
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
        """Where the grid is the known one. Returns the names of layers of which a grid is another."""
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
        """Of a kernel at its width, with nothing between its integers."""
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
    """A student for each of (layer, bits). `path` has what is done; a second start of the same resumes from there.

    Args:
      identity: what else decides the numbers; a file of another one begins anew.
      rule: what a cell means.

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
    """Markdown, the most sensitive first.

    Args:
      stored: (layer, bits) -> bytes of a kernel as the target stores it.
      trained: bits by layer.
    """
    lines = [("layer", "bits", "top-1, %", "loss, points", "divergence", "bytes saved", "as stored"), ("---",) * 7]
    for row in sorted(rows, key=lambda row: (-row.loss, -row.divergence)):
        as_stored = stored(row.layer, trained[row.layer]) - stored(row.layer, row.num_bits)
        measured = f"{row.top1:.2f}", f"{row.loss:+.2f}", f"{row.divergence:.4f}"
        lines.append((row.layer, str(row.num_bits), *measured, f"{row.saved_bytes:,.0f}", f"{as_stored:,.0f}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
