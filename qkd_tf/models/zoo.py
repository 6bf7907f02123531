"""The named networks, built."""

import functools
from collections.abc import Callable, Mapping

import tf_keras

from qkd_tf.experiment import ZOO, NetworkSpec, require
from qkd_tf.models.convnet import build_convnet
from qkd_tf.models.efficientnet import build_efficientnet
from qkd_tf.models.imagenet_resnet import build_imagenet_resnet
from qkd_tf.models.mobilenet import build_mobilenet_v2
from qkd_tf.models.resnet import build_resnet

FAMILIES: Mapping[str, Callable[..., tf_keras.Model]] = {
    "convnet": build_convnet,
    "resnet": build_resnet,
    "imagenet_resnet": build_imagenet_resnet,
    "efficientnet": build_efficientnet,
    "mobilenet_v2": build_mobilenet_v2,
}
BUILDERS: Mapping[str, Callable[..., tf_keras.Model]] = {
    name: functools.partial(FAMILIES[row.family], **row.parameters) for name, row in ZOO.items()
}


def usual_side(name: str) -> int:
    """Height and width, in pixels, of the pictures for which a network was made."""
    return ZOO[name].side


def build(spec: NetworkSpec, input_shape: tuple[int, int, int], num_classes: int) -> tf_keras.Model:
    """A float model with fresh weights: pixels [N, H, W, C] in, logits [N, num_classes] out.

    Raises:
      ExperimentError: a normalisation for another number of channels.
    """
    for normalization in filter(None, (spec.normalization, spec.weights_normalization)):
        num_values = len(normalization.mean)
        require(
            num_values in (1, input_shape[-1]),
            f"{spec.name} is given pixel means for {num_values} channels, the images have {input_shape[-1]}",
        )
    return BUILDERS[spec.name](input_shape, num_classes, spec.normalization, name=spec.name)
