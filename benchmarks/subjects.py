"""What the benchmarks measure: networks, training steps and files, all from random weights and random pixels."""

import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.quantization.keras import quantize_annotate_layer, quantize_apply

from qkd_tf import data
from qkd_tf.distillation.distiller import Distiller, ParameterGroup
from qkd_tf.distillation.phases import PHASES
from qkd_tf.experiment import DataSpec, NetworkSpec, PixelNormalization, QuantizationSpec
from qkd_tf.models import zoo
from qkd_tf.outcome import handoff
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.storage.run_folder import RunFolder

PIXELS = PixelNormalization((128.0,), (64.0,))
BATCH = 128
CIFAR = (32, 32, 3)
# Student -> teacher, at CIFAR's size.
PAIRS = {
    "resnet8": "resnet20",
    "resnet20": "resnet56",
    "mobilenet_v2_0.5_cifar": "mobilenet_v2_1.0_cifar",
}


def build(name: str, image_shape=CIFAR, num_classes: int = 10) -> tf_keras.Model:
    return zoo.build(NetworkSpec(name, PIXELS), image_shape, num_classes)


def quantized(name: str) -> tf_keras.Model:
    """Our W4A4 student."""
    return quantize_student(build(name), QuantizationSpec()).model


def tfmot_8_bits(name: str) -> tf_keras.Model:
    """TFMOT's own 8-bit scheme on all layers but Rescaling, which it does not know."""

    def annotate(layer):
        return layer if isinstance(layer, tf_keras.layers.Rescaling) else quantize_annotate_layer(layer)

    return quantize_apply(tf_keras.models.clone_model(build(name), clone_function=annotate))


def make_distiller(phase: str, student: tf_keras.Model, teacher: tf_keras.Model | None = None) -> Distiller:
    def groups(model):
        optimizer = tf_keras.optimizers.SGD(0.001, momentum=0.9)
        optimizer.build(model.trainable_variables)
        return [ParameterGroup(optimizer, model.trainable_variables)]

    trained = teacher is not None and PHASES[phase].teacher == "trained"
    return Distiller(
        PHASES[phase], student, teacher, groups(student), groups(teacher) if trained else [], 2.0, lambda: 1.0, 1e-4
    )


def make_step(phase: str, student: tf_keras.Model, teacher: tf_keras.Model | None = None) -> Callable[[], np.ndarray]:
    """A compiled training step of one phase on a random batch; a call waits for it."""
    step, batch = tf.function(make_distiller(phase, student, teacher).train_step), random_batch()
    return lambda: next(iter(step(batch).values())).numpy()


def random_batch(image_shape=CIFAR) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *image_shape), np.uint8)
    return tf.constant(images), tf.constant(rng.integers(0, 10, BATCH))


def random_splits(num_train: int, num_test: int, image_shape=CIFAR, num_classes: int = 10) -> data.Splits:
    """Random pictures behind the product's own input pipeline."""
    rng = np.random.default_rng(0)

    def pictures(number):
        images = rng.integers(0, 256, (number, *image_shape), np.uint8)
        return data.in_memory(images, rng.integers(0, num_classes, number))

    names = [str(number) for number in range(num_classes)]
    source = data.Source(pictures(num_train), pictures(num_test), pictures(num_test), image_shape, names, "random")
    return data.pipelines(source, DataSpec("random", batch_size=min(BATCH, num_train)))


def write_handoff(
    name: str, image_shape, num_classes: int, spec: QuantizationSpec | None = None, num_test: int = 1
) -> tuple[tf_keras.Model, pathlib.Path]:
    """A calibrated student's handoff, at W4A4 unless told, and the float network that it was."""
    model = build(name, image_shape, num_classes)
    return model, hand_over(model, spec, num_test)


def hand_over(model: tf_keras.Model, spec: QuantizationSpec | None = None, num_test: int = 1) -> pathlib.Path:
    """The handoff of a float network: quantized, at W4A4 unless told, and calibrated."""
    splits = random_splits(16, num_test, model.input_shape[1:], model.output_shape[-1])
    student = quantize_student(model, spec or QuantizationSpec())
    calibrate(student, [images for images, _ in splits.calibration], "mse")
    folder = RunFolder(str(pathlib.Path(tempfile.mkdtemp()) / "run"), [])
    folder.claim()
    handoff.write(student, splits, folder)
    return folder.handoff
