"""Steps of intervals against Adam in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.distillation.relative_adam import RelativeAdam

RATE = 0.01


def shares(gradients):
    """What Adam subtracts in each step at RATE, in NumPy."""
    mean = square = 0.0
    for step, gradient in enumerate(gradients, 1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        yield RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-7)


def trained(first, gradients):
    """The values of a variable after each step."""
    variable, optimizer = tf.Variable(first), RelativeAdam(RATE)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        yield float(variable)


@pytest.mark.parametrize("first", [0.0016, 3.0])
def test_a_step_is_the_share_of_the_variable_that_adam_gives(first):
    gradients = np.random.default_rng(0).normal(size=20).astype(np.float32)
    expected = first * np.cumprod([1 - share for share in shares(gradients)])
    np.testing.assert_allclose(list(trained(first, gradients)), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_size_of_gradients_does_not_count(scale):
    gradients = np.random.default_rng(1).normal(size=10).astype(np.float32)
    found = list(trained(0.1, (scale * gradients).astype(np.float32)))
    np.testing.assert_allclose(found, list(trained(0.1, gradients)), rtol=2e-4)


def test_the_first_step_is_the_rate():
    (value,) = trained(0.5, [2.0])
    assert value == pytest.approx(0.5 * (1 - RATE), rel=1e-6)
