"""Designs of the quantizer, side by side: python -m benchmarks.designs [NETWORK]. Results: benchmarks/README.md."""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import sys

import tensorflow as tf

from benchmarks import subjects
from benchmarks.turns import measure, ratio
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.scheme import (
    FLOAT32_IMPLEMENTATION,
    MIXED_PRECISION_IMPLEMENTATION,
    XLA_IMPLEMENTATION,
    quantize_student,
)

NUM_TURNS = 5
STEPS_A_TURN = 8
# Design -> implementation of the quantizers, share of the examples for sums that nothing carries.
DESIGNS = {
    "definition in elementwise operations": (XLA_IMPLEMENTATION, 1.0),
    "one kernel each way, both sums": (MIXED_PRECISION_IMPLEMENTATION, 1.0),
    "one kernel each way, sums of 1/8": (MIXED_PRECISION_IMPLEMENTATION, 0.125),
    "sums from small tensors, others whole": (FLOAT32_IMPLEMENTATION, 1.0),
    "sums from small tensors, others of 1/8": (FLOAT32_IMPLEMENTATION, 0.125),
}


def main(name: str = "resnet20") -> None:
    tf.get_logger().setLevel("ERROR")
    kinds = {
        "full precision": subjects.make_step("full_precision", subjects.build(name)),
        "TFMOT's own 8-bit QAT": subjects.make_step("full_precision", subjects.tfmot_8_bits(name)),
    }
    for design, (implementation, share) in DESIGNS.items():
        student = quantize_student(
            subjects.build(name), QuantizationSpec(interval_gradient_share=share), implementation
        )
        kinds[design] = subjects.make_step("self_studying", student.model)
    for call in kinds.values():
        call()
    medians = measure(kinds, NUM_TURNS, STEPS_A_TURN)
    print(f"{name}, batch {subjects.BATCH}: a self-studying step, full precision = 1")
    for kind in kinds:
        print(f"{kind:42}{ratio(medians, kind, 'full precision'):6.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
