import collections

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization, require_network
from qkd_tf.models import zoo
from qkd_tf.models.layers import pixels
from qkd_tf.models.resnet import _pad_shortcut

NORMALIZATION = PixelNormalization((128.0,), (64.0,))
# Slow to build; widths 0.25 and 1.0 stand for the others.
SLOW = ("110", "101", "50", "34", "_0.35", "_0.5", "_0.75", "_1.4", "_b1", "_b2", "_lite1", "_lite2")
QUICK = [name for name in zoo.BUILDERS if not any(part in name for part in SLOW)]
ONE_OF_EACH_KIND = (
    "convnet_small", "resnet8", "resnet18", "resnet18_cifar", "resnet20", "resnet20_projection",
    "mobilenet_v2_0.25", "mobilenet_v2_0.25_cifar", "efficientnet_lite0",
)  # fmt: skip


@pytest.fixture(scope="module")
def build():
    """build(name): the network at CIFAR size, built once."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = zoo.build(NetworkSpec(name, NORMALIZATION), (32, 32, 3), 10)
        return built[name]

    return get


def num_trained(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def resnet_size(blocks_per_stage, projection):
    """Trained parameters: 3x3 kernels, gamma and beta of each BatchNormalization, the classifier."""

    def conv_bn(size, channels_in, channels_out):
        return size * size * channels_in * channels_out + 2 * channels_out

    total, channels_in = conv_bn(3, 3, 16), 16
    for channels in (16, 32, 64):
        for _ in range(blocks_per_stage):
            total += conv_bn(3, channels_in, channels) + conv_bn(3, channels, channels)
            if projection and channels_in != channels:
                total += conv_bn(1, channels_in, channels)
            channels_in = channels
    return total + 64 * 10 + 10


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_network_goes_from_pixels_to_logits(build, name):
    model = build(name)
    assert model.name == name
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    assert isinstance(model.layers[-1], layers.Dense)
    assert tf_keras.activations.serialize(model.layers[-1].activation) == "linear"


@pytest.mark.parametrize("name", QUICK)
def test_layer_names_are_unique(build, name):
    names = [layer.name for layer in build(name).layers]
    assert [n for n, count in collections.Counter(names).items() if count > 1] == []


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_layer_names_are_no_number_of_a_session(build, name):
    again = zoo.build(NetworkSpec(name, NORMALIZATION), (32, 32, 3), 10)
    assert [layer.name for layer in again.layers] == [layer.name for layer in build(name).layers]


def test_resnet8_has_the_size_of_mlperf_tiny(build):
    assert build("resnet8").count_params() == 78_666


@pytest.mark.parametrize("depth, blocks", [(20, 3), (32, 5), (44, 7), (56, 9)])
@pytest.mark.parametrize("suffix", ["", "_projection"])
def test_resnet_has_the_size_that_the_layers_add_up_to(build, depth, blocks, suffix):
    assert num_trained(build(f"resnet{depth}{suffix}")) == resnet_size(blocks, projection=bool(suffix))


@pytest.mark.parametrize(
    "name, size",
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet56", 853_018),
        ("resnet20_projection", 272_474),
    ],
)
def test_resnet_has_the_published_size(build, name, size):
    assert num_trained(build(name)) == size


def test_resnet110_has_the_published_size_by_the_formula():
    assert resnet_size(18, projection=False) == 1_727_962
    for name in ("resnet110", "resnet110_projection"):
        assert zoo.BUILDERS[name].keywords["blocks_per_stage"] == 18


@pytest.mark.parametrize("name", [n for n in QUICK if n.startswith("resnet")])
def test_depth_counts_the_convolutions_of_the_main_path_and_the_classifier(build, name):
    kinds = [layer for layer in build(name).layers if isinstance(layer, layers.Conv2D | layers.Dense)]
    main_path = [layer for layer in kinds if "projection" not in layer.name]
    assert len(main_path) == int(name.removeprefix("resnet").removesuffix("_projection").removesuffix("_cifar"))


def test_larger_convnet_is_larger(build):
    assert num_trained(build("convnet_large")) > 4 * num_trained(build("convnet_small"))


@pytest.mark.parametrize("name", ["convnet_small", "resnet8", "resnet20"])
def test_weights_are_fresh_but_other_classes_and_sizes_are_possible(name):
    model = zoo.build(NetworkSpec(name, NORMALIZATION), (16, 16, 1), 7)
    assert model.predict_on_batch(np.zeros((2, 16, 16, 1), np.float32)).shape == (2, 7)


@pytest.mark.parametrize(
    "name, side",
    [("resnet20", 32), ("resnet18_cifar", 32), ("mobilenet_v2_0.25", 224), ("resnet50", 224), ("efficientnet_b2", 260)],
)
def test_a_network_knows_the_size_of_pictures_that_it_was_made_for(name, side):
    assert zoo.usual_side(name) == side


def test_unknown_name_gets_the_nearest_one_or_all_that_are_known():
    with pytest.raises(ExperimentError, match="--student 'resnet21'; did you mean resnet20"):
        require_network(NetworkSpec("resnet21", NORMALIZATION), "--student")
    with pytest.raises(ExperimentError) as error:
        require_network(NetworkSpec("vgg16", NORMALIZATION), "--student")
    assert "--student 'vgg16'" in str(error.value)
    for name in zoo.BUILDERS:
        assert name in str(error.value)
    require_network(NetworkSpec("resnet20", NORMALIZATION), "--student")


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("channels_in, channels", [(4, 8), (4, 7), (4, 4)])
def test_pad_shortcut_is_every_second_pixel_between_zero_channels(size, channels_in, channels):
    inputs = tf_keras.Input((size, size, channels_in))
    model = tf_keras.Model(inputs, _pad_shortcut(inputs, channels, 2, "shortcut"))
    x = np.random.default_rng(0).normal(size=(2, size, size, channels_in)).astype(np.float32)
    before = (channels - channels_in) // 2
    expected = np.zeros((2, (size + 1) // 2, (size + 1) // 2, channels), np.float32)
    expected[..., before : before + channels_in] = x[:, ::2, ::2]
    np.testing.assert_array_equal(model.predict_on_batch(x), expected)


def test_strided_convolution_is_centred_on_the_pixels_of_the_shortcut(build):
    model = build("resnet20")
    source, conv = model.get_layer("stage1_block3_relu2"), model.get_layer("stage2_block1_conv1")
    before = conv.get_weights()
    centre = np.zeros_like(before[0])
    centre[1, 1, :, :16] = np.eye(16)
    conv.set_weights([centre])
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    x, y = tf_keras.Model(model.inputs, [source.output, conv.output]).predict_on_batch(images)
    conv.set_weights(before)
    assert x.any()
    np.testing.assert_array_equal(y[..., :16], x[:, ::2, ::2])


def test_pad_shortcut_of_equal_shape_is_the_tensor_itself():
    inputs = tf_keras.Input((6, 6, 4))
    assert _pad_shortcut(inputs, 4, 1, "shortcut") is inputs


@pytest.mark.parametrize("name", ["resnet20", "resnet20_projection", "resnet8"])
def test_both_branches_of_each_block_have_the_shape_of_their_sum(build, name):
    adds = [layer for layer in build(name).layers if isinstance(layer, layers.Add)]
    shapes = [layer.output_shape[1:] for layer in adds]
    blocks = len(adds) // 3
    assert shapes == [(32, 32, 16)] * blocks + [(16, 16, 32)] * blocks + [(8, 8, 64)] * blocks
    assert all(set(layer.input_shape) == {layer.output_shape} for layer in adds)


@pytest.mark.parametrize("mean, std", [((100.0,), (50.0,)), ((10.0, 20.0, 30.0), (2.0, 4.0, 5.0))])
def test_normalization_subtracts_the_mean_and_divides_by_the_deviation(mean, std):
    model = tf_keras.Model(*pixels((4, 4, 3), PixelNormalization(mean, std)))
    x = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(model.predict_on_batch(x), (x - np.array(mean)) / np.array(std), rtol=1e-5, atol=1e-5)


def test_batch_norm_epsilon_is_that_of_the_published_weights(build):
    def epsilons(name):
        return {layer.epsilon for layer in build(name).layers if isinstance(layer, layers.BatchNormalization)}

    assert epsilons("resnet20") == {1e-5}
    assert epsilons("resnet8") == {1e-3}


@pytest.mark.slow
@pytest.mark.parametrize("width, size", [(1.0, 3_504_872), (0.35, 1_676_344), (1.4, 6_118_704)])
def test_mobilenet_v2_has_the_published_size(width, size):
    model = zoo.build(NetworkSpec(f"mobilenet_v2_{width}", NORMALIZATION), (224, 224, 3), 1000)
    published = tf_keras.applications.MobileNetV2(alpha=width, weights=None, classifier_activation=None)
    assert model.count_params() == published.count_params()
    assert num_trained(model) == num_trained(published)
    assert num_trained(model) == pytest.approx(size, rel=0.01)  # as rounded in the literature: 3.50, 1.68, 6.11 M


@pytest.mark.slow
def test_mobilenet_v2_computes_what_keras_applications_computes_with_the_same_weights():
    """The layers have the same names, so that published weights fit by name."""
    ours = zoo.build(NetworkSpec("mobilenet_v2_0.35", PixelNormalization((127.5,), (127.5,))), (96, 96, 3), 10)
    theirs = tf_keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=10, classifier_activation=None)
    for layer in ours.layers:
        if layer.weights:
            theirs.get_layer(layer.name).set_weights(layer.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.float32)
    expected = theirs.predict_on_batch(images / 127.5 - 1)
    np.testing.assert_allclose(ours.predict_on_batch(images), expected, atol=1e-5 * np.abs(expected).max())


def test_mobilenet_v2_for_small_pictures_halves_them_three_times(build):
    assert build("mobilenet_v2_1.0_cifar").get_layer("out_relu").output_shape == (None, 4, 4, 1280)
    assert build("mobilenet_v2_1.0").get_layer("out_relu").output_shape == (None, 1, 1, 1280)
