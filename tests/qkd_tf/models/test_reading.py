"""A user's model read from its input to logits: every way to end, and what was left out is told."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers, mixed_precision

from qkd_tf.experiment import ExperimentError
from qkd_tf.models import copier
from qkd_tf.models.reading import HEAD_NOTES, HEADS, Reading
from qkd_tf.quantization.student_reading import StudentReading

SHAPE = (6, 6, 3)
READINGS = pytest.mark.parametrize("read", [Reading, StudentReading], ids=["teacher", "student"])


def pictures(num=4):
    return np.random.default_rng(0).normal(size=(num, *SHAPE)).astype(np.float32)


def user(end, shape=SHAPE):
    """A model that ends in `end`, a function of a map of 4 channels."""
    pixels = tf_keras.Input(shape, name="pixels")
    return tf_keras.Model(pixels, end(layers.Conv2D(4, 3, name="conv")(pixels)), name="user")


def dense(units=5, **options):
    return lambda x: layers.Dense(units, name="logits", **options)(layers.GlobalAveragePooling2D()(x))


def after(function, units=5):
    """`function` of logits [N, units]."""
    return lambda x: function(dense(units)(x))


def pooled(units, activation):
    """A convolution's maps, averaged, then an activation function: a head without a Dense layer."""

    def end(x):
        x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(units, 1, name="classes")(x))
        return layers.Activation(activation, name="end")(x) if activation else x

    return end


def inner(*chain, shape=(5,)):
    return tf_keras.Sequential([layers.Input(shape), *chain], name="inner")


# Golden values


@pytest.mark.parametrize(
    "head, logits, made",
    [
        ("logits", [[1.0, -2.0]], [[1.0, -2.0]]),
        ("softmax", [[0.0, np.log(3.0)]], [[0.25, 0.75]]),
        ("softmax", [[1000.0, 1000.0]], [[0.5, 0.5]]),
        ("sigmoid", [[0.0, np.log(3.0), -np.log(3.0)]], [[0.5, 0.75, 0.25]]),
        ("sigmoid", [[-1000.0, 1000.0]], [[0.0, 1.0]]),
        ("log_softmax", [[0.0, np.log(3.0)]], [[-np.log(4.0), np.log(0.75)]]),
        ("log_softmax", [[-1000.0, 1000.0]], [[-2000.0, 0.0]]),
        ("one logit", [[0.0, 3.0], [1.0, -1.0]], [[3.0], [-2.0]]),
        ("one sigmoid", [[0.0, np.log(3.0)], [np.log(3.0), 0.0]], [[0.75], [0.25]]),
    ],
)
def test_what_heads_make_of_logits_by_hand(head, logits, made):
    np.testing.assert_allclose(HEADS[head](np.array(logits)), made, atol=1e-12)


def test_softmax_of_two_logits_zero_and_z_is_the_sigmoid_of_z():
    z = np.linspace(-8, 8, 33)[:, np.newaxis]
    two = np.concatenate([np.zeros_like(z), z], -1)
    np.testing.assert_allclose(HEADS["softmax"](two)[:, 1:], HEADS["one sigmoid"](two), atol=1e-12)


