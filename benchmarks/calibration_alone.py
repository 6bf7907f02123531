"""MobileNetV2 at W8A8 after calibration alone: python -m benchmarks.calibration_alone --weights=NPZ --pictures=FOLDER

FOLDER holds a folder a class, named by its label: 0000 … 0999. A seeded choice of the pictures calibrates, the rest is
the test. Training's and the exporter's own command lines make the file; then it is asked beside the float network. A
file that the exporter's gate refuses is measured too, and the JSON holds why it was refused.
Writes benchmarks/calibration_alone/mobilenet_v2_w8a8.json and prints the table of README.md. Minutes, and more where
the machine is busy; --folder keeps pictures and run, and an export is made anew.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks import kept_results
from qkd_tf import data, flags, networks
from qkd_tf.evaluate import predict_logits
from qkd_tf.experiment import Experiment, NetworkSpec
from qkd_tf.quantization.batch_norm import BatchNormEstimator, BatchNormShift
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.equalization import equalize_channels
from qkd_tf.quantization.scheme import quantize_student

RESULT = pathlib.Path(__file__).parent / "calibration_alone" / "mobilenet_v2_w8a8.json"
NUM_CLASSES, NUM_CALIBRATION, BATCH = 1000, 200, 25
CHOSEN = (
    "--student=mobilenet_v2_1.0",
    "--student_weights_mean=127.5",
    "--student_weights_std=127.5",
    "--student_pixel_mean=128",
    "--student_pixel_std=127.5",
    "--weight_bits=8",
    "--activation_bits=8",
    "--phases=",
    f"--batch_size={BATCH}",
    f"--calibration_batches={NUM_CALIBRATION // BATCH}",
)
CHOICE = ("interval_init", "equalized", "statistics")
# What else could have been chosen.
VARIANTS = (
    ("minmax", True, "shift"),
    ("lsq", True, "shift"),
    ("mse", True, "full precision's"),
    ("mse", True, "batches"),
    ("mse", False, "shift"),
    ("mse", False, "full precision's"),
)


def lay_out(
    pictures: pathlib.Path, root: pathlib.Path, num_train: int = NUM_CALIBRATION, num_validation: int = 0
) -> None:
    """Links to the pictures as train, validation and test of a `folder:` set, with all class names in labels.txt.

    Without pictures of its own validation has one of train's again: there must be one, and nothing looks at it.
    """
    paths = sorted(pictures.glob("*/*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))
    train, validation, test = np.split(order, [num_train, num_train + num_validation])
    for split, part in (("train", train), ("validation", validation if num_validation else train[:1]), ("test", test)):
        for path in (paths[index] for index in part):
            folder = root / split / path.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / path.name).is_symlink():  # of an earlier call
                (folder / path.name).symlink_to(path.resolve())
    (root / "labels.txt").write_text("".join(f"{label:04d}\n" for label in range(NUM_CLASSES)))


def run(*command: str, may_refuse: bool = False) -> None:
    subprocess.run([sys.executable, "-m", *command], check=not may_refuse)  # noqa: S603


def file_logits(content: bytes, images: np.ndarray) -> np.ndarray:
    """[N, K] int8 of a file that takes uint8 pixels, by LiteRT's interpreter and nothing of ours."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (pixels,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(pixels["index"], image[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(logits["index"])[0])
    return np.stack(rows)


def float_logits(experiment: Experiment, splits: data.Splits) -> np.ndarray:
    """[N, K] of the weights under the normalisation that they were trained under."""
    student = experiment.student
    network = NetworkSpec(student.name, student.weights_normalization, student.weights)
    model, _ = networks.build_teacher(network, splits.image_shape, len(splits.label_names))
    return predict_logits(model, splits.test)[0]


def variant_logits(
    experiment: Experiment, splits: data.Splits, interval_init: str, equalized: bool, statistics: str
) -> np.ndarray:
    """[N, K] of the Keras student, calibrated in another way."""
    model, _ = networks.build_student(experiment.student, splits.image_shape, len(splits.label_names))
    if equalized:
        equalize_channels(model)
    student = quantize_student(model, experiment.quantization)
    images = [images for images, _ in splits.calibration]
    calibrate(student, images, interval_init, experiment.seed)
    if statistics == "shift":
        BatchNormShift(student).estimate(images)
    if statistics == "batches":
        BatchNormEstimator(student.model).estimate(images)
    return predict_logits(student.model, splits.test)[0]


