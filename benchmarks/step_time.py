"""Seconds of one training step, all kinds side by side in one run: make bench.

Random images of CIFAR's size, batch 128, student ResNet-8, teacher ResNet-20. Rounds go through all
kinds in turn, so that whatever else the machine does falls on all of them; the median counts.
"""

import statistics
import time

import numpy as np
import tensorflow as tf
import tf_keras
from absl import app, flags
from tensorflow_model_optimization.quantization.keras import quantize_annotate_layer, quantize_apply

from qkd_tf.distillation.distiller import Distiller, ParameterGroup
from qkd_tf.distillation.phases import PHASES
from qkd_tf.experiment import NetworkSpec, PixelNormalization, QuantizationSpec
from qkd_tf.models import zoo
from qkd_tf.quantization.scheme import quantize_student

FLAGS = flags.FLAGS
flags.DEFINE_string("student", "resnet8", "Network of the zoo.")
flags.DEFINE_string("teacher", "resnet20", "Network of the zoo.")
flags.DEFINE_integer("rounds", 15, "Timed steps of each kind.")

PIXELS = PixelNormalization((0.0,), (255.0,))
BATCH = 128
WARM_UP = 3


def build(name: str) -> tf_keras.Model:
    return zoo.build(NetworkSpec(name, PIXELS), (32, 32, 3), 10)


def tfmot_default(model: tf_keras.Model) -> tf_keras.Model:
    """TFMOT's 8-bit scheme on all layers but Rescaling, which it does not know."""

    def annotate(layer):
        return layer if isinstance(layer, tf_keras.layers.Rescaling) else quantize_annotate_layer(layer)

    return quantize_apply(tf_keras.models.clone_model(model, clone_function=annotate))


def make_step(phase: str, student: tf_keras.Model, teacher: tf_keras.Model | None = None):
    """A compiled training step of one phase."""

    def groups(model):
        optimizer = tf_keras.optimizers.SGD(0.001, momentum=0.9)
        optimizer.build(model.trainable_variables)
        return [ParameterGroup(optimizer, model.trainable_variables)]

    trained = teacher is not None and PHASES[phase].teacher == "trained"
    distiller = Distiller(
        PHASES[phase], student, teacher, groups(student), groups(teacher) if trained else [], 2.0, 1.0, 1e-4
    )
    return tf.function(lambda images, labels: distiller.train_step((images, labels)))


def main(argv: list[str]) -> None:
    del argv
    tf.get_logger().setLevel("ERROR")
    quantized = quantize_student(build(FLAGS.student), QuantizationSpec()).model
    teacher = build(FLAGS.teacher)
    steps = {
        "full precision": make_step("full_precision", build(FLAGS.student)),
        "TFMOT's own 8-bit QAT": make_step("full_precision", tfmot_default(build(FLAGS.student))),
        "self-studying": make_step("self_studying", quantized),
        "co-studying": make_step("co_studying", quantized, teacher),
        "tutoring": make_step("tutoring", quantized, teacher),
    }
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (BATCH, 32, 32, 3)), tf.uint8)
    labels = tf.constant(rng.integers(0, 10, BATCH))
    seconds = {kind: [] for kind in steps}
    for number in range(WARM_UP + FLAGS.rounds):
        for kind, step in steps.items():
            start = time.perf_counter()
            next(iter(step(images, labels).values())).numpy()
            if number >= WARM_UP:
                seconds[kind].append(time.perf_counter() - start)
    base = statistics.median(seconds["full precision"])
    print(f"{FLAGS.student} taught by {FLAGS.teacher}, batch {BATCH}, median of {FLAGS.rounds} steps")
    for kind, values in seconds.items():
        print(f"{kind:24}{statistics.median(values):7.3f} s{statistics.median(values) / base:7.2f} x")


if __name__ == "__main__":
    app.run(main)
