"""Each layer that is taken over, with its default arguments, is the same function in both libraries."""

import inspect

import numpy as np
import pytest
import tf_keras

from qkd_tf.models.keras3.layers import LAYERS
from qkd_tf.models.training_only import STAND_INS

FLAT, MAP, RGB = (6,), (6, 4), (6, 6, 3)  # shapes of inputs beside pictures [6, 6, 4]
# Layer -> what it must be told beside its defaults, and the shape that it reads where that is no picture.
ARGUMENTS = {
    "Activation": ({"activation": "relu"},),
    "AlphaDropout": ({"rate": 0.2},),
    "AveragePooling1D": ({"pool_size": 2}, MAP),
    "AveragePooling2D": ({"pool_size": 2},),
    "CenterCrop": ({"height": 3, "width": 3},),
    "Conv1D": ({"filters": 3, "kernel_size": 3}, MAP),
    "Conv1DTranspose": ({"filters": 3, "kernel_size": 3, "strides": 2}, MAP),
    "Conv2D": ({"filters": 3, "kernel_size": 3},),
    "Conv2DTranspose": ({"filters": 3, "kernel_size": 3, "strides": 2},),
    "Cropping1D": ({}, MAP),
    "Dense": ({"units": 3},),
    "DepthwiseConv1D": ({"kernel_size": 3}, MAP),
    "DepthwiseConv2D": ({"kernel_size": 3},),
    "Dropout": ({"rate": 0.2},),
    "GaussianDropout": ({"rate": 0.2},),
    "GaussianNoise": ({"stddev": 0.2},),
    "GlobalAveragePooling1D": ({}, MAP),
    "GlobalMaxPooling1D": ({}, MAP),
    "GroupNormalization": ({"groups": 2},),
    "MaxPooling1D": ({}, MAP),
    "Normalization": ({"mean": [1.0, 2.0, 3.0, 4.0], "variance": [1.0, 4.0, 2.0, 9.0]},),
    "Permute": ({"dims": (2, 1, 3)},),
    "RandomBrightness": ({"factor": 0.2},),
    "RandomColorDegeneration": ({"factor": 0.2}, RGB),
    "RandomContrast": ({"factor": 0.2},),
    "RandomCrop": ({"height": 6, "width": 6},),
    "RandomHue": ({"factor": 0.2},),
    "RandomPosterization": ({"factor": 4},),
    "RandomRotation": ({"factor": 0.2},),
    "RandomSaturation": ({"factor": 0.2},),
    "RandomSharpness": ({"factor": 0.2},),
    "RandomTranslation": ({"height_factor": 0.2, "width_factor": 0.2},),
    "RandomZoom": ({"height_factor": 0.2},),
    "RepeatVector": ({"n": 3}, FLAT),
    "Rescaling": ({"scale": 1 / 64, "offset": -1.0},),
    "Reshape": ({"target_shape": (-1, 12)},),
    "Resizing": ({"height": 4, "width": 9},),
    "SeparableConv1D": ({"filters": 3, "kernel_size": 3}, MAP),
    "SeparableConv2D": ({"filters": 3, "kernel_size": 3},),
    "SpatialDropout1D": ({"rate": 0.2}, MAP),
    "SpatialDropout2D": ({"rate": 0.2},),
    "UpSampling1D": ({}, MAP),
    "ZeroPadding1D": ({}, MAP),
}
OF_TWO = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - {"Dot"}))
def test_layer_is_the_same_function_with_its_defaults(keras, alike, randomized, name):
    arguments, shape = (*ARGUMENTS.get(name, ({},)), (6, 6, 4))[:2]
    pixels = keras.Input(shape)
    layer = getattr(keras.layers, name)(**arguments)
    output = layer([pixels, keras.ops.negative(pixels)]) if name in OF_TWO else layer(pixels)
    difference, _ = alike(randomized(keras.Model(pixels, output)))
    assert difference < 1e-6


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("Conv2D", {"filters": 4, "kernel_size": (3, 2), "strides": 2, "padding": "same", "groups": 2}),
        ("Conv2D", {"filters": 3, "kernel_size": 3, "dilation_rate": 2, "use_bias": False, "activation": "gelu"}),
        ("Conv2D", {"filters": 3, "kernel_size": 1, "activation": "hard_sigmoid"}),
        ("Conv2D", {"filters": 3, "kernel_size": 1, "kernel_regularizer": "l2", "bias_constraint": "non_neg"}),
        ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}),
        ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"}),
        ("BatchNormalization", {"epsilon": 0.3, "center": False, "scale": False}),
        ("BatchNormalization", {"axis": 1, "synchronized": True}),
        ("LayerNormalization", {"axis": (1, 2), "epsilon": 0.2}),
        ("LeakyReLU", {"negative_slope": 0.1}),
        ("ReLU", {"max_value": 3.0, "negative_slope": 0.2, "threshold": 0.5}),
        ("ELU", {"alpha": 0.5}),
        ("Softmax", {"axis": 1}),
        ("Activation", {"activation": "hard_swish"}),
        ("AveragePooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}),
        ("UpSampling2D", {"size": (2, 3), "interpolation": "bilinear"}),
        ("Resizing", {"height": 4, "width": 3, "crop_to_aspect_ratio": True}),
        ("Rescaling", {"scale": [1.0, 2.0, 3.0, 4.0], "offset": [0.0, 1.0, 0.0, 1.0]}),
        ("Normalization", {"mean": 2.0, "variance": 4.0, "invert": True}),
        ("GlobalMaxPooling2D", {"keepdims": True}),
    ],
)
def test_layer_is_the_same_function_with_other_arguments(keras, alike, randomized, name, arguments):
    pixels = keras.Input((6, 6, 4))
    model = randomized(keras.Model(pixels, getattr(keras.layers, name)(**arguments)(pixels)))
    assert alike(model)[0] < 2e-6


def test_defaults_of_what_shapes_training_are_those_of_keras_3(keras):
    """Functions at inference do not show them; configurations have them, but an older one may lack one."""
    for name in LAYERS.keys() - STAND_INS.keys():
        theirs = inspect.signature(getattr(keras.layers, name).__init__).parameters
        ours = inspect.signature(getattr(tf_keras.layers, name).__init__).parameters
        for key in ("momentum", "epsilon", "rate", "seed", "center", "scale", "use_bias", "padding", "interpolation"):
            if key in theirs and key in ours:
                assert theirs[key].default == ours[key].default, (name, key)
    assert tf_keras.layers.LeakyReLU().alpha == np.float32(0.3) == np.float32(keras.layers.LeakyReLU().negative_slope)


def test_adapted_normalization_keeps_what_it_saw(keras, alike):
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(0).uniform(0, 255, (20, 6, 6, 3)).astype(np.float32))
    pixels = keras.Input((6, 6, 3))
    difference, converted = alike(keras.Model(pixels, layer(pixels)))
    assert difference < 1e-6
    np.testing.assert_allclose(converted.layers[1].mean, np.asarray(layer.mean), 1e-6)
