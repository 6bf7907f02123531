"""What a student will be, layer by layer, before anything is trained: python -m qkd_tf.preflight --flagfile=FILE."""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import sys

import numpy as np
from absl import app

from qkd_tf import data, flags, networks
from qkd_tf.console import command_line
from qkd_tf.experiment import DataSpec, Experiment, ExperimentError, class_weights, require, require_count
from qkd_tf.outcome import handoff
from qkd_tf.quantization import layer_table
from qkd_tf.quantization.scheme import quantize_student

FLAGS = flags.FLAGS.extended()  # those of the training, and its own
FLAGS.DEFINE_integer("num_classes", 0, "Classes of a set that is not at hand; with --image_size and --image_channels.")


def look(experiment: Experiment, num_classes: int = 0) -> str:
    """Prints what the networks of an experiment will be; nothing is written or trained.

    Args:
      num_classes: of a set that is not at hand; 0 where the set tells.

    Returns:
      The sums of the student's table, in a line.

    Raises:
      ExperimentError: whatever would keep it from being trained, as far as its networks tell.
    """
    networks.check_name(experiment.student, "--student")
    if experiment.teacher:
        networks.check_name(experiment.teacher, "--teacher")
    shape, num_classes, images, source = _pictures(experiment.data, num_classes)
    experiment = networks.on_source(experiment, source) if source else experiment
    student, plan = networks.checked_student(experiment, shape, num_classes)
    found = [student]
    if experiment.teacher:
        found.append(networks.checked_teacher(experiment, shape, num_classes))
    for network in found:
        network.prove(images)
        for note in network.notes:
            print(note)
    quantized = quantize_student(student.model, experiment.quantization, plan=plan)
    print(quantized.summary())
    handoff.require_readable(quantized)
    augmentation = data.open_augmentation(experiment.data, shape)
    for note in augmentation.notes if augmentation else ():
        print(note)
    if source is not None:
        data.require_enough(source, experiment.data)
        class_weights(experiment.training.class_weights, source.label_names, lambda: [1] * len(source.label_names))
        for note in source.notes if source.input_params else ():  # of pictures that are not yet read it may change
            print(note)
        for note in (*experiment.data.notes, *experiment.notes_on(source.train.num_examples)):
            print(note)
    return layer_table.totals(layer_table.rows(student.model, plan), student.model, experiment.target)


def _pictures(spec: DataSpec, num_classes: int) -> tuple[tuple[int, int, int], int, np.ndarray, data.Source | None]:
    """(Shape, number of classes, pictures, set), as the set itself or flags tell; None where it is not there."""
    require_count(num_classes, "num_classes", why="0 takes those of the set")
    if num_classes:
        require(spec.size is not None, f"--num_classes={num_classes} without --image_size; give both")
        shape, reason = (*spec.size, spec.image_channels or 3), "--num_classes stands for a set"
    else:
        shape, label_names = data.describe(spec)
        num_classes = len(label_names)
        try:
            source = data.open_source(spec)
            images = networks.proof_images(spec, source)
        except ExperimentError as error:
            reason = str(error)
        else:
            return shape, num_classes, images, source
    print(f"note: networks are compared on noise, not on pictures: {reason}")
    noise = np.random.default_rng(0).integers(0, 256, (networks.NUM_PROOF_IMAGES, *shape)).astype(np.uint8)
    return shape, num_classes, noise, None


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        look(flags.experiment_from_flags(FLAGS, trains=False), FLAGS.num_classes)
    except ExperimentError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
