"""Peak memory of what holds every tensor of a network, as pictures grow: python -m benchmarks.scale [--batch=128]

Three networks of tf_keras.applications with random weights, at W4A4, on random pictures. Each step has a process of its
own: calibration on a batch of --batch pictures, the handoff of 32 test pictures, the diagnosis of as many, and the
file, written and proven on LiteRT. Half an hour on two cores, and more than a gigabyte of --folder.
"""

if __name__ == "__main__":
    from qkd_tf import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks import subjects
from qkd_tf import diagnosis, handoff, networks
from qkd_tf.experiment import NetworkSpec, QuantizationSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import QuantizedStudent, quantize_student
from qkd_tf.run_folder import RunFolder
from tflite_export.convert import convert
from tflite_export.load import load_handoff
from tflite_export.rebuild import rebuild
from tflite_export.targets import TARGETS, store
from tflite_export.verification import Gate, examine

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


def measure(network: str, step: str, batch: int, folder: pathlib.Path) -> str:
    """A row of the table, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", f"--batch={batch}", f"--folder={folder}"]
    child = subprocess.Popen([*command, f"--network={network}", f"--step={step}"], stdout=subprocess.PIPE, text=True)
    told = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        return f"| {network}, {NETWORKS[network]} | {step} | failed: {os.waitstatus_to_exitcode(status)} | | |"
    found = json.loads(told.splitlines()[-1])
    return (
        f"| {network}, {NETWORKS[network]} | {step} | {usage.ru_maxrss * 1024 / 1e9:.2f} | "
        f"{found['before'] / 1e9:.2f} | {found['seconds']:.0f} |"
    )


def resident_bytes() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--step", choices=STEPS)
    given = parser.parse_args(arguments)
    folder = given.folder or pathlib.Path(tempfile.mkdtemp())
    if given.network and given.step:
        run, before = STEPS[given.step](given.network, given.batch, folder), resident_bytes()
        start = time.perf_counter()
        run()
        print(json.dumps({"before": before, "seconds": time.perf_counter() - start}))
        return
    print(f"batch {given.batch}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n{HEADER}")
    for network in [given.network] if given.network else NETWORKS:
        for step in [given.step] if given.step else STEPS:
            print(measure(network, step, given.batch, folder / network), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
