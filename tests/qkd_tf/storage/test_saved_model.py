"""Models of strangers: what would run code on loading is refused, in every format; standard models pass."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.process import random_state
from qkd_tf.storage.saved_model import load_model

ENDINGS = (".keras", ".h5", "")


def network(middle=tf.nn.relu) -> tf_keras.Model:
    pixels = tf_keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2")(pixels)
    x = tf.nn.relu6(middle(x) * 2.0 + 1.0)
    return tf_keras.Model(pixels, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def save(model, folder, ending):
    path = folder / f"model{ending}"
    model.save(path, **({} if ending else {"save_format": "tf"}))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_standard_model_and_plain_operations_come_back(tmp_path, ending):
    model = network()
    model.compile("adam", "mse")  # what belongs to training is not loaded, so it is not looked at
    loaded = load_model(save(model, tmp_path, ending))
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(loaded.predict_on_batch(pixels), model.predict_on_batch(pixels), rtol=1e-5)


RANDOM_LAYERS = (
    layers.Dropout(0.2),
    layers.SpatialDropout2D(0.2),
    layers.GaussianNoise(0.1),
    layers.GaussianDropout(0.1),
    layers.AlphaDropout(0.1),
    layers.RandomFlip(),
    layers.RandomRotation(0.1),
    layers.RandomContrast(0.1),
    layers.RandomTranslation(0.1, 0.1),
)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_random_layers_are_loaded_under_determinism_and_are_had_again(tmp_path, ending):
    pixels = x = tf_keras.Input((8, 8, 3))
    for layer in RANDOM_LAYERS:
        x = layer(x)
    path = save(tf_keras.Model(pixels, layers.Conv2D(2, 3)(x)), tmp_path, ending)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)

    def seen():
        with random_state.seeded(1, deterministic=True):
            model = load_model(path)
            assert len(random_state.generators(model)) == len(RANDOM_LAYERS)
            return [model(pictures, training=True).numpy() for _ in range(2)]

    first, second = seen(), seen()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(*first)


class Own(layers.Layer):
    def call(self, x):
        return x + 1


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "layer", [layers.Lambda(lambda x: x + 1), layers.TimeDistributed(layers.Lambda(lambda x: x + 1)), Own()]
)
def test_code_is_refused_by_name_with_the_remedy(tmp_path, ending, layer):
    path = save(network(layer), tmp_path, ending)
    with pytest.raises(ValueError, match="Lambda|Own") as caught:
        load_model(path)
    if not (isinstance(layer, Own) and ending == ".h5"):  # tf_keras itself finds no such class
        assert "pass --trust_model_code in training" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_trusted_code_is_loaded(tmp_path, ending):
    path = save(network(layers.Lambda(lambda x: x + 1)), tmp_path, ending)
    assert load_model(path, trust_code=True).output_shape == (None, 3)


def with_config(path, change):
    """The .keras file with another config.json."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {**members, "config.json": json.dumps(config)}.items():
            file.writestr(name, content)
    return path


def first_layer(**changes):
    return lambda config: config["config"]["layers"][1].update(changes)


def activation(**changes):
    return lambda config: config["config"]["layers"][1]["config"].update(activation=changes)


@pytest.mark.parametrize(
    "change, message",
    [
        (first_layer(class_name="Popen", module="subprocess"), "uses Popen from subprocess"),
        (first_layer(registered_name="mine>Net"), "class mine>Net"),
        (first_layer(class_name="Other", registered_name="Lambda"), "has a Lambda layer"),
        (first_layer(module="tf_keras.src.layers.core", class_name="lambda_layer.Lambda"), "class"),
        (activation(class_name="function", module="os", config="system"), "uses function from os"),
        (activation(class_name="function", module="builtins", config="exec"), "uses function from builtins"),
        (activation(class_name="__lambda__", config={"value": "4wAAAA=="}), "has a __lambda__ layer"),
        (
            first_layer(compile_config={"loss": {"class_name": "function", "module": "os", "config": "system"}}),
            "from os",
        ),
        (activation(function="io.write_file"), "calls 'io.write_file'"),
    ],
)
def test_config_that_imports_is_refused(tmp_path, change, message):
    path = with_config(save(network(), tmp_path, ".keras"), change)
    with pytest.raises(ValueError, match=message):
        load_model(path)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_layers_larger_than_their_arrays_are_refused_before_they_are_built(tmp_path, ending):
    path = save(network(), tmp_path, ending)
    if ending == ".keras":
        with_config(path, lambda config: config["config"]["layers"][1]["config"].update(filters=10**9))
    else:
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = file.attrs["model_config"].replace('"filters": 4', '"filters": 1000000000')
    with pytest.raises(ValueError, match=r"its layers have 3\d,\d{3},\d{3},\d{3} weights, its arrays 1\d\d numbers"):
        load_model(path)


def test_members_that_would_be_unpacked_are_refused(tmp_path):
    path = save(network(), tmp_path, ".keras")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("assets/run.sh", "")
    with pytest.raises(ValueError, match="it contains 'assets/run.sh', which is not one of config.json"):
        load_model(path)


def test_links_in_the_weights_are_refused(tmp_path):
    path = save(network(), tmp_path, ".h5")
    with h5py.File(path, "a") as file:
        file["model_weights/more"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(ValueError, match="more in it is a link"):
        load_model(path)


def test_graph_that_touches_files_is_refused(tmp_path):
    model = network()
    model.spy = tf.function(lambda: tf.io.read_file("/etc/passwd"), input_signature=[])
    path = save(model, tmp_path, "")
    with pytest.raises(ValueError, match="its graph has the operator ReadFile"):
        load_model(path)


def test_a_graph_without_its_layers_is_refused(tmp_path):
    """As Keras 3's model.export writes it."""
    path = save(network(), tmp_path, "")
    (path / "keras_metadata.pb").unlink()
    with pytest.raises(ValueError, match="a SavedModel without its layers, .*; give what model.save"):
        load_model(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_damage_is_one_line(tmp_path, ending):
    path = save(network(), tmp_path, ending)
    spoiled = path / "keras_metadata.pb" if path.is_dir() else path
    spoiled.write_bytes(spoiled.read_bytes()[:400])
    with pytest.raises(ValueError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
