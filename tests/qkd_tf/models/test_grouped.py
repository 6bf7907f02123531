"""Grouped convolutions without XLA: found wherever they are, and the sums of each group alone."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import QuantizationSpec
from qkd_tf.models.grouped import without_xla
from qkd_tf.quantization.scheme import quantize_student

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def refuse_xla(monkeypatch):
    """From then on any call of tf_keras' compiled convolution ends the test; its models are built by one."""

    def refuse(self, inputs, kernel):
        raise AssertionError(f"{self.name} is left to XLA")

    return lambda: monkeypatch.setattr(layers.Conv2D, "_jit_compiled_convolution_op", refuse)


@pytest.fixture
def nested(randomize):
    pixels = tf_keras.Input((6, 6, 4))
    inner = tf_keras.Sequential([layers.Conv2D(6, 3, groups=2, name="inner")])
    x = layers.Conv2D(4, 3, padding="same", groups=2, use_bias=False, name="outer")(pixels)
    return randomize(tf_keras.Model(pixels, inner(x)))


def by_group(x, layer):
    parts = zip(tf.split(x, layer.groups, -1), tf.split(layer.kernel, layer.groups, -1), strict=True)
    sums = tf.concat([tf.nn.conv2d(part, kernel, 1, layer.padding.upper()) for part, kernel in parts], -1)
    return sums + layer.bias if layer.use_bias else sums


def test_values_and_gradients_are_those_of_each_group_alone(nested, refuse_xla):
    refuse_xla()
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), tf.float32)
    outer, inner = nested.get_layer("outer"), nested.layers[-1].layers[-1]
    found = []
    for compute in (without_xla(nested), lambda x: by_group(by_group(x, outer), inner)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = compute(x)
            loss = tf.reduce_sum(y**2)
        found.append([y, *tape.gradient(loss, [x, outer.kernel, inner.kernel, inner.bias])])
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_layers_of_a_quantized_student_are_found_under_their_wrappers(chain, refuse_xla, images):
    body = [layers.Conv2D(4, 3), layers.Conv2D(6, 3, groups=2, name="grouped"), layers.Conv2D(2, 1)]
    student = quantize_student(without_xla(chain(*body)), QuantizationSpec())
    refuse_xla()
    for model in (student.plain, student.model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        assert all(gradient is not None for gradient in tape.gradient(loss, model.trainable_variables))


def test_a_model_is_saved_as_it_was(nested, tmp_path):
    without_xla(nested).save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    x = np.ones((1, 6, 6, 4), np.float32)
    np.testing.assert_allclose(loaded(x), nested(x), rtol=1e-5)


TRAINED = """
import numpy as np, tensorflow as tf, tf_keras
from tf_keras import layers
from qkd_tf.models.grouped import without_xla
tf_keras.utils.set_random_seed(0)
body = [layers.Conv2D(6, 3, groups=2), layers.BatchNormalization(), layers.ReLU()]
body += [layers.Conv2D(6, 3, groups=3, activation="relu"), layers.GlobalAveragePooling2D()]
model = without_xla(tf_keras.Sequential([layers.Input((8, 8, 4)), *body]))
x = np.random.default_rng(0).normal(size=(4, 8, 8, 4)).astype("float32")
model.compile("sgd", "mse")
model.fit(x, np.ones((4, 6)), verbose=0)
print(*model.predict_on_batch(x).ravel().tolist())
"""


@pytest.mark.slow
def test_results_do_not_depend_on_whether_tensorflow_has_a_kernel():
    """By default that depends on the processor."""
    found = []
    for has_one in "01":
        environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": has_one}
        command = [sys.executable, "-c", TRAINED]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found.append([float(number) for number in done.stdout.split()])
    assert len(found[0]) == 24
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-5)
