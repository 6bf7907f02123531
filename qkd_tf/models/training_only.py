"""Layers that do nothing at inference: those of tf_keras, and stand-ins for those that only Keras 3 has."""

from collections.abc import Mapping

from tf_keras import layers


class StandIn(layers.Layer):
    """For an augmentation layer of Keras 3 that tf_keras lacks. It passes its input on, in training too."""

    def call(self, inputs):
        return inputs


# AutoContrast and ContrastLimitedAdaptiveHistogramEqualization are missing: they work at inference too. Of Equalization
# Keras makes no functional model.
STAND_INS: Mapping[str, type[StandIn]] = {
    name: type(name, (StandIn,), {"__doc__": StandIn.__doc__})
    for name in (
        "AugMix CutMix MixUp RandAugment RandomColorDegeneration RandomColorJitter RandomElasticTransform "
        "RandomErasing RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization "
        "RandomSaturation RandomSharpness RandomShear Solarization"
    ).split()
}


def _of_tf_keras(names: str) -> tuple[type[layers.Layer], ...]:
    return tuple(getattr(layers, name) for name in names.split())


AUGMENTING = (
    *_of_tf_keras(
        "RandomBrightness RandomContrast RandomCrop RandomFlip RandomHeight RandomRotation RandomTranslation "
        "RandomWidth RandomZoom"
    ),
    StandIn,
)
# Nothing at inference as long as they keep the shape.
TRAINING_ONLY = (
    *AUGMENTING,
    *_of_tf_keras("ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise"),
    *_of_tf_keras("SpatialDropout1D SpatialDropout2D"),
)
