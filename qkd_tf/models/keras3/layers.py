"""The layers of Keras 3 that tf_keras has too, or can do without, and which arguments have other names there."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping

from tf_keras import layers

from qkd_tf.models.training_only import STAND_INS


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """A Keras 3 layer in tf_keras.

    Attributes:
      make: builds the layer from tf_keras arguments.
      arguments: Keras 3 arguments that tf_keras takes.
      renamed: argument in Keras 3 -> in tf_keras.
      ignored: arguments for training only, which tf_keras lacks.
      is_stand_in: whether all others are, too.
    """

    make: Callable[..., layers.Layer]
    arguments: frozenset[str]
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    is_stand_in: bool = False


# Arguments that are not taken over -> the values under which they change nothing.
NEUTRAL: Mapping[str, tuple] = {
    "data_format": ("channels_last",),
    "antialias": (False,),
    "quantization_config": (None,),
    "lora_rank": (None,),
    "lora_alpha": (None,),
    "renorm": (False,),
    "rms_scaling": (False,),
    "pad_to_aspect_ratio": (False,),
    "sparse": (False,),
    "ragged": (False,),
    "optional": (False,),
}
# Arguments that matter only beside one of NEUTRAL with another value.
UNUSED = ("renorm_clipping", "renorm_momentum", "fill_mode", "fill_value")
# What tf_keras takes too, and a network that is to become integer cannot have.
_REFUSED = {"renorm", "renorm_clipping", "renorm_momentum"}

_SAME = (
    "Activation ActivityRegularization Add AlphaDropout Average AveragePooling1D AveragePooling2D BatchNormalization "
    "CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Cropping1D Cropping2D Dense DepthwiseConv1D "
    "DepthwiseConv2D Dot Dropout ELU Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D "
    "GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D GroupNormalization Identity LayerNormalization "
    "MaxPooling1D MaxPooling2D Maximum Minimum Multiply Normalization PReLU Permute ReLU RepeatVector Rescaling "
    "Reshape Resizing SeparableConv1D SeparableConv2D Softmax SpatialDropout1D SpatialDropout2D Subtract "
    "UnitNormalization UpSampling1D UpSampling2D ZeroPadding1D ZeroPadding2D"
).split()
_RANDOM = "RandomBrightness RandomContrast RandomFlip RandomRotation RandomTranslation RandomZoom".split()


def _arguments(kind: type) -> frozenset[str]:
    classes = [cls for cls in kind.__mro__ if issubclass(cls, layers.Layer) and cls is not layers.Layer]
    found = {name for cls in classes for name in inspect.signature(cls.__init__).parameters}
    return frozenset(found - {"self", "args", "kwargs"} - _REFUSED) | {
        "name",
        "dtype",
        "trainable",
        "activity_regularizer",
    }


def _row(name: str, **options) -> LayerRow:
    kind = getattr(layers, name)
    return LayerRow(kind, _arguments(kind) | options.get("renamed", {}).keys(), **options)


LAYERS: Mapping[str, LayerRow] = {
    **{name: _row(name) for name in _SAME},
    # At inference they do nothing.
    **{name: _row(name, ignored=("data_format", "value_range")) for name in _RANDOM},
    "RandomBrightness": _row("RandomBrightness", ignored=("data_format",)),
    **{
        name: LayerRow(kind, frozenset({"name", "dtype", "trainable"}), is_stand_in=True)
        for name, kind in STAND_INS.items()
    },
    "LeakyReLU": _row("LeakyReLU", renamed={"negative_slope": "alpha"}),
}
# Layers of Keras that are refused -> why, and what to do.
REFUSED: Mapping[str, str] = {
    "Lambda": "it runs your own code",
    "RandomCrop": "it crops at inference too; leave it out, and crop or resize the pictures (--image_size)",
}
# Those that another layer may have for its activation: they have no arrays.
ACTIVATIONS = ("Activation", "ELU", "LeakyReLU", "ReLU", "Softmax")
INPUT = LayerRow(layers.InputLayer, frozenset({"batch_shape", "dtype", "name"}))