# How a user may end a model of five classes -> row of HEADS, and whether students may end so.
ENDS = {
    "logits": (dense(), "logits", True),
    "pooled logits": (pooled(5, None), "logits", True),
    "softmax in Dense": (dense(activation="softmax"), "softmax", True),
    "softmax as function": (dense(activation=tf.nn.softmax), "softmax", True),
    "softmax layer in Dense": (dense(activation=layers.Softmax()), "softmax", True),
    "Activation": (after(lambda x: layers.Activation("softmax", name="end")(x)), "softmax", True),
    "Softmax": (after(lambda x: layers.Softmax(name="end")(x)), "softmax", True),
    "Softmax of the last axis": (after(lambda x: layers.Softmax(1, name="end")(x)), "softmax", True),
    "tf.nn.softmax": (after(tf.nn.softmax), "softmax", True),
    "tf.nn.softmax, axis": (after(lambda x: tf.nn.softmax(x, axis=-1)), "softmax", True),
    "keras.activations.softmax": (after(tf_keras.activations.softmax), "softmax", True),
    "nested": (after(lambda x: inner(layers.Softmax(name="end"))(x)), "softmax", True),
    "nested with Dense": (
        lambda x: inner(layers.Dense(5, activation="softmax"), shape=(4,))(layers.GlobalAveragePooling2D()(x)),
        "softmax",
        True,
    ),
    "nested twice": (after(lambda x: inner(inner(layers.Activation("softmax")))(x)), "softmax", True),
    "before a cast": (
        after(lambda x: layers.Activation("linear", dtype="float32")(layers.Softmax()(x))),
        "softmax",
        True,
    ),
    "before tf.cast": (after(lambda x: tf.cast(tf.nn.softmax(x), tf.float32)), "softmax", True),
    "before Identity": (after(lambda x: layers.Identity()(layers.Softmax()(x))), "softmax", True),
    "before Dropout": (after(lambda x: layers.Dropout(0.1)(layers.Softmax()(x))), "softmax", True),
    "before Reshape": (
        lambda x: layers.Reshape((5,))(
            layers.Softmax()(layers.Conv2D(5, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x)))
        ),
        "softmax",
        True,
    ),
    "before Flatten": (
        lambda x: layers.Flatten()(
            layers.Conv2D(5, 1, activation="softmax")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        ),
        "softmax",
        True,
    ),
    "pooled softmax": (pooled(5, "softmax"), "softmax", True),
    "sigmoids": (dense(activation="sigmoid"), "sigmoid", True),
    "sigmoids as layer": (after(lambda x: layers.Activation("sigmoid")(x)), "sigmoid", True),
    "tf.nn.sigmoid": (after(tf.nn.sigmoid), "sigmoid", True),
    "pooled sigmoids": (pooled(5, "sigmoid"), "sigmoid", True),
    "map of one pixel": (
        lambda x: layers.Conv2D(5, 1, name="classes")(layers.GlobalAveragePooling2D(keepdims=True)(x)),
        "logits",
        True,
    ),
    "softmax of a map of one pixel": (
        lambda x: layers.Softmax()(layers.Conv2D(5, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))),
        "softmax",
        True,
    ),
    "log_softmax in Dense": (dense(activation=tf.nn.log_softmax), "log_softmax", True),
    "tf.nn.log_softmax": (after(tf.nn.log_softmax), "log_softmax", True),
    "log_softmax of another axis": (after(lambda x: tf.nn.log_softmax(x, axis=0)), "logits", False),
    "softmax of softmax": (after(lambda x: layers.Softmax()(layers.Softmax()(x))), "softmax", False),
    "tanh": (dense(activation="tanh"), "logits", False),
}


@pytest.mark.parametrize(
    "name, read", [(name, read) for name, row in ENDS.items() for read in (Reading, StudentReading)[: 1 + row[2]]]
)
def test_logits_become_what_the_user_gives_by_the_row_of_the_head(name, read, randomize):
    """At 6352718 a teacher's probabilities were seen in the very last layer alone, sigmoids nowhere."""
    end, head, _ = ENDS[name]
    model = randomize(user(end))
    reading = read(model, SHAPE, 5)
    assert reading.head == head
    logits = reading.model(pictures()).numpy().astype(np.float64)
    expected = model(pictures(), training=False).numpy().reshape(4, -1)
    np.testing.assert_allclose(HEADS[head](logits), expected, rtol=1e-5, atol=1e-5)
    told = [note for note in reading.notes if "at the end" in note or "two classes" in note]
    assert len(told) == (head in HEAD_NOTES)
    assert all(HEAD_NOTES[head] in note for note in told)


