"""What TensorFlow wrote into a graph as layers: the same numbers, or no layer at all."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.models import operations
from qkd_tf.models.copier import nodes

SHAPE = (4, 5, 3)
CHANNELS = np.array([1.0, -2.0, 0.5], np.float32)
PIXELS = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def graph(body, dtype="float32", shape=SHAPE):
    pixels = tf_keras.Input(shape, name="pixels", dtype=dtype)
    return tf_keras.Model(pixels, body(pixels))


def layer_of(body, **options):
    """What `as_layer` makes of the last call of a graph."""
    return operations.as_layer(nodes(graph(body, **options))[-1])


# What a user writes -> scale and offset of each channel.
AFFINE = {
    "x / 255": (lambda x: x / 255.0, 1 / 255, 0),
    "x / channels": (lambda x: x / CHANNELS, 1 / CHANNELS, 0),
    "x * 2": (lambda x: x * 2.0, 2, 0),
    "2 * x": (lambda x: 2.0 * x, 2, 0),
    "x * channels": (lambda x: x * CHANNELS, CHANNELS, 0),
    "x * 0": (lambda x: x * 0.0, 0, 0),
    "x - 3": (lambda x: x - 3.0, 1, -3),
    "3 - x": (lambda x: 3.0 - x, -1, 3),
    "channels - x": (lambda x: CHANNELS - x, -1, CHANNELS),
    "x + 3": (lambda x: x + 3.0, 1, 3),
    "3 + x": (lambda x: 3.0 + x, 1, 3),
    "x + channels": (lambda x: x + CHANNELS, 1, CHANNELS),
    "-x": (lambda x: -x, -1, 0),
    "tf.subtract": (lambda x: tf.subtract(x, 1.0), 1, -1),
    "tf.divide": (lambda x: tf.divide(x, 4.0), 0.25, 0),
    "tf.multiply": (lambda x: tf.multiply(x, y=4.0), 4, 0),
    "tf.add": (lambda x: tf.add(1.0, x), 1, 1),
    "tf.nn.bias_add": (lambda x: tf.nn.bias_add(x, CHANNELS), 1, CHANNELS),
    "tf.math.scalar_mul": (lambda x: tf.math.scalar_mul(4.0, x), 4, 0),
    "tf.constant": (lambda x: x * tf.constant([[[1.0, 2.0, 3.0]]]), [1, 2, 3], 0),
    "one value as an array": (lambda x: x * np.full((1, 1, 3), 2.0, np.float32), 2, 0),
    "an array of one value for each pixel": (lambda x: x - np.full(SHAPE, 2.0, np.float32), 1, -2),
    "in half precision": (lambda x: x * tf.constant(2.0, tf.float16), 2, 0),
}


@pytest.mark.parametrize("name", AFFINE)
def test_scale_and_offset_are_rescaling(name):
    body, scale, offset = AFFINE[name]
    layer = layer_of(body, dtype="float16" if "half" in name else "float32")
    assert type(layer) is layers.Rescaling
    np.testing.assert_allclose(np.broadcast_to(layer.scale, 3), np.broadcast_to(scale, 3), rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(layer.offset, 3), np.broadcast_to(offset, 3), rtol=1e-6, atol=1e-9)
    assert np.ndim(layer.scale) == np.ndim(scale) or name == "tf.constant"
    again = type(layer).from_config(layer.get_config())  # as a model with it is saved
    expected = PIXELS * np.asarray(scale) + np.asarray(offset)
    np.testing.assert_allclose(again(PIXELS[np.newaxis])[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: 1.0 / x,
        lambda x: x / x,
        lambda x: tf.pow(x, 2.0),
        lambda x: x * np.random.default_rng(0).normal(size=SHAPE).astype(np.float32),
        lambda x: x + np.arange(4, dtype=np.float32).reshape(4, 1, 1),
        lambda x: x / 0.0,
        lambda x: x * np.nan,
        lambda x: x[..., :1] * CHANNELS,
        lambda x: tf.reduce_mean(x, axis=-1),
        lambda x: tf.transpose(x, [0, 2, 1, 3]),
        lambda x: tf.square(x),
        lambda x: tf.abs(x),
        lambda x: tf.math.divide_no_nan(1.0, x),
    ],
    ids="inverse,ratio,square,per_pixel,per_row,infinite,nan,wider,mean,transpose,square,abs,no_nan".split(","),
)  # fmt: skip
def test_what_is_no_scale_and_offset_of_channels_is_no_layer(body):
    assert layer_of(body) is None


@pytest.mark.parametrize(
    "body, kind",
    [
        (lambda x: x + tf.nn.relu(x), layers.Add),
        (lambda x: tf.add(x, tf.nn.relu(x)), layers.Add),
        (lambda x: x * tf.nn.relu(x), layers.Multiply),
        (lambda x: x * layers.GlobalAveragePooling2D(keepdims=True)(x), layers.Multiply),
        (lambda x: x + layers.GlobalAveragePooling2D(keepdims=True)(x), None),  # Keras' Add would do it, a file not
        (lambda x: x - tf.nn.relu(x), layers.Subtract),
        (lambda x: x / tf.nn.relu(x), None),
        (lambda x: x + x, layers.Add),
        (lambda x: tf.concat([x, tf.nn.relu(x)], -1), layers.Concatenate),
        (lambda x: tf.concat([x, tf.ones((1, *SHAPE))], axis=3), None),
    ],
    ids="add,tf.add,multiply,gate,broadcast,subtract,divide,twice,concat,concat_constant".split(","),
)
def test_two_tensors_are_added_and_multiplied_alone(body, kind):
    model = graph(body)
    layer = operations.as_layer(nodes(model)[-1])
    assert type(layer) is (kind or type(None))
    if kind:
        given = [tf_keras.Model(model.input, tensor)(PIXELS[np.newaxis]) for tensor in nodes(model)[-1].keras_inputs]
        np.testing.assert_array_equal(layer(given), model(PIXELS[np.newaxis]))


ACTIVATIONS = {
    "relu": (tf.nn.relu, tf.nn.relu),
    "relu6": (tf.nn.relu6, tf.nn.relu6),
    "sigmoid": (tf.nn.sigmoid, tf.nn.sigmoid),
    "math.sigmoid": (tf.math.sigmoid, tf.nn.sigmoid),
    "swish": (tf.nn.silu, tf.nn.silu),
    "softmax": (tf.nn.softmax, tf.nn.softmax),
    "log_softmax": (tf.nn.log_softmax, tf.nn.log_softmax),
    "softmax, last axis": (lambda x: tf.nn.softmax(x, axis=3), tf.nn.softmax),
    "softmax, last axis by place": (lambda x: tf.nn.softmax(x, -1), tf.nn.softmax),
    "identity": (tf.identity, tf.identity),
    "cast": (lambda x: tf.cast(x, tf.float32), tf.identity),
    "cast to half": (lambda x: tf.cast(x, "float16"), tf.identity),
    "cast by name": (lambda x: tf.cast(x, dtype=tf.float64), tf.identity),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_functions_are_layers(name):
    body, function = ACTIVATIONS[name]
    layer = layer_of(body)
    assert type(layer) is layers.Activation
    np.testing.assert_allclose(layer(PIXELS), function(PIXELS), rtol=1e-6)


SLOPED = {
    "leaky relu": (tf.nn.leaky_relu, 0.2),
    "by place": (lambda x: tf.nn.leaky_relu(x, 0.1), 0.1),
    "by name": (lambda x: tf.nn.leaky_relu(x, alpha=np.float32(0.5)), 0.5),
    "backend.relu": (lambda x: tf_keras.backend.relu(x, alpha=0.25), 0.25),
}


@pytest.mark.parametrize("name", SLOPED)
def test_a_leaky_relu_has_its_slope(name):
    body, slope = SLOPED[name]
    layer = layer_of(body)
    assert type(layer) is layers.LeakyReLU and layer.alpha == np.float32(slope)
    np.testing.assert_array_equal(layer(PIXELS), body(tf.constant(PIXELS)))


@pytest.mark.parametrize(
    "body",
    [
        lambda x: tf.nn.softmax(x, axis=1),
        lambda x: tf.nn.softmax(x, 1),
        lambda x: tf.cast(x, tf.int32),
        lambda x: tf.cast(x, "uint8"),
        lambda x: tf.cast(x, tf.bool),
    ],
    ids=["rows", "rows_by_place", "int32", "uint8", "bool"],
)
def test_softmax_of_rows_and_rounding_casts_are_no_layers(body):
    assert layer_of(body) is None


MOVED = {
    "mean of the map": (lambda x: tf.reduce_mean(x, axis=[1, 2]), layers.GlobalAveragePooling2D),
    "its mean as a map": (lambda x: tf.reduce_mean(x, (2, -3), keepdims=True), layers.GlobalAveragePooling2D),
    "largest of the map": (lambda x: tf.reduce_max(x, [1, 2]), layers.GlobalMaxPooling2D),
    "reshape": (lambda x: tf.reshape(x, [-1, 60]), layers.Reshape),
    "reshape to a map": (lambda x: tf.reshape(x, (-1, 5, 4, 3)), layers.Reshape),
    "squeeze": (lambda x: tf.squeeze(layers.AveragePooling2D((4, 5))(x), [1, 2]), layers.Reshape),
    "pad": (lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]), layers.ZeroPadding2D),
    "clip": (lambda x: tf.clip_by_value(x, 0.0, 0.5), layers.ReLU),
    "maximum": (lambda x: tf.maximum(x, 0.0), layers.ReLU),
    "maximum of a constant": (lambda x: tf.maximum(0.0, x), layers.ReLU),
    "minimum of a ReLU": (lambda x: tf.minimum(layers.ReLU()(x), 0.5), layers.ReLU),
    "minimum of a constant": (lambda x: tf.minimum(0.5, layers.Dense(4, activation="relu")(x)), layers.ReLU),
}


@pytest.mark.parametrize("name", MOVED)
def test_what_pools_moves_or_clips_is_the_layer_that_does_so(name):
    body, kind = MOVED[name]
    model = graph(body)
    last = nodes(model)[-1]
    layer = operations.as_layer(last)
    assert type(layer) is kind
    given = tf_keras.Model(model.input, last.keras_inputs[0])(PIXELS[np.newaxis])
    again = kind.from_config(layer.get_config())  # as a model with it is saved
    np.testing.assert_allclose(again(given), model(PIXELS[np.newaxis]), rtol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: tf.reduce_mean(x),
        lambda x: tf.reduce_mean(x, 1),
        lambda x: tf.reduce_max(x, [1, 2, 3]),
        lambda x: tf.reduce_mean(tf.reshape(x, (-1, 20, 3)), 1),
        lambda x: tf.reshape(x, (-1, 20, 3)),
        lambda x: tf.reshape(x, (-1, 30)),  # joins and splits pictures
        lambda x: tf.expand_dims(x, 1),
        lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="REFLECT"),
        lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0),
        lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 1]]),
        lambda x: tf.clip_by_value(x, -1.0, 1.0),
        lambda x: tf.clip_by_value(x, 0.0, CHANNELS + 3),
        lambda x: tf.maximum(x, 1.0),
        lambda x: tf.minimum(x, 1.0),
        lambda x: tf.minimum(tf.nn.relu(x), -1.0),
        lambda x: tf.maximum(x, tf.nn.relu(-x)),
        lambda x: tf.maximum(x, np.zeros(3, np.float32)),
        lambda x: tf.maximum(x[..., :2], np.array([0, 0.5], np.float32)),
        lambda x: tf.clip_by_value(x, 0.0, tf.reduce_max(x)),
        lambda x: tf.reshape(x, [tf.shape(x)[0], 60]),
        lambda x: tf.concat([a := tf.reshape(x, (-1, 20, 3)), a], 1),
    ],
    ids=(
        "all,rows,channels,of_a_series,series,other_pictures,rank_5,reflect,ones,channel,signed,by_channel,above,below,"
        "negative,two,"
        "zeros,ends,end_of_the_graph,shape_of_the_graph,series"
    ).split(","),
)
def test_what_no_layer_does_is_no_layer(body):
    assert layer_of(body) is None


def test_every_row_of_the_table_is_what_tensorflow_writes():
    """By the names that this version of TensorFlow gives to calls: a row that nothing meets would be dead."""
    bodies = [
        row[0] for name, row in {**AFFINE, **ACTIVATIONS, **SLOPED, **MOVED}.items() if name != "in half precision"
    ]
    bodies += [lambda x: tf.concat([x, x], -1)]
    bodies += [lambda x: x + x, tf.nn.swish, lambda x: tf.math.subtract(x, 1.0), lambda x: tf.negative(x), tf.sigmoid]
    written = {nodes(graph(body))[-1].layer.get_config()["function"] for body in bodies}
    assert written == operations.ROWS.keys()


@pytest.mark.parametrize("layer", [layers.ReLU(), layers.Rescaling(2.0), layers.Lambda(lambda x: x * 2)])
def test_layers_of_keras_are_none_of_its_business(layer):
    assert operations.as_layer(nodes(graph(layer))[0]) is None


def test_pixels_that_are_integers_are_scaled_as_tensorflow_does_it():
    """A model whose input is uint8 and is cast first: the cast gets numbers that are floats already."""
    layer = layer_of(lambda x: tf.cast(x, tf.float32), dtype="uint8")
    assert type(layer) is layers.Activation
    np.testing.assert_array_equal(layer(PIXELS), PIXELS)


def test_sides_that_are_not_known_do_not_matter():
    assert type(layer_of(lambda x: x * CHANNELS, shape=(None, None, 3))) is layers.Rescaling
