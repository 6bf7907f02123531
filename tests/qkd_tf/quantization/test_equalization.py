"""Channels of one size: nothing else of a network may move."""

import pathlib

import numpy as np
import pytest
from tf_keras import layers

from qkd_tf import networks
from qkd_tf.experiment import UNEVEN_CHANNELS, NetworkSpec, PixelNormalization, QuantizationSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.equalization import MAX_FACTOR, equalize_channels
from qkd_tf.quantization.scheme import quantize_student

MODELS = pathlib.Path(__file__).parents[4] / "shared" / "models"
COMPUTE = {
    "conv": lambda use_bias: layers.Conv2D(4, 3, use_bias=use_bias, name="compute"),
    "groups": lambda use_bias: layers.Conv2D(4, 3, groups=2, use_bias=use_bias, name="compute"),
    "depthwise": lambda use_bias: layers.DepthwiseConv2D(3, use_bias=use_bias, name="compute"),
    "multiplied": lambda use_bias: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=use_bias, name="compute"),
}


@pytest.fixture
def uneven(chain, randomize):
    """uneven(kind, use_bias): kernel, BatchNormalization, logits; channels of sizes 1, 1/8, 1/300 and 0."""

    def make(kind, use_bias=False):
        body = [
            layers.Conv2D(2 if kind == "multiplied" else 4, 1, use_bias=False, name="first"),
            COMPUTE[kind](use_bias),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(6.0, name="relu"),
            layers.Conv2D(3, 1, name="last"),
            layers.GlobalAveragePooling2D(name="logits"),
        ]
        model = randomize(chain(layers.Rescaling(1 / 64, -2.0, name="normalization"), *body), seed=3)
        layer = model.get_layer("compute")
        kernel, *bias = layer.get_weights()
        sizes = np.array([1.0, 1 / 8, 1 / 300, 0.0])
        layer.set_weights([kernel * (sizes if kernel.shape[3] == 4 else sizes.reshape(kernel.shape[2:])), *bias])
        gamma, beta, mean, variance = model.get_layer("bn").get_weights()
        variance = np.array([2.0, 0.03, 1e-5, 1e-9])  # the last are nothing beside epsilon
        model.get_layer("bn").set_weights([gamma, beta, mean, variance])
        return model

    return make


def channel_sizes(model):
    return np.abs(model.get_layer("compute").get_weights()[0]).reshape(-1, 4).max(axis=0)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("kind", COMPUTE)
def test_channels_get_the_size_of_the_largest_and_the_function_stays(uneven, kind, use_bias):
    model = uneven(kind, use_bias)
    images = np.random.default_rng(0).integers(0, 256, (3, *model.input_shape[1:])).astype(np.float32)
    before, sizes = model.predict_on_batch(images), channel_sizes(model)
    equalize_channels(model)
    np.testing.assert_allclose(channel_sizes(model), [sizes.max()] * 3 + [0.0], rtol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(images), before, rtol=1e-4, atol=1e-5)
    assert np.all(model.get_layer("bn").moving_variance.numpy() >= 0)


@pytest.mark.parametrize("sizes, evened", [([3.1, 1, 1, 0], True), ([2.9, 1, 1, 0], False), ([9, 9, 9, 1], False)])
def test_below_the_spread_nothing_is_done(uneven, sizes, evened):
    """The spread is that of the median channel, and those of zeros do not count."""
    model = uneven("conv")
    layer = model.get_layer("compute")
    layer.set_weights([np.ones_like(layer.get_weights()[0]) * sizes])
    before = model.get_weights()
    assert equalize_channels(model, spread=3.0) == evened
    same = all(np.array_equal(now, then) for now, then in zip(model.get_weights(), before, strict=True))
    assert same != evened
    if evened:
        np.testing.assert_allclose(channel_sizes(model)[:3], 3.1, rtol=1e-6)


def test_one_uneven_kernel_has_all_of_them_equalized(chain, randomize):
    def make():
        body = [layers.Conv2D(4, 1, use_bias=False, name="even"), layers.BatchNormalization(name="bn")]
        body += [layers.DepthwiseConv2D(3, use_bias=False, name="compute"), layers.BatchNormalization(name="bn2")]
        return randomize(chain(*body, layers.GlobalAveragePooling2D(name="logits")), seed=3)

    for size, evened in ((0.5, False), (0.1, True)):
        model = make()
        even, uneven = model.get_layer("even"), model.get_layer("compute")
        even.set_weights([np.ones_like(even.get_weights()[0]) * [1.0, 0.8, 0.8, 0.8]])
        uneven.set_weights([np.ones_like(uneven.get_weights()[0]) * np.reshape([1.0, size, size, size], [4, 1])])
        equalize_channels(model, spread=3.0)
        for layer in (even, uneven):
            assert (np.ptp(layer.get_weights()[0]) < 1e-6) == evened


def test_equalizing_again_changes_nothing(uneven):
    model = uneven("conv")
    equalize_channels(model)
    first = model.get_weights()
    equalize_channels(model)
    for now, then in zip(model.get_weights(), first, strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-6)


def test_a_channel_of_next_to_nothing_stays_finite(uneven):
    model = uneven("conv")
    layer = model.get_layer("compute")
    (kernel,) = layer.get_weights()
    kernel[..., 3] = 1e-30
    layer.set_weights([kernel])
    equalize_channels(model)
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    assert channel_sizes(model)[3] == pytest.approx(1e-30 * MAX_FACTOR)


@pytest.mark.parametrize("name", ["first", "last"])
def test_kernels_without_a_batch_norm_stay(uneven, name):
    model = uneven("conv")
    before = model.get_layer(name).get_weights()
    equalize_channels(model)
    for now, then in zip(model.get_layer(name).get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_batch_norm_without_gamma_takes_nothing_back(chain, randomize):
    model = randomize(
        chain(
            layers.Conv2D(4, 1, use_bias=False, name="compute"),
            layers.BatchNormalization(scale=False, name="bn"),
            layers.GlobalAveragePooling2D(name="logits"),
        ),
        seed=0,
    )
    before = model.get_weights()
    equalize_channels(model)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_one_interval_keeps_what_it_would_have_lost(uneven):
    """At 4 bits a channel of 1/300 of the largest is 0 under the kernel's one interval; equalized it is not."""

    def integers(equalized):
        model = uneven("depthwise")
        if equalized:
            equalize_channels(model)
        student = quantize_student(model, QuantizationSpec(weight_bits=4))
        calibrate(student, [np.full((1, *model.input_shape[1:]), 100, np.uint8)], "minmax")
        tensor = student.weights["compute"]
        return np.round(tensor.kernel.numpy() / tensor.interval.numpy()).reshape(-1, 4)

    np.testing.assert_array_equal(integers(False)[:, 2], 0)
    np.testing.assert_array_equal(np.abs(integers(True)).max(axis=0), [7, 7, 7, 0])


@pytest.mark.parametrize(
    "name, file, side, num_classes, evened",
    [
        ("resnet20", "resnet20.npz", 32, 10, False),
        ("mobilenet_v2_1.0", "mobilenet_v2_1.0_224_qat8.npz", 224, 1000, True),
    ],
)
def test_published_resnet_is_even_and_mobilenet_is_not(name, file, side, num_classes, evened):
    if not (MODELS / file).exists():
        pytest.skip(f"no published weights: {MODELS / file}")
    pixels = PixelNormalization((128.0,), (64.0,))
    network = NetworkSpec(name, pixels, str(MODELS / file), pixels)
    model = networks.build_student(network, (side, side, 3), num_classes).model
    assert equalize_channels(model, UNEVEN_CHANNELS) == evened
