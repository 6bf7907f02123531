"""What an image of a training step takes of memory, beside its estimate: python -m benchmarks.step_memory

Each step runs in a process of its own on two sizes of a batch; the peaks' difference, by image, is what one takes. It
does not depend on what else the machine does. Writes benchmarks/step_memory.json and prints a table. Ten minutes.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import json
import pathlib
import subprocess
import sys

import tensorflow as tf

from benchmarks import subjects
from benchmarks.memory import resident_bytes
from qkd_tf.distillation import step_memory
from qkd_tf.distillation.mixed_precision import training_in
from qkd_tf.experiment import PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.scheme import quantize_student

RESULT = pathlib.Path(__file__).with_suffix(".json")
# Network, pixels a side, classes, and the two batches.
NETWORKS = (
    ("resnet8", 32, 10, (128, 512)),
    ("mobilenet_v2_1.0", 224, 1000, (4, 16)),
    ("resnet50", 224, 1000, (2, 8)),
)
STEPS = (
    ("full_precision", "float32"),
    ("self_studying", "float32"),
    ("self_studying", "bfloat16"),
    ("co_studying", "float32"),
)
NUM_STEPS = 3
COLUMNS = ("network", "phase", "precision", "measured", "estimated")


def peak_bytes(name: str, side: int, num_classes: int, phase: str, precision: str, batch: int) -> int:
    """Of a process that trains some steps."""
    command = [sys.executable, "-m", "benchmarks.step_memory", name, side, num_classes, phase, precision, batch]
    return int(subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout)


def train(name: str, side: int, num_classes: int, phase: str, precision: str, batch: int) -> None:
    """What such a process does; it prints its peak."""
    subjects.BATCH = batch
    shape = (side, side, 3)
    student = subjects.build(name, shape, num_classes)
    if phase != "full_precision":
        student = quantize_student(student, QuantizationSpec()).model
    teacher = subjects.build(name, shape, num_classes) if phase == "co_studying" else None
    step, images = (
        tf.function(subjects.make_distiller(phase, student, teacher).train_step),
        subjects.random_batch(shape),
    )
    with training_in(precision):
        for _ in range(NUM_STEPS):
            step(images)
    print(resident_bytes("VmHWM"))


def row(name: str, side: int, num_classes: int, batches: tuple[int, int], phase: str, precision: str) -> dict:
    """Bytes of an image, by COLUMNS."""
    peaks = [peak_bytes(name, side, num_classes, phase, precision, batch) for batch in batches]
    model = subjects.build(name, (side, side, 3), num_classes)
    training = TrainingSpec(phases=(PhaseSpec(phase, 1, 0.01),))
    measured = round((peaks[1] - peaks[0]) / (batches[1] - batches[0]))
    estimated = step_memory.image_bytes(model, model if phase == "co_studying" else None, training)
    return dict(zip(COLUMNS, (name, phase, precision, measured, estimated), strict=True))


def main() -> None:
    rows = []
    print(
        "| network | phase | precision | measured, MB an image | estimated | measured / estimated |\n"
        + "|---" * 6
        + "|"
    )
    for network in NETWORKS:
        for step in STEPS:
            rows.append(found := row(*network, *step))
            name, phase, precision, measured, estimated = found.values()
            cells = (
                name,
                phase,
                precision,
                f"{measured / 1e6:.1f}",
                f"{estimated / 1e6:.1f}",
                f"{measured / estimated:.2f}",
            )
            print(f"| {' | '.join(cells)} |", flush=True)
            RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if arguments := sys.argv[1:]:
        name, side, num_classes, phase, precision, batch = arguments
        train(name, int(side), int(num_classes), phase, precision, int(batch))
    else:
        main()
