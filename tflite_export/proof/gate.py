"""What a file has to reach, and what it lacks, in words."""

import dataclasses
import math

import numpy as np

from tflite_export.inference.runtimes import absence
from tflite_export.load import Handoff

ROUNDING = 1e-9  # percent; shares of the same images are equal in spite of floating point


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a file must reach, beside having every integer that was predicted for it.

    It is refused where the target's judge finds it worse than the quantized student in training's arithmetic, real
    numbers on grids, by more than `max_top1_difference` points of top-1, and that is beyond chance: less probable, were
    both equally good, than `min_accuracy_p`. `accuracy` has the test.
    """

    max_top1_difference: float = 0.2
    min_accuracy_p: float = 0.001

    def finds_worse(self, accuracy: dict) -> bool:
        """Whether `accuracy.paired` tells of a file that is refused for it."""
        drop = accuracy["student_top1"] - accuracy["top1"]
        return drop > self.max_top1_difference + ROUNDING and accuracy["p"] < self.min_accuracy_p


def shortfalls(name: str, row: dict, judge: str, gate: Gate) -> list[str]:
    """A line for each demand of the gate that a runtime does not meet."""
    if "not_run" in row:
        if name == judge:
            return [f"{name} was to judge the file, and cannot: {row['not_run']}"]
        return [] if absence(name) else [row["not_run"]]
    lines, found = [], row["accuracy"]
    if name == judge and gate.finds_worse(found):
        lines.append(
            f"{name}: top-1 is {found['top1']:.2f} %, worse beyond chance than {found['student_top1']:.2f} %, the "
            f"student's in floating point: of {found['num_images']:,} images {found['only_student_right']:,} are right "
            f"there alone, {found['only_file_right']:,} in the file alone, p = {found['p']:.2g}; "
            f"at least {gate.min_accuracy_p:g} is demanded"
        )
    expectations = (("operators", "its inputs make"), ("codes", "the student predicts"))
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


def outside_grid(name: str, seen: dict[str, np.ndarray], handoff: Handoff) -> list[str]:
    """A line for each activation with integers outside its bit width."""
    return [
        f"{name}: tensor {tensor} spans {seen[tensor].min()}..{seen[tensor].max()}; "
        f"its grid is {params.stored_min}..{params.stored_max}"
        for tensor, params in handoff.tensor_params.items()
        if tensor in seen and (seen[tensor].min() < params.stored_min or seen[tensor].max() > params.stored_max)
    ]
