"""Trains two small networks: python tests/qkd_tf/distillation/replicas.py CASE FOLDER STRATEGY ...

Each strategy leaves FOLDER/STRATEGY/checkpoints and FOLDER/STRATEGY.json, what `Trainer.run` returned. The CPU stands
for two devices, where there is no TF_CONFIG.
"""

import functools
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[3]))
import qkd_tf  # noqa: F401, I001  Keras 2
import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.distillation import strategies
from qkd_tf.data import Splits
from qkd_tf.distillation import distiller
from qkd_tf.distillation.mixed_precision import LossScale
from qkd_tf.distillation.phase_setup import Networks
from qkd_tf.distillation.trainer import Events, Place, Trainer
from qkd_tf.experiment import PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student, quantizer_implementation
from qkd_tf.storage.run_folder import RunFolder

BATCH_SIZE, STEPS = 16, 3
# What goes wrong where something is done once a replica is made large.
CASES = {
    "float32": dict(
        phases=(PhaseSpec("co_studying", 2, 0.01),),
        weight_decay=0.1,
        dampening=0.5,
        feature_distillation_weight=0.5,
        freeze_threshold_start=0.02,
        freeze_threshold_end=0.005,
        weights_ema=0.5,
        batch_norm_batches=2,
    ),
    # On a CPU operations stay in float32; what is tried is the scaled loss.
    "float16": dict(phases=(PhaseSpec("self_studying", 2, 0.01),), mixed_precision="float16", steps_per_execution=3),
}
CASES["overflow"] = CASES["float16"]  # the scale begins so large that steps are left out


class TooLarge(LossScale):
    """How often the student's was halved is in FOLDER/halved in the end."""

    def __init__(self):
        super().__init__(first_scale=3e38)
        MADE.append(self)


MADE: list[TooLarge] = []


def network(seed: int, width: int = 4) -> tf_keras.Model:
    """A residual network with a depthwise convolution, from 8 x 8 pixels to 5 classes; random weights by `seed`."""
    inputs = tf_keras.Input((8, 8, 3), name="pixels")
    x = layers.Rescaling(1 / 64, -2.0, name="normalization")(inputs)
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(x)
    x = shortcut = layers.ReLU(name="stem_relu")(layers.BatchNormalization(momentum=0.9, name="stem_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU(name="depthwise_relu")(layers.BatchNormalization(momentum=0.9, name="depthwise_bn")(x))
    x = layers.Conv2D(width, 1, use_bias=False, name="linear")(x)
    x = layers.BatchNormalization(momentum=0.9, name="linear_bn")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="add")([shortcut, x]))
    model = tf_keras.Model(inputs, layers.Dense(5, name="logits")(x), name="residual")
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(0.0, 0.2, variable.shape))
    return model


def splits() -> Splits:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 80)
    pictures = np.clip(rng.normal(60 + 30 * labels[:, None, None, None], 40, (80, 8, 8, 3)), 0, 255).astype(np.uint8)

    def batches(part) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((pictures[part], labels[part])).batch(BATCH_SIZE)

    def train(epoch, step=0, share=(0, 1)) -> tf.data.Dataset:
        order = np.random.default_rng(epoch).permutation(BATCH_SIZE * STEPS).reshape(STEPS, share[1], -1)
        size = BATCH_SIZE // share[1]
        return batches(order[:, share[0]].ravel()).unbatch().batch(size).skip(step)

    return Splits(
        train=train,
        calibration=batches(np.arange(48)),
        validation=batches(np.arange(48, 63)),
        test=batches(np.arange(63, 80)),
        num_train=BATCH_SIZE * STEPS,
        batch_size=BATCH_SIZE,
        image_shape=(8, 8, 3),
        label_names=["ant", "bee", "cat", "dog", "elk"],
        fingerprint={"name": "tiny", "num_test": 17},
    )


def train(case: str, folder: pathlib.Path, strategy: str) -> None:
    devices = strategies.start(strategy)
    tf_keras.utils.set_random_seed(0)
    spec, data = TrainingSpec(**CASES[case], strategy=strategy), splits()
    quantization = QuantizationSpec(weight_bits=3, interval_gradient_share=1.0)
    with devices.scope():
        student = quantize_student(network(4), quantization, quantizer_implementation(spec))
        teacher = network(6)
    student, teacher = student.with_models(devices.replicated), devices.replicated(teacher)
    name = strategy if devices.is_chief else f"{strategy}_2"
    run_folder = RunFolder(str(folder / name), ["--student=tiny"])
    run_folder.claim()
    images = [batch for batch, _ in data.calibration]
    first = functools.partial(calibrate, student, images, "mse")
    trainer = Trainer(spec, Networks(student, teacher), data, Place(run_folder, distribution=devices), Events(first))
    (folder / f"{name}.json").write_text(json.dumps(trainer.run()))
    devices.wait()


if __name__ == "__main__":
    if sys.argv[1] == "overflow":
        distiller.LossScale = TooLarge
    if "TF_CONFIG" not in os.environ:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for strategy in sys.argv[3:]:
        train(sys.argv[1], pathlib.Path(sys.argv[2]), strategy)
    for each in MADE[:1]:
        (pathlib.Path(sys.argv[2]) / "halved").write_text(str(round(np.log2(3e38 / each.scale.numpy()))))
