"""Images a second of the student in integers: python -m benchmarks.integer_student [--bits=6] [--num_images=32]

MobileNetV2 1.0 at 224 x 224 with 1,000 classes and random weights, in each arithmetic: by the definition in NumPy, a
picture a thread, and by the graph in TensorFlow, whose logits have to be the same. What the graph takes to be built and
compiled is told apart. A minute; say what else ran.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import os
import sys
import time
from concurrent import futures

import numpy as np

from benchmarks import subjects
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS, Arithmetic
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.outcome.handoff import NUM_THREADS
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.integer_graph import IntegerGraph
from qkd_tf.quantization.integer_steps import put_on_integer_steps
from qkd_tf.quantization.integer_student import IntegerStudent
from qkd_tf.quantization.scheme import quantize_student

SHAPE, NUM_CLASSES = (224, 224, 3), 1000
MANY = 10**6  # images that the graph is told of, so that it is compiled as for a whole test split


def make_student(num_bits: int, images: np.ndarray) -> IntegerStudent:
    spec = QuantizationSpec(weight_bits=num_bits, activation_bits=num_bits)
    student = quantize_student(subjects.build("mobilenet_v2_1.0", SHAPE, NUM_CLASSES), spec)
    calibrate(student, [images[:8].astype(np.float32)], "minmax")
    put_on_integer_steps(student)
    return IntegerStudent(student)


def by_definition(student: IntegerStudent, images: np.ndarray, arithmetics: list[Arithmetic]) -> tuple[list, float]:
    """Logits by arithmetic, and images a second."""
    pictures = [images[i : i + 1] for i in range(len(images))]
    start = time.perf_counter()
    with futures.ThreadPoolExecutor(NUM_THREADS) as threads:
        parts = list(threads.map(lambda picture: student.predict_each(picture, arithmetics), pictures))
    seconds = time.perf_counter() - start
    logits = [np.concatenate([part[i][student.output] for part in parts]) for i in range(len(arithmetics))]
    return logits, len(images) / seconds


def by_graph(student: IntegerStudent, images: np.ndarray, arithmetic: Arithmetic) -> tuple[np.ndarray, float, float]:
    """Logits, images a second, and seconds before the first of them."""
    start = time.perf_counter()
    graph = IntegerGraph(student, arithmetic, MANY)
    next(graph.logits([images]))
    built = time.perf_counter()
    logits = np.concatenate(list(graph.logits([images])))
    return logits, len(images) / (time.perf_counter() - built), built - start


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--num_images", type=int, default=32)
    given = parser.parse_args(arguments)
    images = np.random.default_rng(0).integers(0, 256, (given.num_images, *SHAPE)).astype(np.uint8)
    student = make_student(given.bits, images)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, W{given.bits}A{given.bits}")
    _, together = by_definition(student, images, list(ARITHMETICS.values()))
    print(f"the definition, all arithmetics at once: {together:.1f} images a second\n")
    print("| arithmetic | definition, images/s | graph, images/s | until its first batch, s |\n|---|---|---|---|")
    for name, arithmetic in ARITHMETICS.items():
        (expected,), slow = by_definition(student, images, [arithmetic])
        found, fast, built = by_graph(student, images, arithmetic)
        if not np.array_equal(found, expected):
            sys.exit(f"error: the logits of {name} differ")
        print(f"| {name} | {slow:.1f} | {fast:.1f} | {built:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
