"""Arrays of Keras 3 by layer: the same from every file and from memory."""

import re

import h5py
import numpy as np
import pytest

from qkd_tf.models.keras3 import arrays, door
from qkd_tf.models.keras3.refusal import RefusalError

SNAKES = "PReLU Conv2D BatchNormalization DepthwiseConv2D LeakyReLU GlobalAveragePooling2D ReLU ELU Dense Sequential"


@pytest.mark.parametrize("name", SNAKES.split())
def test_classes_are_written_as_keras_3_writes_them(keras, name):
    assert arrays._snake_case(name) == keras.src.utils.naming.to_snake_case(name)


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    """(Model, its checked configuration, folder with model.weights.h5 and model.h5)."""
    folder, model = tmp_path_factory.mktemp("arrays"), network()
    model.save_weights(folder / "model.weights.h5")
    model.save(folder / "model.h5")
    return model, door.of_model(model).config, folder


def assert_same(found, expected):
    assert {path for path, given in found.items() if given} == {path for path, given in expected.items() if given}
    for path, given in found.items():
        assert len(given) == len(expected[path])
        for one, other in zip(given, expected[path], strict=True):
            np.testing.assert_array_equal(one, other)


def test_files_have_those_of_the_model(saved):
    model, config, folder = saved
    expected = arrays.of_model(model)
    assert ("base", "conv") in expected and ("shared", "conv") in expected
    with h5py.File(folder / "model.weights.h5") as file:
        assert_same(arrays.of_weights_file(file, config, named=True), expected)
    with h5py.File(folder / "model.h5") as file:
        assert_same(arrays.of_whole_file(file["model_weights"], config), expected)


def test_more_than_ten_layers_of_a_class_are_told_apart_by_number(keras, randomized, tmp_path):
    pixels = x = keras.Input((4, 4, 3))
    for number in range(12):
        x = keras.layers.Conv2D(3, 1, name=f"conv_{11 - number}")(x)
    model = randomized(keras.Model(pixels, x))
    model.save_weights(tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.weights.h5") as file:
        assert_same(arrays.of_weights_file(file, door.of_model(model).config, named=True), arrays.of_model(model))


def test_layers_of_another_name_are_refused_where_names_count(saved, network, tmp_path):
    _, config, folder = saved
    with h5py.File(folder / "model.weights.h5", "r") as file, h5py.File(tmp_path / "other.h5", "w") as other:
        file.copy("layers", other)
        other["layers/sequential/layers/conv2d/vars"].attrs["name"] = "elsewhere"
        arrays.of_weights_file(other, config, named=False)
        with pytest.raises(RefusalError, match=re.escape("belong to elsewhere, where its configuration has conv")):
            arrays.of_weights_file(other, config, named=True)


def test_array_of_no_layer_is_refused(saved, tmp_path):
    _, config, folder = saved
    with h5py.File(folder / "model.h5", "r") as file, h5py.File(tmp_path / "other.h5", "w") as other:
        file.copy("model_weights", other)
        group = other["model_weights/base"]
        names = [arrays.text(name) for name in group.attrs["weight_names"]]
        group["base/absent/kernel"] = np.zeros(3, np.float32)
        group.attrs["weight_names"] = [*names, "base/absent/kernel"]
        with pytest.raises(RefusalError, match="whose array base/absent/kernel belongs to no layer of base"):
            arrays.of_whole_file(other["model_weights"], config)
