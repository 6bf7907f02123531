"""Time and memory of every step of a job of ImageNet's size: python -m benchmarks.scale [--photographs=FOLDER]

Three networks of tf_keras.applications with random weights, at W4A4. Each step has a process of its own. It runs on few
images and then on more: the difference is the cost of an image, the rest is that of the step. From that comes what
1,281,167 pictures of training and 50,000 of test take: here, and, calculated and not measured, on a machine of 16 cores
whose GPU runs 2,500 images a second. Training steps themselves are not in it (`benchmarks.bench`).

About half an hour on two cores that do nothing else, and two gigabytes of --folder. Without --photographs, which has a
folder a class, the pictures are drawn.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks import scale_pictures, subjects
from benchmarks.memory import resident_bytes
from qkd_tf import data, networks
from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import TARGETS
from qkd_tf.data import looks, pipeline
from qkd_tf.evaluate import predict_logits
from qkd_tf.experiment import DataSpec, Experiment, NetworkSpec, QuantizationSpec, TrainingSpec
from qkd_tf.outcome import diagnosis, handoff, results
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import QuantizedStudent, quantize_student
from qkd_tf.storage.run_folder import RunFolder
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import infer
from tflite_export.load import load_handoff
from tflite_export.proof.asking import SLOW_PIXELS
from tflite_export.proof.verification import examine
from tflite_export.rebuilding.rebuild import rebuild
from tflite_export.reporting import report

NETWORKS = {"MobileNetV2": 224, "ResNet50": 224, "EfficientNetB2": 260}  # and the side of their pictures
NUM_CLASSES, NUM_TEST = 1000, 32
NUM_LISTED, NUM_READ = 20_000, 1_000  # files of the sets that are opened, and that are read
TRAIN, VALIDATION, TEST = 1_153_050, 128_117, 50_000  # ImageNet's, a tenth of training kept for validation
CORES, GPU_IMAGES = 16, 2_500  # of the machine that is calculated with; images a second of a float network
HEADER = f"""\
ImageNet: hours here; and, calculated and not measured, on {CORES} cores and a GPU of {GPU_IMAGES:,} images/s.

| network, pixels | step | peak, GB | before the step, GB | seconds | s an image | here, h | there, h |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
AT_A_RESTART = ("scanning again",)  # steps that are not in the sum, which has one epoch and one validation


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured, and where."""

    network: str
    batch: int
    folder: pathlib.Path
    photographs: pathlib.Path | None

    @property
    def side(self) -> int:
        return NETWORKS[self.network]

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.side, self.side, 3)

    @property
    def run(self) -> RunFolder:
        return RunFolder(str(self.folder / self.network), [])

    def pictures(self, number: int) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (number, *self.shape), np.uint8)

    def spec(self, number: int) -> DataSpec:
        """Of a set of so many training pictures, which is made where it is not there."""
        root = self.folder / f"pictures_{number}"
        scale_pictures.lay_out(root, self.photographs, number)
        return DataSpec(f"folder:{root}", image_size=self.side, batch_size=self.batch)


Run = Callable[[int], None]  # a step on so many images


def make_student(setting: Setting) -> QuantizedStudent:
    spec = NetworkSpec(f"tf_keras.applications:{setting.network}", subjects.PIXELS)
    return quantize_student(networks.build_student(spec, setting.shape, NUM_CLASSES).model, QuantizationSpec())


def make_calibrated(setting: Setting) -> QuantizedStudent:
    student = make_student(setting)
    calibrate(student, [setting.pictures(2)], "minmax")
    return student


def opening(setting: Setting) -> Run:
    return lambda number: data.open_source(setting.spec(number)) and None


def scanning(setting: Setting) -> Run:
    """With nothing remembered."""
    root, paths = _paths(setting)

    def run(number: int) -> None:
        looks.VERSION = os.urandom(16)
        looks.look(root, paths[:number])

    return run


def scanning_again(setting: Setting) -> Run:
    root, paths = _paths(setting)
    time.sleep(looks.SETTLED)
    looks.look(root, paths)
    return lambda number: looks.look(root, paths[:number]) and None


def _paths(setting: Setting) -> tuple[pathlib.Path, list[str]]:
    root = pathlib.Path(setting.spec(NUM_READ).name.removeprefix("folder:"))
    return root, sorted(map(str, root.glob("train/*/*")))


def epoch_input(setting: Setting) -> Run:
    """Read, decoded, resized, shuffled, cropped and mirrored, as of a set that does not fit in memory.

    Of so many pictures in several epochs, since a few batches say more of prefetching than of decoding.
    """
    pipeline.CACHE_BYTES = 0
    splits = data.load(setting.spec(NUM_READ))

    def run(number: int) -> None:
        batches = itertools.chain.from_iterable(map(splits.train, itertools.count()))
        for _ in itertools.islice(batches, number // splits.batch_size):
            pass

    return run


def calibration(setting: Setting) -> Run:
    student = make_student(setting)
    return lambda number: calibrate(student, [setting.pictures(number)], "mse")


def validation(setting: Setting) -> Run:
    student = make_calibrated(setting)

    def run(number: int) -> None:
        images = setting.pictures(number)
        parts = np.split(images, range(setting.batch, number, setting.batch))
        predict_logits(student.model, [(part, np.zeros(len(part))) for part in parts])

    return run


def handing_over(setting: Setting) -> Run:
    """And results.json, which an export asks for. All arithmetics predict every image."""
    student, run_folder = make_calibrated(setting), setting.run
    run_folder.claim()

    def run(number: int) -> None:
        splits = subjects.random_splits(NUM_TEST, number, setting.shape, NUM_CLASSES)
        handed_over = handoff.write(student, splits, run_folder)
        network = NetworkSpec(setting.network, subjects.PIXELS)
        spec, training = DataSpec("random", image_size=setting.side), TrainingSpec(phases=())
        experiment = Experiment(str(run_folder.path), 0, spec, network, None, QuantizationSpec(), training)
        results.write(run_folder, experiment, splits, handed_over, [])

    return run


def handing_over_the_rest(setting: Setting) -> Run:
    """The images beyond those, which the judge's arithmetic alone predicts."""
    handoff.INTEGER_PIXELS = 0
    return handing_over(setting)


