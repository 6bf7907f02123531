"""What Keras 3 writes into a graph for arithmetic and keras.ops is the same function in tf_keras."""

import numpy as np
import pytest

from qkd_tf.models.keras3.operations import MODULES

EXPRESSIONS = {
    "x + y": lambda ops, x, y: x + y,
    "x + 1": lambda ops, x, y: x + 1,
    "2 + x": lambda ops, x, y: 2 + x,
    "x - y": lambda ops, x, y: x - y,
    "1 - x": lambda ops, x, y: 1 - x,
    "x * 2.5": lambda ops, x, y: x * 2.5,
    "x * y": lambda ops, x, y: x * y,
    "x * array": lambda ops, x, y: x * np.arange(3, dtype=np.float32),
    "x * scale": lambda ops, x, y: x * ops.mean(y, axis=(1, 2), keepdims=True),
    "x / 255": lambda ops, x, y: x / 255,
    "1 / x": lambda ops, x, y: 1 / (ops.abs(x) + 1),
    "x / y": lambda ops, x, y: x / (ops.absolute(y) + 1),
    "divide": lambda ops, x, y: ops.divide(x, ops.exp(-ops.abs(y)) + 1),
    "-x": lambda ops, x, y: -x,
    "x ** 2": lambda ops, x, y: x**2,
    "power": lambda ops, x, y: ops.power(ops.sqrt(ops.square(x)), 1.5),
    "maximum": lambda ops, x, y: ops.maximum(x, y) + ops.maximum(x, 0.5),
    "minimum": lambda ops, x, y: ops.minimum(x, y) + ops.minimum(x, 0.5),
    "clip": lambda ops, x, y: ops.clip(x, -1, 4.0),
    "log": lambda ops, x, y: ops.log(ops.abs(x) + 1),
    "sum": lambda ops, x, y: ops.sum(x, axis=1),
    "max": lambda ops, x, y: ops.max(x, axis=(1, 2), keepdims=True),
    "min": lambda ops, x, y: ops.min(x, axis=-1),
    "pad": lambda ops, x, y: ops.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "reshape": lambda ops, x, y: ops.reshape(x, (-1, 48)),
    "transpose": lambda ops, x, y: ops.transpose(x, (0, 2, 1, 3)),
    "expand, squeeze": lambda ops, x, y: ops.squeeze(ops.expand_dims(x, 1) + 1, axis=1),
    "concatenate": lambda ops, x, y: ops.concatenate([x, y], axis=1),
    "item": lambda ops, x, y: x[:, 1:, ::2, 0],
    "last": lambda ops, x, y: x[:, -1],
    "cast": lambda ops, x, y: ops.cast(x, "float32"),
    "sigmoid": lambda ops, x, y: ops.sigmoid(x),
    "tanh": lambda ops, x, y: ops.tanh(x),
    "relu": lambda ops, x, y: ops.relu(x),
    "relu6": lambda ops, x, y: ops.relu6(x),
    "silu": lambda ops, x, y: ops.silu(x),
    "selu": lambda ops, x, y: ops.selu(x),
    "softplus": lambda ops, x, y: ops.softplus(x),
    "softsign": lambda ops, x, y: ops.softsign(x),
    "gelu": lambda ops, x, y: ops.gelu(x),
    "gelu exact": lambda ops, x, y: ops.gelu(x, approximate=False),
    "softmax": lambda ops, x, y: ops.softmax(x, axis=1),
    "log softmax": lambda ops, x, y: ops.log_softmax(x),
    "elu": lambda ops, x, y: ops.elu(x, alpha=0.5),
    "leaky relu": lambda ops, x, y: ops.leaky_relu(x),
    "hard sigmoid": lambda ops, x, y: ops.hard_sigmoid(x),
    "hard silu": lambda ops, x, y: ops.hard_silu(x),
}


@pytest.fixture(scope="module")
def written(keras):
    """written(expression): the model of Keras 3."""

    def write(make):
        pixels = keras.Input((4, 4, 3))
        y = keras.layers.Conv2D(3, 1)(pixels)
        return keras.Model(pixels, make(keras.ops, pixels, y))

    return write


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression_is_the_same_function(written, alike, randomized, name):
    assert alike(randomized(written(EXPRESSIONS[name])))[0] < 2e-6


def test_every_row_is_tried(written):
    rows = {name for module, rows in MODULES.items() if ".ops." in module for name in rows}
    tried = {type(op).__name__ for make in EXPRESSIONS.values() for op in written(make).operations}
    assert rows - tried <= {"Abs", "Absolute", "Divide"}  # one of two names for the same


def test_operation_that_is_called_twice_keeps_its_name_once(keras, alike):
    add, pixels = keras.src.ops.numpy.Add(name="sum"), keras.Input((4, 4, 3))
    difference, converted = alike(keras.Model(pixels, add(add(pixels, 1.0), 2.0)))
    assert difference < 1e-6 and {"sum", "sum_again_1"} <= {layer.name for layer in converted.layers}


def test_sum_of_two_tensors_keeps_its_name_as_a_layer(keras, written, alike):
    _, converted = alike(written(lambda ops, x, y: keras.src.ops.numpy.Add(name="join")(x, y)))
    assert type(converted.get_layer("join")).__name__ == "Add"
