"""Seconds of a training step: full precision, TFMOT's 8-bit QAT, and the three phases."""

import statistics

import tensorflow as tf

from benchmarks import subjects
from benchmarks.turns import measure, ratio

NUM_TURNS = 5
STEPS_A_TURN = 8


def step_times(student: str, teacher: str) -> dict[str, float]:
    """Seconds by kind, and ratios to what the same work costs in full precision."""
    step = subjects.make_step
    images, _ = subjects.random_batch()
    teacher_model = subjects.build(teacher)
    forward = tf.function(lambda: teacher_model(images, training=False))
    kinds = {
        "full_precision": step("full_precision", subjects.build(student)),
        "teacher_full_precision": step("full_precision", subjects.build(teacher)),
        "teacher_forward": lambda: forward().numpy(),
        "tfmot_8_bits": step("full_precision", subjects.tfmot_8_bits(student)),
        "self_studying": step("self_studying", subjects.quantized(student)),
        "co_studying": step("co_studying", subjects.quantized(student), subjects.build(teacher)),
        "tutoring": step("tutoring", subjects.quantized(student), teacher_model),
    }
    for call in kinds.values():  # traces
        call()
    medians = measure(kinds, NUM_TURNS, STEPS_A_TURN)
    return {
        "self_studying/full_precision": ratio(medians, "self_studying", "full_precision"),
        "tfmot_8_bits/full_precision": ratio(medians, "tfmot_8_bits", "full_precision"),
        "co_studying/(full_precision+teacher)": ratio(
            medians, "co_studying", "full_precision", "teacher_full_precision"
        ),
        "tutoring/(full_precision+teacher_forward)": ratio(medians, "tutoring", "full_precision", "teacher_forward"),
        **{f"{kind}_seconds": statistics.median(values) for kind, values in medians.items()},
    }
