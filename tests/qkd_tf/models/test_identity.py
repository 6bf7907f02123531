"""What an experiment is made of: equal for what computes the same, different for whatever was changed."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf import __version__
from qkd_tf.models import identity

ROOT = pathlib.Path(__file__).parents[3]
SHAPE = (8, 8, 3)


def user(strides=1, filters=4, activation=None, constant=2.0, rate=0.1, name=None, units=5):
    """A network of several kinds of layers and wires."""
    pixels = tf_keras.Input(SHAPE, name=name and f"{name}_pixels")
    x = layers.Rescaling(1 / 64)(pixels)
    x = layers.Conv2D(filters, 3, strides, "same", activation=activation, name=name and f"{name}_conv")(x)
    x = layers.Dropout(rate)(layers.BatchNormalization()(x)) * constant
    return tf_keras.Model(pixels, layers.Dense(units)(layers.GlobalAveragePooling2D()(x)), name=name)


def test_same_model_built_twice_is_the_same_whatever_keras_calls_its_layers():
    first = user()
    for number in range(3):
        layers.Conv2D(1, 1, name=f"c{number}")
    second = user()
    assert [layer.name for layer in first.layers] != [layer.name for layer in second.layers]
    assert identity.of_layers(first) == identity.of_layers(second) == identity.of_layers(user(name="mine"))


@pytest.mark.parametrize(
    "changed",
    [
        {"strides": 2}, {"filters": 5}, {"activation": "relu"}, {"activation": tf.nn.relu6}, {"constant": 3.0},
        {"rate": 0.2}, {"units": 6}, {"constant": np.array([1.0, 2.0, 3.0, 4.0], np.float32)},
    ],
    ids=lambda changed: " ".join(changed),
)  # fmt: skip
def test_other_layers_are_another_identity(changed):
    """At 6352718 a builder that was edited between two starts was known by its name alone."""
    assert identity.of_layers(user(**changed)) != identity.of_layers(user())


def wired(wires):
    """Layers that are the same in each case."""
    pixels = tf_keras.Input(SHAPE)
    one, other = layers.Conv2D(3, 3, padding="same", name="a"), layers.Conv2D(3, 3, padding="same", name="b")
    output = layers.Concatenate(name="end")(wires(pixels, one, other))
    return tf_keras.Model(pixels, output)


WIRES = {
    "row": lambda x, one, other: [one(x), other(one(x))],
    "other row": lambda x, one, other: [one(x), one(other(x))],
    "beside": lambda x, one, other: [one(x), other(x)],
    "order": lambda x, one, other: [other(one(x)), one(x)],
    "twice": lambda x, one, other: [one(other(x)), one(other(one(x)))],
    "input": lambda x, one, other: [x, other(one(x))],
}


def test_other_wires_of_the_same_layers_are_another_identity():
    """At 6352718 a rewired model in memory could return the run of the first one."""
    found = {name: identity.of_layers(wired(wires)) for name, wires in WIRES.items()}
    assert len(set(found.values())) == len(WIRES), found
    assert found == {name: identity.of_layers(wired(wires)) for name, wires in WIRES.items()}


def nested(kernel=3, shared=True):
    inner = tf_keras.Sequential([layers.Input(SHAPE), layers.Conv2D(3, kernel, padding="same")])
    again = inner if shared else tf_keras.Sequential([layers.Input(SHAPE), layers.Conv2D(3, kernel, padding="same")])
    pixels = tf_keras.Input(SHAPE)
    return tf_keras.Model(pixels, again(inner(pixels)))


def test_layers_of_nested_models_count_too():
    assert identity.of_layers(nested()) == identity.of_layers(nested())
    assert identity.of_layers(nested(5)) != identity.of_layers(nested(3))


def test_layer_that_is_used_twice_is_not_two_layers():
    assert identity.of_layers(nested(shared=True)) != identity.of_layers(nested(shared=False))


def reading(constants):
    pixels = tf_keras.Input(SHAPE)
    return tf_keras.Model(pixels, layers.Add()([pixels, *constants]))


@pytest.mark.parametrize("kind", [np.asarray, tf.constant], ids=["numpy", "tensor"])
def test_constants_count_by_their_values(kind):
    def digest(value, dtype=np.float32):
        return identity.of_layers(reading([kind(np.full((1, *SHAPE), value, dtype))]))

    assert digest(1.0) == digest(1.0) != digest(2.0)


def test_values_of_a_constant_are_not_cut_short():
    """NumPy's text of a long array leaves out its middle."""
    values = np.zeros((1, 64, 64, 3), np.float32)
    pixels = tf_keras.Input((64, 64, 3))
    before = identity.of_layers(tf_keras.Model(pixels, layers.Add()([pixels, tf.constant(values)])))
    values[0, 30, 30, 1] = 1e-9
    assert identity.of_layers(tf_keras.Model(pixels, layers.Add()([pixels, tf.constant(values)]))) != before


