"""The layer of a network that turns features into logits."""

import tf_keras

from qkd_tf.experiment import require
from qkd_tf.models.copier import leaves


def classifier(model: tf_keras.Model) -> tf_keras.layers.Layer:
    """The last layer with a kernel, usually a Dense; it may lie in a nested network.

    Raises:
      ExperimentError: no layer has a kernel.
    """
    found = [layer for layer in leaves(model) if getattr(layer, "kernel", None) is not None]
    require(bool(found), f"{model.name} has no layer with a kernel, whose input could be compared")
    return found[-1]


def num_features(model: tf_keras.Model) -> int:
    """How many numbers of an example the classifier reads, at one place if it is a convolution."""
    return int(classifier(model).kernel.shape[-2])
