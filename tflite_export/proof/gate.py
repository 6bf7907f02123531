"""A line for each requirement that a file misses."""

import math
from collections.abc import Mapping

import numpy as np

from qkd_tf.console.counting import counted
from qkd_tf.contract.gate import Gate, counts
from qkd_tf.contract.grid import TensorQuantParams
from tflite_export.inference.runtimes import absence


def shortfalls(name: str, row: dict, judge: str, gate: Gate) -> list[str]:
    """A line for each requirement of the gate that a runtime does not meet."""
    if "not_run" in row:
        if name == judge:
            return [f"{name} must run the file, because it is the judge, and did not: {row['not_run']}"]
        return [] if absence(name) else [row["not_run"]]
    lines, found = [], row["accuracy"]
    if name == judge and gate.finds_worse(found):
        lines.append(
            f"{name}: top-1 is {found['top1']:.2f} %, which is below the student's "
            f"{found['student_top1']:.2f} % in floating point by more than chance: {counts(found)}; "
            f"p must be at least {gate.min_accuracy_p:g}"
        )
    expectations = (("operators", "its inputs give"), ("codes", "the student predicts"))
    differing = [(tensor, found, by) for key, by in expectations for tensor, found in row[key]["different"].items()]
    logits = row["integer_student"]
    differing.append(("of the logits", {**logits, "equal_codes": logits["equal_logits"]}, "the student predicts"))
    for tensor, found, by in differing:
        if found["max_step_error"] > 0:
            share = math.floor(1000 * found["equal_codes"]) / 1000  # never 100.000 where an integer differs
            lines.append(
                f"{name}: tensor {tensor} has {share:.3f} % of the integers that {by}, "
                f"up to {counted(found['max_step_error'], 'step')} apart"
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
