"""Speed and memory, side by side in one run: make bench. Prints a table, and writes runs/bench.json.

Ratios are to the same work in full precision, or to the stock file. Nothing else should run meanwhile.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import json
import pathlib

import tensorflow as tf
from absl import app, flags, logging

from benchmarks import epoch, files, memory, phone_storages, steps, subjects

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", list(subjects.PAIRS), "Students at CIFAR's size.")
flags.DEFINE_string("bench_output", "runs/bench.json", "File for all numbers.")

FILES = {"resnet8": ((32, 32, 3), 10), "resnet20": ((32, 32, 3), 10), "mobilenet_v2_1.0": ((224, 224, 3), 1000)}
STORED = {"mobilenet_v2_1.0": ((224, 224, 3), 1000)}
EPOCH_STEPS = {"resnet8": 120, "resnet20": 60}
# Row of the table -> what is demanded at most.
TARGETS = {
    "self_studying/full_precision": 1.15,
    "co_studying/(full_precision+teacher)": 1.10,
    "tutoring/(full_precision+teacher_forward)": 1.12,
    "memory: self_studying/full_precision": 1.3,
    "epoch: share outside of steps": 0.03,
    "latency/stock": 1.05,
    "export_seconds": 60.0,
    "bytes: int4/int8": 0.60,
    "latency: int4/int8": 1.08,
}


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    path = pathlib.Path(FLAGS.bench_output)
    path.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {"input": {"images_a_second": epoch.images_a_second()}}
    _show("input", results["input"])

    def add(name, numbers):
        results.setdefault(name, {}).update(numbers)
        _show(name, numbers)
        path.write_text(json.dumps(results, indent=1) + "\n")

    for name in FLAGS.networks:
        add(name, steps.step_times(name, subjects.PAIRS[name]))
        peaks = {phase: memory.peak_bytes(name, phase) for phase in memory.MODELS}
        relative = peaks["self_studying"] / peaks["full_precision"]
        add(name, {"memory: self_studying/full_precision": relative, **{f"{p}_bytes": b for p, b in peaks.items()}})
        if name in EPOCH_STEPS:
            add(name, {"epoch: share outside of steps": epoch.overhead(name, EPOCH_STEPS[name])})
    for name, (image_shape, num_classes) in FILES.items():
        add(name, files.export_and_latency(name, image_shape, num_classes))
    for name, (image_shape, num_classes) in STORED.items():
        add(f"{name}, storages", phone_storages.measure(name, image_shape, num_classes, num_bits=4))


def _show(name: str, numbers: dict[str, float]) -> None:
    for what, value in numbers.items():
        target = f"   target <= {TARGETS[what]:g}" if what in TARGETS else ""
        print(f"{name:24} {what:44} {value:14,.3f}{target}", flush=True)


if __name__ == "__main__":
    app.run(main)
