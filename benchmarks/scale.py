"""Peak memory of what holds every tensor of a network, as pictures grow: python -m benchmarks.scale [--batch=128]

Three networks of tf_keras.applications with random weights, at W4A4, on random pictures. Each step has a process of its
own: calibration on a batch of --batch pictures, the handoff of 32 test pictures, the diagnosis of as many, and the
file, written and proven on LiteRT. Half an hour on two cores, and more than a gigabyte of --folder.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks import subjects
from benchmarks.memory import resident_bytes
from qkd_tf import networks
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import NetworkSpec, QuantizationSpec
from qkd_tf.outcome import diagnosis, handoff
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import QuantizedStudent, quantize_student
from qkd_tf.storage.run_folder import RunFolder
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.load import load_handoff
from tflite_export.proof.gate import Gate
from tflite_export.proof.verification import examine
from tflite_export.rebuilding.rebuild import rebuild

NETWORKS = {"MobileNetV2": 224, "ResNet50": 224, "EfficientNetB2": 260}  # and the side of their pictures
NUM_CLASSES, NUM_TEST = 1000, 32
HEADER = """\
| network, pixels | step | peak, GB | of it before the step, GB | seconds |
| --- | --- | --- | --- | --- |"""


def make_student(network: str) -> QuantizedStudent:
    shape = image_shape(network)
    spec = NetworkSpec(f"tf_keras.applications:{network}", subjects.PIXELS)
    return quantize_student(networks.build_student(spec, shape, NUM_CLASSES).model, QuantizationSpec())


def image_shape(network: str) -> tuple[int, int, int]:
    return (NETWORKS[network], NETWORKS[network], 3)


def pictures(network: str, number: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, *image_shape(network)), np.uint8)


def make_calibrated(network: str) -> QuantizedStudent:
    student = make_student(network)
    calibrate(student, [pictures(network, 2)], "minmax")
    return student


def calibration(network: str, batch: int, folder: pathlib.Path) -> Callable[[], None]:
    student, images = make_student(network), pictures(network, batch)
    return lambda: calibrate(student, [images], "mse")


def handing_over(network: str, batch: int, folder: pathlib.Path) -> Callable[[], None]:
    student, run = make_calibrated(network), RunFolder(str(folder), [])
    splits = subjects.random_splits(NUM_TEST, NUM_TEST, image_shape(network), NUM_CLASSES)
    run.claim()
    return lambda: handoff.write(student, splits, run)


def diagnosing(network: str, batch: int, folder: pathlib.Path) -> Callable[[], None]:
    student, images = make_calibrated(network), pictures(network, diagnosis.NUM_IMAGES)
    return lambda: diagnosis.measure(student, images, {"unrounded": student.plain.get_weights()})


def export(network: str, batch: int, folder: pathlib.Path) -> Callable[[], None]:
    """A random network's top-1 says nothing, and its file has to have every integer that was predicted."""

    def run() -> None:
        found = load_handoff(RunFolder(str(folder), []).handoff)
        graph = store(rebuild(found, "uint8"), "auto", TARGETS["phone"])
        verification, _ = examine(convert(graph, "scale"), graph, found, Gate(), TARGETS["phone"], ["litert"])
        if not verification["passed"]:
            sys.exit(f"error: {verification['failures']}")

    return run


# In their order: the file is made of what is handed over.
STEPS: Mapping[str, Callable] = {
    "calibration": calibration,
    "handoff": handing_over,
    "diagnosis": diagnosing,
    "export": export,
}


def row(network: str, step: str, batch: int, folder: pathlib.Path) -> str:
    """Of the table, for a step of this process."""
    run, before = STEPS[step](network, batch, folder), resident_bytes("VmRSS")
    start = time.perf_counter()
    run()
    seconds, peak = time.perf_counter() - start, resident_bytes("VmHWM")
    return f"| {network}, {NETWORKS[network]} | {step} | {peak / 1e9:.2f} | {before / 1e9:.2f} | {seconds:.0f} |"


def in_child(network: str, step: str, batch: int, folder: pathlib.Path) -> str:
    """`row` of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", f"--batch={batch}", f"--folder={folder}"]
    done = subprocess.run([*command, f"--network={network}", f"--step={step}"], capture_output=True, text=True)
    if done.returncode:
        return f"| {network}, {NETWORKS[network]} | {step} | {done.stderr.splitlines()[-1]} | | |"
    return done.stdout.splitlines()[-1]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--step", choices=STEPS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        if given.network and given.step:
            print(row(given.network, given.step, given.batch, folder))
            return
        print(f"batch {given.batch}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n{HEADER}")
        for network in [given.network] if given.network else NETWORKS:
            for step in [given.step] if given.step else STEPS:
                print(in_child(network, step, given.batch, folder / network), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
