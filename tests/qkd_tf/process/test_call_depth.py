"""Networks deeper than Python's own limit of nested calls."""

import inspect
import sys

import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.process import call_depth
from qkd_tf.process.borrowed_process import borrowed


@pytest.fixture
def low_limit():
    """As Python's own limit is to a ResNetRS350, so is this to a chain of 200 layers."""
    before, low = sys.getrecursionlimit(), len(inspect.stack(0)) + 150
    sys.setrecursionlimit(low)
    yield low
    sys.setrecursionlimit(before)


def built(num_layers):
    x = pixels = tf_keras.Input((4,))
    for _ in range(num_layers):
        x = layers.ReLU()(x)
    return tf_keras.Model(pixels, x)


@pytest.mark.parametrize("context", [call_depth.for_deep_networks, borrowed])
def test_networks_may_be_deeper_than_the_process_allows(low_limit, context):
    with pytest.raises(RecursionError):
        built(200)
    with context():
        assert len(built(200).layers) == 201
    assert sys.getrecursionlimit() == low_limit


def test_a_higher_limit_of_the_process_stays():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2 * call_depth.LIMIT)
    try:
        with call_depth.for_deep_networks():
            assert sys.getrecursionlimit() == 2 * call_depth.LIMIT
    finally:
        sys.setrecursionlimit(before)
