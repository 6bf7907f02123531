"""Whether a network was trained, and on which pixels, as far as can be seen."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.proposal.network_look import clear_range, seems_trained


@pytest.fixture
def make(chain):
    def make(*front, use_bias=True):
        convolution = layers.Conv2D(4, 1, use_bias=use_bias)
        return chain(*front, convolution, layers.GlobalAveragePooling2D(), layers.Dense(1, use_bias=use_bias))

    return make


def test_fresh_networks_are_not_trained(make):
    adapted = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0])
    assert not seems_trained(make())
    assert not seems_trained(make(adapted, layers.BatchNormalization(), layers.RandomFlip()))
    assert not seems_trained(tf_keras.Sequential([layers.Input((8, 8, 3)), make()]))


def test_one_step_of_a_bias_or_a_statistic_is_a_training(make):
    biased, moved = make(), make(layers.BatchNormalization(name="norm"), use_bias=False)
    biased.layers[1].bias.assign([0.0, 0.0, 1e-3, 0.0])
    moved.get_layer("norm").moving_mean.assign([0.0, 0.0, 0.1])
    assert seems_trained(biased) and seems_trained(moved)


def test_a_network_of_kernels_alone_counts_as_trained(make):
    assert seems_trained(make(use_bias=False))


@pytest.mark.parametrize(
    "top1, expected",
    [({"a": 90.0, "b": 80.0, "c": 50.0}, "a"), ({"a": 85.0, "b": 90.0}, None), ({"a": 50.0, "b": 50.0}, None)],
)
def test_a_range_is_told_by_a_clear_lead_alone(top1, expected):
    assert clear_range(top1) == expected


def test_vectors_of_one_value_are_seen():
    model = tf_keras.Sequential([layers.Input((4,)), layers.Dense(1)])
    assert not seems_trained(model)
    model.layers[0].bias.assign(np.array([0.25]))
    assert seems_trained(model)
