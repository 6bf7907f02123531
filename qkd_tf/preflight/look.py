"""Shows what the networks of an experiment will be, before anything is trained."""

import numpy as np

from qkd_tf import data, networks
from qkd_tf.console.examples import speaking_of_examples
from qkd_tf.distillation import step_memory
from qkd_tf.experiment import (
    DataSpec,
    Experiment,
    ExperimentError,
    require,
    require_class_weights,
    require_count,
    require_networks,
)
from qkd_tf.outcome import handoff
from qkd_tf.quantization import bytes_by_bits, layer_table
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.quantization.stored_bytes import stored_files


def look(experiment: Experiment, num_classes: int = 0, source: data.Source | None = None) -> str:
    """Prints what the networks of an experiment will be; nothing is written or trained.

    Args:
      num_classes: number of classes of a data set that is not here; 0 to take it from the set.
      source: the experiment's set, if it is open already.

    Returns:
      The totals of the student's table, in one line.

    Raises:
      ExperimentError: the experiment cannot be trained, as far as its networks show.
    """
    require_networks(experiment)
    shape, num_classes, images, source = _pictures(experiment.data, num_classes, source)
    with speaking_of_examples(source is not None and source.input_params is not None, (ExperimentError,)):
        return _look(experiment, shape, num_classes, images, source)


def _look(
    experiment: Experiment,
    shape: tuple[int, int, int],
    num_classes: int,
    images: np.ndarray,
    source: data.Source | None,
) -> str:
    experiment = networks.on_source(experiment, source) if source else experiment
    student, plan = networks.checked_student(experiment, shape, num_classes, every_layer=True)
    experiment = experiment.for_student(student.augmenting is not None)
    found = [student]
    if experiment.teacher:
        found.append(networks.checked_teacher(experiment, shape, num_classes))
        networks.require_comparable(experiment, student.model, found[-1].model)
    for network in found:
        network.prove(images)
        for note in network.notes:
            print(note)
    quantized = quantize_student(student.model, experiment.quantization, plan=plan)
    print(quantized.summary())
    of_bytes = bytes_by_bits.notes(student.model, plan, experiment.target, experiment.quantization)
    for note in (*of_bytes, *quantized.notes_on_normalization(experiment.quantization.normalize_weights)):
        print(note)
    teacher = found[-1].model if experiment.teacher else None
    for note in step_memory.notes(student.model, teacher, experiment.training, experiment.data.batch_size):
        print(note)
    handoff.require_readable(quantized)
    augmentation = data.open_augmentation(experiment.data, shape, of_student=student.augmenting)
    for note in augmentation.notes if augmentation else ():
        print(note)
    if source is not None:
        data.require_enough(source, experiment.data)
        require_class_weights(experiment.training.class_weights, source.label_names)
        notes = (*source.notes, *source.early_notes(), *data.notes_on_classes(source, experiment.data))
        for note in (*notes, *experiment.notes_on(source.train.num_examples)):
            print(note)
    model, target = student.model, experiment.target
    file, *_ = stored_files(model, plan, target, experiment.quantization)
    return layer_table.totals(layer_table.rows(model, plan), model, target, file)


def _pictures(
    spec: DataSpec, num_classes: int, source: data.Source | None
) -> tuple[tuple[int, int, int], int, np.ndarray, data.Source | None]:
    """(Shape, number of classes, pictures, set), from the set itself or from flags; set is None if it is not here."""
    require_count(num_classes, "num_classes", why="0 takes those of the set")
    if source is not None:
        return source.image_shape, len(source.label_names), networks.proof_images(spec, source), source
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