ONE = {
    "one logit": (dense(1), "one logit"),
    "one sigmoid": (dense(1, activation="sigmoid"), "one sigmoid"),
    "one sigmoid as layer": (after(lambda x: layers.Activation("sigmoid", name="end")(x), 1), "one sigmoid"),
    "tf.sigmoid": (after(tf.sigmoid, 1), "one sigmoid"),
    "without bias": (dense(1, activation="sigmoid", use_bias=False), "one sigmoid"),
    "pooled logit": (pooled(1, None), "one logit"),
    "pooled sigmoid": (pooled(1, "sigmoid"), "one sigmoid"),
    "map of one pixel": (
        lambda x: layers.Conv2D(1, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x)),
        "one sigmoid",
    ),
    "before a cast": (
        after(lambda x: layers.Activation("linear", dtype="float32")(layers.Activation("sigmoid")(x)), 1),
        "one sigmoid",
    ),
    "nested": (after(lambda x: inner(layers.Activation("sigmoid"), shape=(1,))(x), 1), "one sigmoid"),
}


@READINGS
@pytest.mark.parametrize("name", ONE)
def test_one_number_for_two_classes_becomes_two_logits_exactly(name, read, randomize):
    """At 6352718: "has 1 class … see labels.txt"."""
    end, head = ONE[name]
    model = randomize(user(end))
    reading = read(model, SHAPE, 2)
    assert reading.head == head
    logits = reading.model(pictures()).numpy()
    assert logits.shape == (4, 2) and np.all(logits[:, 0] == 0)
    expected = model(pictures()).numpy().reshape(4, 1)
    np.testing.assert_allclose(HEADS[head](logits.astype(np.float64)), expected, rtol=1e-5, atol=1e-6)
    if head == "one sigmoid":
        np.testing.assert_allclose(HEADS["softmax"](logits)[:, 1:], expected, atol=1e-6)
    assert any("0 and z of two classes" in note for note in reading.notes)


def test_dense_layer_of_one_unit_becomes_one_of_two_that_trains(randomize):
    model = randomize(user(dense(1, activation="sigmoid")))
    last = Reading(model, SHAPE, 2).model.layers[-1]
    assert (type(last).__name__, last.name, last.units) == ("Dense", "logits", 2)
    (kernel, bias), (ours, our_bias) = model.layers[-1].get_weights(), last.get_weights()
    np.testing.assert_array_equal(ours, np.concatenate([0 * kernel, kernel], -1))
    np.testing.assert_array_equal(our_bias, [0, bias[0]])
    assert len(last.trainable_variables) == 2


@READINGS
def test_softmax_of_one_number_is_refused(read):
    with pytest.raises(ExperimentError, match="layer logits is a softmax of one number, which is always the same"):
        read(user(dense(1, activation="softmax")), SHAPE, 2)


@READINGS
@pytest.mark.parametrize(
    "end, shape",
    [
        (lambda x: layers.Conv2D(5, 1)(x), r"\(None, 4, 4, 5\)"),
        (lambda x: layers.Softmax()(layers.Conv2D(5, 1)(x)), r"\(None, 4, 4, 5\)"),
        (lambda x: layers.Dense(5)(x), r"\(None, 4, 4, 5\)"),
        (lambda x: layers.Reshape((16, 4))(x), r"\(None, 16, 4\)"),
    ],
    ids=["map", "softmax", "dense", "sequence"],
)
def test_output_for_each_pixel_is_refused(end, shape, read):
    """At 6352718 it was told after training, and the handoff was blamed."""
    with pytest.raises(
        ExperimentError, match=f"user has an output of shape {shape}; .* end it in GlobalAveragePooling"
    ):
        read(user(end), SHAPE, 5)


