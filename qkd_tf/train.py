"""Trains a low-bit student by QKD: python -m qkd_tf.train --flagfile=configs/NAME.flags."""

import itertools
import sys

import tensorflow as tf
import tf_keras
from absl import app, logging

from qkd_tf import data, flags, handoff, results
from qkd_tf.distillation.trainer import Trainer
from qkd_tf.experiment import Experiment, ExperimentError
from qkd_tf.models import weights, zoo
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.run_folder import RunFolder


def run(experiment: Experiment, folder: RunFolder) -> None:
    """One experiment from images to handoff.

    Raises:
      ExperimentError: data, networks or weights that do not fit; a loss that diverged.
    """
    tf_keras.utils.set_random_seed(experiment.seed)
    splits = data.load(experiment.data)
    networks = [network for network in (experiment.student, experiment.teacher) if network]
    built = [zoo.build(network, splits.image_shape, len(splits.label_names)) for network in networks]
    for network, model in zip(networks, built, strict=True):
        for note in weights.load(model, network) if network.weights else ():
            print(note)
    plain, teacher = (*built, None)[:2]

    student = quantize_student(plain, experiment.quantization)
    print(student.summary())
    calibration = itertools.islice(splits.calibration, experiment.quantization.calibration_batches)
    images = [batch for batch, _ in calibration]
    pretrained = {"student": experiment.student.weights, "teacher": experiment.teacher and experiment.teacher.weights}
    trainer = Trainer(
        experiment.training,
        student,
        teacher,
        frozenset(name for name, file in pretrained.items() if file),
        splits,
        folder,
        lambda: calibrate(student, images, experiment.quantization.interval_init, experiment.seed),
    )
    folder.claim()
    phases = trainer.run()
    student_top1 = handoff.write(student, splits, folder)
    results.write(folder, experiment, splits, student, phases, student_top1)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        experiment = flags.experiment_from_flags()
        zoo.check_name(experiment.student.name, "--student")
        if experiment.teacher:
            zoo.check_name(experiment.teacher.name, "--teacher")
        run(experiment, RunFolder(experiment.run_dir, flags.flag_lines()))
    except ExperimentError as error:
        sys.exit(f"error: {error}")
    print(f"handoff written; next: python -m tflite_export --run_dir={experiment.run_dir}")


if __name__ == "__main__":
    app.run(main)