def measure(run_dir: pathlib.Path) -> dict:
    """The numbers of a finished and exported run, beside those of the float network."""
    flags.FLAGS(["calibration_alone", f"--flagfile={run_dir / 'flags.txt'}"])
    experiment = flags.experiment_from_flags()
    splits = data.load(experiment.data)
    handoff = run_dir / "handoff"
    labels, images = np.load(handoff / "test_labels.npy"), np.load(handoff / "test_images.npy", mmap_mode="r")
    chosen = np.argmax(float_logits(experiment, splits), axis=-1)

    def row(logits: np.ndarray) -> dict:
        predicted = np.argmax(logits, axis=-1)
        return {"top1": percent(predicted == labels), "agreement_with_float": percent(predicted == chosen)}

    def variant(*choice) -> dict:
        fields = dict(zip(CHOICE, choice, strict=True))
        return {**fields, **row(variant_logits(experiment, splits, *choice))}

    logits = file_logits((run_dir / "export" / "model.tflite").read_bytes(), images)
    results = json.loads((run_dir / "results.json").read_text())
    verification = json.loads((run_dir / "export" / "verification.json").read_text())
    spec = experiment.quantization
    return {
        "num_images": len(labels),
        "num_calibration": splits.num_train,
        "float": {"top1": percent(chosen == labels)},
        "student": row(np.load(handoff / "student_logits.npy")),
        "file": {**row(logits), "agreement_with_student": _agreement(logits, handoff)},
        "passed": verification["passed"],
        "failures": verification["failures"],
        "bytes": verification["file"]["bytes"],
        "chosen": {
            "interval_init": spec.interval_init,
            "equalized": experiment.equalized_spread is not None,
            "statistics": "shift"
            if experiment.training.shifts_calibrated_statistics(experiment.pretrained)
            else "full precision's",
        },
        "variants": [variant(*choice) for choice in VARIANTS],
        "flags": list(CHOSEN),
        "seed": experiment.seed,
        "test_sha256": splits.fingerprint["test_sha256"],
        "versions": results["versions"],
        "machine": results["machine"],
    }


def _agreement(logits: np.ndarray, handoff: pathlib.Path) -> float:
    student = np.load(handoff / "student_logits.npy")
    return percent(np.argmax(logits, axis=-1) == np.argmax(student, axis=-1))


def percent(hits: np.ndarray) -> float:
    return 100.0 * float(np.mean(hits))


def table(numbers: dict) -> list[str]:
    """Lines of benchmarks/README.md."""
    chosen = numbers["chosen"]
    lines = [
        "| MobileNetV2 1.0, 224 pixels | top-1, % | same class as float, % |",
        "|---|---|---|",
        f"| float | {numbers['float']['top1']:.2f} | |",
        _line(f"Keras student, W8A8 ({_told(**chosen)})", numbers["student"]),
        _line("**its file on LiteRT**", numbers["file"]),
    ]
    return lines + [
        _line(f"Keras student, {_told(**{key: row[key] for key in CHOICE})}", row) for row in numbers["variants"]
    ]


def _told(interval_init: str, equalized: bool, statistics: str) -> str:
    told = {"shift": "statistics shifted", "batches": "statistics of the batches"}
    return (
        f"{interval_init}, channels {'' if equalized else 'not '}equalized, "
        f"{told.get(statistics, f'statistics {statistics}')}"
    )


def _line(name: str, row: dict) -> str:
    return f"| {name} | {row['top1']:.2f} | {row['agreement_with_float']:.2f} |"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="MobileNetV2 1.0 224, pixels / 127.5 - 1")
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="folder of LABEL/*.jpg")
    parser.add_argument("--folder", type=pathlib.Path, help="where to work; default: a temporary one")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        root, run_dir = folder / "pictures", folder / "mobilenet_v2_w8a8"
        lay_out(given.pictures, root)
        paths = (f"--dataset=folder:{root}", f"--student_weights={given.weights}", f"--run_dir={run_dir}")
        if not (run_dir / "results.json").exists():
            run("qkd_tf.train", *CHOSEN, *paths)
        (run_dir / "export" / "verification.json").unlink(missing_ok=True)  # an export that crashes leaves none
        run("tflite_export", f"--run_dir={run_dir}", "--runtimes=", may_refuse=True)
        numbers = measure(run_dir)
    kept_results.keep(RESULT, numbers)
    print(*table(numbers), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