def test_softmax_of_another_axis_is_no_head(randomize):
    def end(x):
        x = layers.Softmax(axis=1, name="rows")(layers.Reshape((5, 1))(dense()(x)))
        return layers.Flatten()(x)

    reading = Reading(randomize(user(end)), SHAPE, 5)
    assert reading.head == "logits" and reading.notes == []


def test_layer_that_users_named_is_the_one_that_is_told(randomize):
    reading = Reading(randomize(user(after(lambda x: layers.Softmax(name="my/probabilities")(x)))), SHAPE, 5)
    assert any(note.startswith("layer my/probabilities: the softmax at the end") for note in reading.notes)


def test_softmax_in_the_middle_stays(randomize):
    """An attention of channels, say."""

    def end(x):
        weights = layers.Softmax()(layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
        return layers.Dense(5)(layers.Multiply()([layers.GlobalAveragePooling2D()(x), weights]))

    model = randomize(user(end))
    reading = Reading(model, SHAPE, 5)
    np.testing.assert_allclose(reading.model(pictures()), model(pictures()), rtol=1e-5, atol=1e-6)
    assert reading.head == "logits"


@pytest.mark.parametrize("where", ["conv", "dense"])
def test_probabilities_that_a_layer_makes_inside_are_layers_of_their_own(where, randomize):
    def end(x):
        x = layers.Conv2D(4, 1, activation="sigmoid", name="gate")(x) if where == "conv" else x
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dense(4, activation="sigmoid", name="gate")(x) if where == "dense" else x
        return layers.Dense(5)(x)

    model = randomize(user(end))
    reading = Reading(model, SHAPE, 5)
    assert {"gate", "gate_sigmoid"} <= {layer.name for layer in reading.model.layers}
    np.testing.assert_allclose(reading.model(pictures()), model(pictures()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_policy_is_read_in_float32(policy, randomize):
    """As guides write it: the last layer in float32 behind a softmax in half precision."""
    before = mixed_precision.global_policy()
    mixed_precision.set_global_policy(policy)
    try:
        model = randomize(user(after(lambda x: layers.Activation("softmax", dtype="float32")(x))))
    finally:
        mixed_precision.set_global_policy(before)
    reading = Reading(model, SHAPE, 5)
    assert reading.head == "softmax"
    assert {layer.compute_dtype for layer in reading.model.layers} == {"float32"}
    np.testing.assert_allclose(HEADS["softmax"](reading.model(pictures()).numpy()), model(pictures()), atol=0.1)


def test_operators_become_layers_and_the_model_stays_as_it_was(randomize):
    def end(x):
        x = tf.nn.relu(x * 2.0 - 1.0)
        return dense()(x + tf.nn.silu(x))

    model = randomize(user(end))
    before = copier.calls(model)
    reading = Reading(model, SHAPE, 5)
    kinds = [type(layer).__name__ for layer in reading.model.layers]
    assert (
        kinds == "InputLayer Conv2D Rescaling Rescaling Activation Activation Add GlobalAveragePooling2D Dense".split()
    )
    np.testing.assert_allclose(reading.model(pictures()), model(pictures()), rtol=1e-5, atol=1e-5)
    assert [id(node) for node in copier.calls(model)] == [id(node) for node in before]


def test_batch_norms_called_in_inference_are_told(randomize):
    base = inner(
        layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Conv2D(4, 1), layers.BatchNormalization(), shape=SHAPE
    )
    pixels = tf_keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(base(pixels, training=False)))
    reading = Reading(randomize(tf_keras.Model(pixels, layers.Dense(5)(x), name="user")), SHAPE, 5)
    (note,) = reading.notes
    assert "user: 2 BatchNormalization layers are called with training=False; they keep their statistics" in note
    assert len(reading.model.trainable_variables) == 4 + 2 + 2


def test_sides_that_a_model_leaves_open_are_the_datas(randomize):
    reading = Reading(randomize(user(dense(), shape=(None, None, 3))), SHAPE, 5)
    assert reading.model.input_shape == (None, *SHAPE)