def diagnosing(setting: Setting) -> Run:
    student = make_calibrated(setting)
    references = {"unrounded": student.plain.get_weights()}
    return lambda number: diagnosis.measure(student, setting.pictures(number), references) and None


def proof(setting: Setting) -> Run:
    """That the file has every integer that was predicted. Of a random network top-1 says nothing."""

    def run(number: int) -> None:
        found, graph, content = _exported(setting)
        verification, classes = examine(content, graph, found, Gate(), TARGETS["phone"], ["litert"])
        if not verification["passed"]:
            sys.exit(f"error: {verification['failures']}")
        kept = {"verification": verification, "classes": {name: row.tolist() for name, row in classes.items()}}
        (setting.run.path / PROOF).write_text(json.dumps(kept))

    return run


def running_on(name: str) -> Callable[[Setting], Run]:
    """A runtime that is given images one at a time."""

    def prepare(setting: Setting) -> Run:
        *_, content = _exported(setting)
        graph = read_back(content)
        return lambda number: infer(name, graph, content, setting.pictures(number)) and None

    return prepare


def reporting(setting: Setting) -> Run:
    folder = setting.run.path
    kept = json.loads((folder / PROOF).read_text())
    classes = {name: np.array(row) for name, row in kept["classes"].items()}
    return lambda number: report.write(folder, kept["verification"], folder / "report.html", classes)


PROOF = "proof.json"


def _exported(setting: Setting) -> tuple:
    """The handoff, its graph and its file."""
    found = load_handoff(setting.run.handoff)
    graph = store(rebuild(found, "uint8"), "auto", TARGETS["phone"])
    return found, graph, convert(graph, "scale")


@dataclasses.dataclass(frozen=True)
class Step:
    """A row of the table.

    Attributes:
      few, many: images of the two runs. One of few goes before them, for what is done once in a process.
      total: side of the pictures, batch -> images of this step in a job of ImageNet's size.
      faster: what more of would make it faster: "cores", "gpu" or "nothing".
    """

    prepare: Callable[[Setting], Run]
    few: int
    many: int
    total: Callable[[int, int], int]
    faster: str


