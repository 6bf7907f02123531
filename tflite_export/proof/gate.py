"""What a file has to achieve, and a line for each requirement that it misses."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from qkd_tf.contract.grid import TensorQuantParams
from tflite_export.inference.runtimes import absence

ROUNDING = 1e-9  # percent; shares of the same images are equal in spite of floating point
SHAKY_P = 0.1  # below which an accepted file is said to be perhaps worse than the student


@dataclasses.dataclass(frozen=True)
class Gate:
    """The accuracy that a file must reach. In addition, every integer must be the predicted one.

    On the target's judge, the file is compared with the quantized student in floating point. It is refused if its
    top-1 is more than `max_top1_difference` points lower, and if two equally good networks would differ this much with
    a probability below `min_accuracy_p`. `accuracy` has the test.
    """

    max_top1_difference: float = 0.2
    min_accuracy_p: float = 0.001

    def finds_worse(self, accuracy: dict) -> bool:
        """Whether a file with the accuracy that `accuracy.paired` found is refused."""
        return self._is_lower(accuracy) and accuracy["p"] < self.min_accuracy_p

    def doubt(self, accuracy: dict) -> str:
        """What is to be said of a file that is accepted, and yet may be worse; "" where there is no such doubt."""
        if not self._is_lower(accuracy) or not self.min_accuracy_p <= accuracy["p"] < SHAKY_P:
            return ""
        drop = accuracy["student_top1"] - accuracy["top1"]
        return (
            f"accepted, but {drop:.2f} points below the student in floating point "
            f"(p = {accuracy['p']:.2g}; refused below {self.min_accuracy_p:g})"
        )

    def _is_lower(self, accuracy: dict) -> bool:
        return accuracy["student_top1"] - accuracy["top1"] > self.max_top1_difference + ROUNDING


def shortfalls(name: str, row: dict, judge: str, gate: Gate) -> list[str]:
    """A line for each demand of the gate that a runtime does not meet."""
    if "not_run" in row:
        if name == judge:
            return [f"{name} must run the file, because it is the judge, and did not: {row['not_run']}"]
        return [] if absence(name) else [row["not_run"]]
    lines, found = [], row["accuracy"]
    if name == judge and gate.finds_worse(found):
        lines.append(
            f"{name}: top-1 is {found['top1']:.2f} %, which is below the student's "
            f"{found['student_top1']:.2f} % in floating point by more than chance: of {found['num_images']:,} images "
            f"{found['only_student_right']:,} are right only there and {found['only_file_right']:,} only in the file, "
            f"p = {found['p']:.2g}; at least {gate.min_accuracy_p:g} is required"
        )
    expectations = (("operators", "its inputs give"), ("codes", "the student predicts"))
    differing = [(tensor, found, by) for key, by in expectations for tensor, found in row[key]["different"].items()]
    logits = row["integer_student"]
    differing.append(("of the logits", {**logits, "equal_codes": logits["equal_logits"]}, "the student predicts"))
    for tensor, found, by in differing:
        if found["max_step_error"] > 0:
            share = math.floor(1000 * found["equal_codes"]) / 1000  # 100.000 is said of nothing that differs
            lines.append(
                f"{name}: tensor {tensor} has {share:.3f} % of the integers that {by}, "
                f"up to {found['max_step_error']} steps apart"
            )
    return lines


def outside_grid(name: str, seen: dict[str, np.ndarray], grids: Mapping[str, TensorQuantParams]) -> list[str]:
    """A line for each activation with integers outside its bit width; `grids` by tensor name."""
    return [
        f"{name}: tensor {tensor} spans {seen[tensor].min()}..{seen[tensor].max()}; "
        f"its grid is {params.stored_min}..{params.stored_max}"
        for tensor, params in grids.items()
        if tensor in seen and (seen[tensor].min() < params.stored_min or seen[tensor].max() > params.stored_max)
    ]
