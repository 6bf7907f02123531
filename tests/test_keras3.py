"""The whole job on models of Keras 3: trained there on the digits, given to the commands and to `fit`, verified."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

import qkd_tf
import tflite_export
from tests.in_process import start

DIGITS = load_digits()
IMAGES = np.round(DIGITS.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
NUM_TRAIN = 1_400
SHORT = {"batch_size": 64, "max_steps": 2, "crop_padding": 0, "horizontal_flip": False, "learning_rates": "0.001"}


@pytest.fixture(scope="module")
def networks():
    """{"student": …, "teacher": …} of Keras 3, trained in it: residual, Dropout, x + y, augmentation, a model in it."""
    keras = pytest.importorskip("keras", "3")
    layers = keras.layers
    keras.utils.set_random_seed(0)

    def block(x, width, strides=1):
        y = layers.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(y))
        return y if strides > 1 else layers.ReLU()(x + y)

    def build(width, name):
        pixels = keras.Input((8, 8, 1))
        stem = keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Rescaling(1 / 64, -1), layers.Conv2D(width, 3, padding="same")], name="stem"
        )
        x = stem(layers.RandomTranslation(0.05, 0.05, seed=0)(pixels))
        x = block(block(x, 2 * width, 2), 2 * width)
        x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
        return keras.Model(pixels, layers.Dense(10, activation="softmax")(x), name=name)

    found = {"student": build(8, "student"), "teacher": build(16, "teacher")}
    for model in found.values():
        model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(IMAGES[:NUM_TRAIN], DIGITS.target[:NUM_TRAIN], epochs=8, batch_size=64, verbose=0)
    return found


def accuracy(model):
    return 100 * model.evaluate(IMAGES[NUM_TRAIN:], DIGITS.target[NUM_TRAIN:], verbose=0)[1]


@pytest.mark.slow
def test_files_go_through_both_commands(networks, tmp_path, capsys):
    for role, model in networks.items():
        model.save(tmp_path / f"{role}.keras")
    run_dir = tmp_path / "run"
    flags = [f"--{name}={value}" for name, value in SHORT.items()] + [
        "--phases=self_studying,co_studying",
        "--epochs=1,1",
    ]
    networks_flags = [f"--{role}={tmp_path}/{role}.keras" for role in networks]
    start("qkd_tf.train", [*flags, *networks_flags, "--dataset=digits", f"--run_dir={run_dir}"])
    told = capsys.readouterr().out
    for role in networks:
        assert f"note: {role} is a model of Keras 3, rebuilt in tf_keras; outputs differ by" in told
        assert f"the {role} computes what the model as given computes: on 32 pictures outputs differ by" in told
    start("tflite_export", [f"--run_dir={run_dir}"])
    verification = json.loads((run_dir / "export" / "verification.json").read_text())
    assert verification["passed"] and verification["failures"] == []
    assert verification["runtimes"]["litert"]["top1"] > 80


@pytest.mark.slow
def test_models_in_memory_go_through_fit_and_train_on(networks, tmp_path):
    student, teacher = networks.values()
    before = accuracy(student)
    sets = [(IMAGES[part], DIGITS.target[part]) for part in (slice(NUM_TRAIN), slice(NUM_TRAIN, None))]
    run = qkd_tf.fit(student, *sets, teacher=teacher, run_dir=tmp_path / "run", phases={"tutoring": 1}, **SHORT)
    verification = tflite_export.export(run, runtimes=())
    assert verification["passed"] and run.student_top1 > before - 10
    assert accuracy(student) == before
    student.fit(IMAGES[:64], DIGITS.target[:64], verbose=0)  # Keras 3 is as it was


def test_a_model_that_is_not_built_is_told_in_one_line(networks, tmp_path):
    import keras

    sets = [(IMAGES[:300], DIGITS.target[:300]), (IMAGES[300:400], DIGITS.target[300:400])]
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)], name="bare")
    with pytest.raises(ValueError, match="the student bare cannot be used: .* does not know its input; begin it with"):
        qkd_tf.fit(model, *sets, run_dir=tmp_path / "run", phases={"self_studying": 1}, **SHORT)
