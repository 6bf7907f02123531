"""The named networks: the family of each, and its builder's parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One named network.

    Attributes:
      family: a key of `models.zoo.FAMILIES`.
      parameters: what the family's builder takes besides shape, classes, normalisation and name.
      side: height and width, in pixels, of the pictures for which the network was made.
    """

    family: str
    parameters: Mapping[str, Any]
    side: int = 32


_DEPTHS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18}
_IMAGENET_RESNETS: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {"block": "basic", "stages": (2, 2, 2, 2)},
    "resnet34": {"block": "basic", "stages": (3, 4, 6, 3)},
    "resnet50": {"block": "bottleneck", "stages": (3, 4, 6, 3)},
    "resnet101": {"block": "bottleneck", "stages": (3, 4, 23, 3)},
}
_EFFICIENTNETS: Mapping[str, Mapping[str, Any]] = {
    "efficientnet_b0": {"width": 1.0, "depth": 1.0, "dropout": 0.2},
    "efficientnet_b1": {"width": 1.0, "depth": 1.1, "dropout": 0.2},
    "efficientnet_b2": {"width": 1.1, "depth": 1.2, "dropout": 0.3},
    "efficientnet_lite0": {"width": 1.0, "depth": 1.0, "dropout": 0.2, "lite": True},
    "efficientnet_lite1": {"width": 1.0, "depth": 1.1, "dropout": 0.2, "lite": True},
    "efficientnet_lite2": {"width": 1.1, "depth": 1.2, "dropout": 0.3, "lite": True},
}
_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.4)
_SMALL = {"small_pictures": True}
_IMAGENET_SIDE = 224
_LARGER_SIDES = {"efficientnet_b1": 240, "efficientnet_lite1": 240, "efficientnet_b2": 260, "efficientnet_lite2": 260}

ZOO: Mapping[str, Row] = {
    "convnet_small": Row("convnet", {"widths": (16, 16, 32, 32)}),
    "convnet_large": Row("convnet", {"widths": (32, 32, 64, 64, 64)}),
    "resnet8": Row("resnet", {"blocks_per_stage": 1, "block": "mlperf"}),
    **{f"resnet{d}": Row("resnet", {"blocks_per_stage": n, "block": "pad"}) for d, n in _DEPTHS.items()},
    **{
        f"resnet{d}_projection": Row("resnet", {"blocks_per_stage": n, "block": "projection"})
        for d, n in _DEPTHS.items()
    },
    **{name: Row("imagenet_resnet", row, _IMAGENET_SIDE) for name, row in _IMAGENET_RESNETS.items()},
    **{f"{name}_cifar": Row("imagenet_resnet", {**row, **_SMALL}) for name, row in _IMAGENET_RESNETS.items()},
    **{name: Row("efficientnet", row, _LARGER_SIDES.get(name, _IMAGENET_SIDE)) for name, row in _EFFICIENTNETS.items()},
    **{f"mobilenet_v2_{w}": Row("mobilenet_v2", {"width": w}, _IMAGENET_SIDE) for w in _WIDTHS},
    **{f"mobilenet_v2_{w}_cifar": Row("mobilenet_v2", {"width": w, **_SMALL}) for w in _WIDTHS},
}
