"""The proof: a model of Keras 3 and what was made of it are one function, or it is refused."""

import re

import numpy as np
import pytest
import tf_keras

from qkd_tf.models.keras3 import door, proof
from qkd_tf.models.keras3.config import in_double
from qkd_tf.models.keras3.conversion import convert
from qkd_tf.models.keras3.refusal import RefusalError


def pair(keras, activation="softmax", change=lambda converted: None, scale=1.0):
    """(Model of Keras 3, model of tf_keras) of two Dense layers with the same weights."""
    models = []
    for library in (keras, tf_keras):
        pixels = library.Input((4, 4, 3))
        x = library.layers.Dense(8, activation="tanh")(library.layers.Flatten()(pixels))
        models.append(library.Model(pixels, library.layers.Dense(5, activation=activation)(x)))
    rng = np.random.default_rng(0)
    models[0].set_weights([scale * rng.normal(0, 0.3, weight.shape) for weight in models[0].weights])
    models[1].set_weights(models[0].get_weights())
    change(models[1])
    return models


def changed(index, factor):
    def change(model):
        values = model.get_weights()
        values[index] = values[index] * factor
        model.set_weights(values)

    return change


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_equal_models_are_proven_and_left_as_they_are(keras, activation):
    model, converted = pair(keras, activation)
    before = [layer.activation for layer in (model.layers[-1], converted.layers[-1])]
    assert proof.prove(model, converted) < 1e-6
    assert [layer.activation for layer in (model.layers[-1], converted.layers[-1])] == before


@pytest.mark.parametrize("factor", [1.0001, 0.99])
@pytest.mark.parametrize("index, scale", [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (2, 300.0), (3, 300.0)])
def test_a_weight_that_differs_is_refused_however_large_logits_are(keras, index, factor, scale):
    with pytest.raises(RefusalError, match="its copy in tf_keras computes something else: outputs differ by"):
        proof.prove(*pair(keras, change=changed(index, factor), scale=scale))


def test_another_activation_at_the_end_is_refused(keras):
    for ours, theirs in (("sigmoid", "softmax"), ("linear", "softmax"), ("softmax", "linear"), ("linear", "sigmoid")):
        model, converted = pair(keras, theirs)
        converted.layers[-1].activation = tf_keras.activations.get(ours)
        with pytest.raises(RefusalError, match="computes something else"):
            proof.prove(model, converted)


def test_hard_sigmoid_that_was_only_renamed_is_refused(keras):
    with pytest.raises(RefusalError, match="computes something else"):
        proof.prove(*pair(keras, "hard_sigmoid"))


def test_other_shapes_and_infinities_are_refused(keras):
    model, converted = pair(keras)
    with pytest.raises(RefusalError, match="computes something else"):
        proof.prove(model, tf_keras.Model(converted.inputs, converted.layers[-2].output))
    changed(3, np.nan)(converted)
    with pytest.raises(RefusalError, match="differ by inf"):
        proof.prove(model, converted)


def test_model_that_makes_of_rounding_what_it_likes_is_refused(keras):
    models = []
    for library in (keras, tf_keras):
        pixels = library.Input((4, 4, 1))
        x = library.layers.Rescaling(1e6)(pixels)
        x = library.layers.Dense(4, activation="softmax", kernel_initializer="ones")(library.layers.Flatten()(x))
        kernel = library.layers.Dense(4, use_bias=False)
        models.append(library.Model(pixels, kernel(x)))
    rng = np.random.default_rng(0)
    models[0].set_weights([rng.normal(0, 30, weight.shape) for weight in models[0].weights])
    models[1].set_weights(models[0].get_weights())
    try:
        assert proof.prove(*models) < 1e-3
    except RefusalError as error:
        assert "outputs cannot be compared" in str(error)


def chaotic(keras, depth):
    """A model of Keras 3 of which each layer makes any difference about three times as large."""
    layers, rng = keras.layers, np.random.default_rng(0)
    pixels = keras.Input((4, 4, 3))
    inner = keras.Sequential([keras.Input((48,)), *(layers.Dense(48, activation="tanh") for _ in range(depth))])
    normalization = layers.Normalization()
    model = keras.Model(
        pixels, layers.Dense(5)(inner(layers.Flatten()(normalization(layers.Rescaling(1 / 255)(pixels)))))
    )
    normalization.adapt(np.stack([np.full((4, 4, 3), value, np.float32) for value in (-0.5, 0.5)]))
    for layer in inner.layers:
        layer.set_weights([rng.normal(0, 1, (48, 48)), np.zeros(48)])
    return model


def test_outputs_that_rounding_makes_are_compared_in_float64(keras):
    given = door.of_model(chaotic(keras, 32))
    with pytest.raises(proof.AmplifiedError, match="outputs cannot be compared; give it trained weights"):
        proof.prove(given.original(keras), given.converted())
    model, (note,) = given.in_tf_keras()
    assert re.fullmatch(r".*; outputs differ by at most \S+ of the largest one in float64; in float32 the .*", note)
    assert model.layers[-1].compute_dtype == model.layers[-1].kernel.dtype == "float32"


def test_copies_in_float64_differ_where_models_do(keras):
    original = chaotic(keras, 32)
    given = door.of_model(original)
    config, values = in_double(given.config), given.arrays()
    theirs = proof.double_of(keras, config, original)
    assert {weight.dtype for weight in theirs.weights} <= {"float64", "int64"}
    assert proof.prove(theirs, convert(config, values)) < 1e-5
    *_, last = values
    values[last][0][:] *= 1.001
    with pytest.raises(RefusalError, match="its copy in tf_keras computes something else"):
        proof.prove(theirs, convert(config, values))


@pytest.mark.slow
def test_network_that_amplifies_rounding_in_float64_too_is_refused(keras):
    with pytest.raises(RefusalError, match="outputs cannot be compared; give it trained weights"):
        door.of_model(chaotic(keras, 70)).in_tf_keras()


def test_without_copies_in_float64_it_is_refused_as_amplifying(keras, monkeypatch):
    monkeypatch.setattr(door, "double_of", None)
    with pytest.raises(proof.AmplifiedError, match="outputs cannot be compared; give it trained weights"):
        door.of_model(chaotic(keras, 32)).in_tf_keras()


def test_whole_pixels_are_drawn_for_an_input_of_whole_numbers(keras):
    models = []
    for library in (keras, tf_keras):
        pixels = library.Input((4, 4, 1), dtype="uint8")
        models.append(library.Model(pixels, library.layers.Rescaling(1 / 255)(pixels)))
    assert proof.prove(*models) < 1e-6


def test_sides_of_a_model_that_takes_any_are_those_of_the_data(keras):
    pixels = tf_keras.Input((None, None, 3))
    model = tf_keras.Model(pixels, tf_keras.layers.GlobalMaxPooling2D()(pixels))
    assert proof._pictures(model, (7, 9, 3)).shape == (6, 7, 9, 3)
    assert proof._pictures(model, None).shape == (6, 96, 96, 3)


def test_where_keras_3_cannot_be_imported_there_is_none(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keras", None)
    assert proof.keras3() is None
