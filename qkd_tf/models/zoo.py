"""Network name -> builder."""

import functools
from collections.abc import Callable, Mapping

import tf_keras

from qkd_tf.experiment import NetworkSpec, require, require_known
from qkd_tf.models.convnet import build_convnet
from qkd_tf.models.efficientnet import build_efficientnet
from qkd_tf.models.imagenet_resnet import build_imagenet_resnet
from qkd_tf.models.mobilenet import build_mobilenet_v2
from qkd_tf.models.resnet import build_resnet

_DEPTHS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18}
_IMAGENET_RESNETS = {
    "resnet18": {"block": "basic", "stages": (2, 2, 2, 2)},
    "resnet34": {"block": "basic", "stages": (3, 4, 6, 3)},
    "resnet50": {"block": "bottleneck", "stages": (3, 4, 6, 3)},
    "resnet101": {"block": "bottleneck", "stages": (3, 4, 23, 3)},
}
_EFFICIENTNETS = {
    "efficientnet_b0": {"width": 1.0, "depth": 1.0, "dropout": 0.2},
    "efficientnet_b1": {"width": 1.0, "depth": 1.1, "dropout": 0.2},
    "efficientnet_b2": {"width": 1.1, "depth": 1.2, "dropout": 0.3},
    "efficientnet_lite0": {"width": 1.0, "depth": 1.0, "dropout": 0.2, "lite": True},
    "efficientnet_lite1": {"width": 1.0, "depth": 1.1, "dropout": 0.2, "lite": True},
    "efficientnet_lite2": {"width": 1.1, "depth": 1.2, "dropout": 0.3, "lite": True},
}
_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.4)
# Pixels of a side of the pictures that they were made for; networks without a row are CIFAR's.
_SIDES = {
    **dict.fromkeys((*_IMAGENET_RESNETS, *_EFFICIENTNETS, *(f"mobilenet_v2_{w}" for w in _WIDTHS)), 224),
    **dict.fromkeys(("efficientnet_b1", "efficientnet_lite1"), 240),
    **dict.fromkeys(("efficientnet_b2", "efficientnet_lite2"), 260),
}
_CIFAR_SIDE = 32

BUILDERS: Mapping[str, Callable[..., tf_keras.Model]] = {
    "convnet_small": functools.partial(build_convnet, widths=(16, 16, 32, 32)),
    "convnet_large": functools.partial(build_convnet, widths=(32, 32, 64, 64, 64)),
    "resnet8": functools.partial(build_resnet, blocks_per_stage=1, block="mlperf"),
    **{f"resnet{d}": functools.partial(build_resnet, blocks_per_stage=n, block="pad") for d, n in _DEPTHS.items()},
    **{
        f"resnet{d}_projection": functools.partial(build_resnet, blocks_per_stage=n, block="projection")
        for d, n in _DEPTHS.items()
    },
    **{n: functools.partial(build_imagenet_resnet, **row) for n, row in _IMAGENET_RESNETS.items()},
    **{
        f"{n}_cifar": functools.partial(build_imagenet_resnet, **row, small_pictures=True)
        for n, row in _IMAGENET_RESNETS.items()
    },
    **{n: functools.partial(build_efficientnet, **row) for n, row in _EFFICIENTNETS.items()},
    **{f"mobilenet_v2_{w}": functools.partial(build_mobilenet_v2, width=w) for w in _WIDTHS},
    **{f"mobilenet_v2_{w}_cifar": functools.partial(build_mobilenet_v2, width=w, small_pictures=True) for w in _WIDTHS},
}


def check_name(name: str, flag: str) -> None:
    """Raises ExperimentError that lists the known names."""
    require_known(name, tuple(BUILDERS), flag)


def usual_side(name: str) -> int:
    """Pixels of a side of the pictures that a network was made for."""
    return _SIDES.get(name, _CIFAR_SIDE)


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
