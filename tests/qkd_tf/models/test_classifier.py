"""Which layer turns features into logits, and how many features it reads."""

import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import ExperimentError
from qkd_tf.models.classifier import classifier, num_features

PIXELS = (6, 6, 3)


def network(*inner):
    return tf_keras.Sequential([layers.Input(PIXELS), *inner])


def dense(num_features):
    return network(layers.Conv2D(num_features, 3), layers.GlobalAveragePooling2D(), layers.Dense(4, name="head"))


def nested(model):
    pixels = tf_keras.Input(PIXELS)
    return tf_keras.Model(pixels, layers.Softmax()(model(pixels)))


@pytest.mark.parametrize(
    "model, expected",
    [
        (dense(5), 5),
        (nested(nested(dense(6))), 6),
        (network(layers.Conv2D(7, 6), layers.Conv2D(4, 1, name="head"), layers.Flatten()), 7),
        (network(layers.Flatten(), layers.Dense(9), layers.ReLU(), layers.Dense(4, name="head"), layers.Softmax()), 9),
    ],
)
def test_classifier_is_the_last_layer_with_a_kernel(model, expected):
    assert classifier(model).name == "head" and num_features(model) == expected


def test_a_network_without_kernels_is_refused():
    with pytest.raises(ExperimentError, match="no layer with a kernel"):
        classifier(network(layers.Flatten()))