def _slow_images(side: int, batch: int) -> int:
    """Of the runtimes that get the first pixels alone."""
    return min(TEST, SLOW_PIXELS // side**2)


# In their order: what is exported is what was handed over.
STEPS: Mapping[str, Step] = {
    "opening": Step(opening, NUM_LISTED // 4, NUM_LISTED, lambda *_: TRAIN + VALIDATION + TEST, "nothing"),
    "scanning": Step(scanning, 100, NUM_READ // 2, lambda *_: TRAIN + VALIDATION + TEST, "cores"),
    "scanning again": Step(scanning_again, 100, NUM_READ // 2, lambda *_: TRAIN + VALIDATION + TEST, "nothing"),
    "an epoch's input": Step(epoch_input, NUM_READ, 5 * NUM_READ, lambda *_: TRAIN, "cores"),
    "calibration": Step(
        calibration, 32, 128, lambda side, batch: QuantizationSpec().calibration_batches * batch, "gpu"
    ),
    "validation": Step(validation, 32, 128, lambda *_: VALIDATION, "gpu"),
    "handoff, judge's integers": Step(handing_over_the_rest, 64, 160, lambda *_: TEST, "cores"),
    "handoff, all integers": Step(handing_over, 16, NUM_TEST, _slow_images, "cores"),
    "diagnosis": Step(diagnosing, 8, diagnosis.NUM_IMAGES, lambda *_: diagnosis.NUM_IMAGES, "gpu"),
    "proof": Step(proof, 0, 0, lambda *_: 0, "nothing"),
    "litert": Step(running_on("litert"), 4, 16, lambda *_: TEST, "nothing"),
    "litert_reference": Step(running_on("litert_reference"), 1, 3, _slow_images, "nothing"),
    "tflm": Step(running_on("tflm"), 1, 3, _slow_images, "nothing"),
    "report": Step(reporting, 0, 0, lambda *_: 0, "nothing"),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a step: `fixed`, and for each image."""

    fixed: float
    of_image: float

    @classmethod
    def of(cls, few: tuple[int, float], many: tuple[int, float] | None = None) -> "Cost":
        """Of two runs, (images, seconds) each; of one alone everything counts as fixed."""
        if many is None:
            return cls(few[1], 0.0)
        of_image = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        return cls(max(0.0, few[1] - of_image * few[0]), of_image)

    def hours(self, num_images: int) -> float:
        return (self.fixed + self.of_image * num_images) / 3600

    def elsewhere(self, faster: str, num_cores: int) -> "Cost":
        """On CORES cores and a GPU of GPU_IMAGES: no measurement."""
        of_image = {
            "cores": self.of_image * num_cores / CORES,
            "gpu": min(self.of_image, 1 / GPU_IMAGES),
            "nothing": self.of_image,
        }[faster]
        return Cost(self.fixed, of_image)


def measure(setting: Setting, name: str) -> dict:
    """A step in this process: a row of the table as JSON values."""
    step = STEPS[name]
    run, before, runs = step.prepare(setting), resident_bytes("VmRSS"), []
    for number in (step.few, step.few, step.many) if step.many > step.few else (step.many,):
        start = time.perf_counter()
        run(number)
        runs.append((number, time.perf_counter() - start))
    cost, total = Cost.of(*runs[-2:]), step.total(setting.side, setting.batch)
    return {
        "peak": max(before, resident_bytes("VmHWM")) / 1e9,  # the kernel counts its peak a little late
        "before": before / 1e9,
        "seconds": runs[-1][1],
        "of_image": cost.of_image,
        "here": cost.hours(total),
        "there": cost.elsewhere(step.faster, os.cpu_count()).hours(total),
    }


def in_child(setting: Setting, name: str) -> dict:
    """`measure` in a process of its own, which remembers nothing of other looks at pictures; or the "error" in it."""
    command = [sys.executable, "-m", "benchmarks.scale", f"--batch={setting.batch}", f"--folder={setting.folder}"]
    command += [f"--photographs={setting.photographs}"] if setting.photographs else []
    done = subprocess.run(
        [*command, f"--network={setting.network}", f"--step={name}"],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(setting.folder.resolve() / "cache")},
    )
    return json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {"error": done.stderr.splitlines()[-1]}


def line(setting: Setting, name: str, row: dict) -> str:
    """A row of the Markdown table."""
    head = f"| {setting.network}, {setting.side} | {name} | "
    if "error" in row:
        return f"{head}{row['error']} | | | | | |"
    return head + (
        f"{row['peak']:.2f} | {row['before']:.2f} | {row['seconds']:.1f} | {row['of_image']:.2g} | "
        f"{row['here']:.2g} | {row['there']:.2g} |"
    )


def sums(setting: Setting, rows: Mapping[str, dict]) -> str:
    """The last row of a network; what failed is left out, and told above."""
    found = [row for name, row in rows.items() if name not in AT_A_RESTART and "error" not in row]
    here, there = (sum(row[where] for row in found) for where in ("here", "there"))
    peak = max((row["peak"] for row in found), default=0)
    return f"| {setting.network}, {setting.side} | all | {peak:.2f} | | | | {here:.2g} | {there:.2g} |"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--photographs", type=pathlib.Path)
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--step", choices=STEPS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        if given.network and given.step:
            print(json.dumps(measure(Setting(given.network, given.batch, folder, given.photographs), given.step)))
            return
        print(f"batch {given.batch}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n{HEADER}")
        for network in [given.network] if given.network else NETWORKS:
            setting, rows = Setting(network, given.batch, folder, given.photographs), {}
            for step in [given.step] if given.step else STEPS:
                rows[step] = in_child(setting, step)
                print(line(setting, step, rows[step]), flush=True)
            print(sums(setting, rows), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
