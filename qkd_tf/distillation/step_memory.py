"""Memory of a training step, estimated from its networks, compared with what the machine has free."""

import psutil
import tensorflow as tf
import tf_keras

from qkd_tf.console.counting import counted
from qkd_tf.distillation.phases import PHASES
from qkd_tf.experiment import TrainingSpec
from qkd_tf.process.portions import values_of_image

FLOAT_BYTES = 4
# Of a network's outputs, kept from forwards to backwards. Measured by benchmarks/step_memory.py.
PER_OUTPUT = 1.3
ROOM = 0.8  # of the free memory that a suggestion fills


def image_bytes(student: tf_keras.Model, teacher: tf_keras.Model | None, training: TrainingSpec) -> int:
    """Approximate bytes for each image of a batch, in the phase that takes the most.

    Args:
      student: the float network, in standard form.
      teacher: counts if a phase trains it; a fixed one keeps nothing for gradients.
    """
    trains_teacher = teacher is not None and any(PHASES[phase.name].teacher == "trained" for phase in training.phases)
    outputs = sum(values_of_image(model.layers) for model in (student, teacher if trains_teacher else None) if model)
    return round(PER_OUTPUT * FLOAT_BYTES * outputs)


def notes(
    student: tf_keras.Model, teacher: tf_keras.Model | None, training: TrainingSpec, batch_size: int
) -> list[str]:
    """A note if a step takes more memory than is free; none on a GPU or on several devices, which have their own.

    Args:
      batch_size: images of a whole batch.
    """
    if not training.phases or training.strategy != "default" or tf.config.list_physical_devices("GPU"):
        return []
    at_once, free = batch_size // training.gradient_accumulation_steps, psutil.virtual_memory().available
    of_image = image_bytes(student, teacher, training)
    if at_once * of_image <= free:
        return []
    images = counted(at_once, "image")
    takes = f"note: a training step takes about {_gb(at_once * of_image)} of memory for {images} at a time"
    fitting = [part for part in range(1, at_once) if batch_size % part == 0 and part * of_image <= ROOM * free]
    if not fitting:
        return [f"{takes}, but only {_gb(free)} is free: the training may be killed; give a smaller --image_size"]
    return [
        f"{takes}, but only {_gb(free)} is free: the training may be killed; --gradient_accumulation_steps="
        f"{batch_size // fitting[-1]} takes about {_gb(fitting[-1] * of_image)}; a smaller --batch_size helps, too"
    ]


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