def test_training_argument_counts():
    def digest(**arguments):
        pixels = tf_keras.Input(SHAPE)
        return identity.of_layers(tf_keras.Model(pixels, layers.BatchNormalization()(pixels, **arguments)))

    assert len({digest(), digest(training=False), digest(training=True)}) == 3


def test_what_is_frozen_counts():
    model = user()
    before = identity.of_layers(model)
    model.layers[2].trainable = False
    assert identity.of_layers(model) != before


def test_layer_of_a_users_own_without_a_config_is_known_by_its_class():
    class Wordless(layers.Layer):
        def __init__(self, scheme):
            super().__init__()
            self.scheme = scheme

        def call(self, x):
            return x

    class Other(Wordless):
        pass

    def digest(layer):
        pixels = tf_keras.Input(SHAPE)
        return identity.of_layers(tf_keras.Model(pixels, layer(pixels)))

    assert digest(Wordless(object())) == digest(Wordless(object()))
    assert digest(Wordless(object())) != digest(Other(object()))


LAMBDAS = """
import qkd_tf, tf_keras
from qkd_tf.models import identity
def digest(function):
    pixels = tf_keras.Input((8, 8, 3))
    return identity.of_layers(tf_keras.Model(pixels, tf_keras.layers.Lambda(function)(pixels)))
def double():
    return digest(lambda x: x * 2.0 + len("some text"))
digests = [double(), double(), digest(lambda x: x * 3.0 + len("some text"))]
print(*digests)
"""


@pytest.mark.slow
def test_lambdas_are_known_by_their_code_in_every_process():
    here = {"__name__": "__main__"}
    exec(LAMBDAS, here)
    there = subprocess.run([sys.executable, "-c", LAMBDAS], cwd=ROOT, capture_output=True, text=True)
    first, second, other = here["digests"]
    assert there.stdout.split() == [first, second, other] and first == second != other, there.stderr


def test_digest_has_no_address_of_memory():
    """An activation function, or a layer as one, has a text that is another in each process."""
    for activation in (tf.nn.relu6, layers.LeakyReLU(0.1), tf_keras.activations.swish):
        assert identity.of_layers(user(activation=activation)) == identity.of_layers(user(activation=activation))


def test_layers_as_activations_count_by_their_numbers():
    assert identity.of_layers(user(activation=layers.LeakyReLU(0.1))) != identity.of_layers(
        user(activation=layers.LeakyReLU(0.2))
    )


def test_other_weights_are_another_identity(randomize):
    model = randomize(user(), seed=1)
    digest = identity.of_weights(model)
    assert digest == identity.of_weights(randomize(user(), seed=1)) != identity.of_weights(randomize(user(), seed=2))
    statistics = model.layers[3].moving_mean
    statistics.assign(statistics + np.float32(1e-6))
    assert identity.of_weights(model) != digest


PICTURES = {"train": "abc", "test": [1, 2]}


def test_contents_have_a_word_for_each_row(randomize):
    student, teacher = randomize(user(), 1), randomize(user(filters=6), 2)
    found = identity.contents(student, teacher, PICTURES, frozenset())
    assert found.keys() == identity.WORDS.keys() - {"augmentation"}  # which a run without one does not have
    assert found["version"] == __version__
    assert found["student_layers"] == identity.of_layers(student)
    assert found["teacher_weights"] == identity.of_weights(teacher)
    assert found == json.loads(json.dumps(found))
    without = identity.contents(student, None, PICTURES, frozenset())
    assert without == {name: digest for name, digest in found.items() if not name.startswith("teacher")}


def test_weights_of_chance_that_need_not_be_repeated_do_not_count(randomize):
    student, teacher = randomize(user(), 1), randomize(user(), 2)
    found = identity.contents(student, teacher, PICTURES, frozenset({"student"}))
    assert "student_weights" not in found and "teacher_weights" in found


def test_pictures_count_whatever_their_order_in_the_dict():
    def digest(pictures):
        return identity.contents(user(), None, pictures, frozenset({"student"}))["pictures"]

    assert digest(PICTURES) == digest(dict(reversed(PICTURES.items())))
    assert digest(PICTURES) != digest({**PICTURES, "test": [1, 3]})
