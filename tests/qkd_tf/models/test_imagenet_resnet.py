import numpy as np
import pytest
from tf_keras import layers

from qkd_tf.experiment import NetworkSpec, PixelNormalization
from qkd_tf.models import weights, zoo

NORMALIZATION = PixelNormalization((128.0,), (64.0,))


def build(name, side=64, num_classes=1000):
    return zoo.build(NetworkSpec(name, NORMALIZATION), (side, side, 3), num_classes)


@pytest.mark.slow
@pytest.mark.parametrize("name, size", [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)])
def test_resnet_has_the_published_size(name, size):
    assert sum(int(np.prod(v.shape)) for v in build(name).trainable_variables) == size


def test_maps_at_224_have_the_published_sizes():
    model = build("resnet18", 224)
    sizes = [model.get_layer(f"stage{stage}_block2_relu").output_shape[1:] for stage in (1, 2, 3, 4)]
    assert sizes == [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)]


def test_small_pictures_are_halved_three_times():
    assert build("resnet18_cifar", 32).get_layer("stage4_block2_relu").output_shape == (None, 4, 4, 512)


def test_no_convolution_has_a_bias_and_no_other_padding_than_that_of_the_published_weights():
    convs = [layer for layer in build("resnet50").layers if isinstance(layer, layers.Conv2D)]
    assert not any(layer.use_bias for layer in convs)
    strided = [layer for layer in convs if layer.strides == (2, 2) and layer.kernel_size > (1, 1)]
    assert [(layer.name, layer.padding) for layer in strided] == [("stem_conv", "valid")]


def pytorch_names(stages, convs):
    """Layers in the order of PyTorch's state_dict, and ours."""
    yield "conv1", "stem_conv"
    yield "bn1", "stem_bn"
    for stage, num_blocks in enumerate(stages, start=1):
        for block in range(num_blocks):
            theirs, ours = f"layer{stage}.{block}", f"stage{stage}_block{block + 1}"
            for number in range(1, convs + 1):
                yield f"{theirs}.conv{number}", f"{ours}_conv{number}"
                yield f"{theirs}.bn{number}", f"{ours}_bn{number}"
            if block == 0 and (stage > 1 or convs == 3):
                yield f"{theirs}.downsample.0", f"{ours}_projection"
                yield f"{theirs}.downsample.1", f"{ours}_projection_bn"
    yield "fc", "logits"


@pytest.mark.slow
@pytest.mark.parametrize("name, stages, convs", [("resnet18", (2, 2, 2, 2), 2), ("resnet50", (3, 4, 6, 3), 3)])
def test_weights_with_names_and_order_of_pytorch_land_where_they_belong(tmp_path, name, stages, convs):
    model = build(name, num_classes=5)
    words = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    expected, arrays = {}, {}
    for number, (theirs, ours) in enumerate(pytorch_names(stages, convs)):
        layer = model.get_layer(ours)
        values = [np.full(value.shape, number + place / 10, np.float32) for place, value in enumerate(layer.weights)]
        expected[ours] = values
        for variable, value in zip(layer.weights, values, strict=True):
            word = variable.name.split(":")[0].split("/")[-1]
            arrays[f"{theirs}.{words.get(word, 'weight' if word == 'kernel' else word)}"] = value
    np.savez(tmp_path / "weights.npz", **arrays)
    weights.load(model, NetworkSpec(name, NORMALIZATION, str(tmp_path / "weights.npz"), NORMALIZATION))
    for ours, values in expected.items():
        for got, value in zip(model.get_layer(ours).get_weights(), values, strict=True):
            np.testing.assert_array_equal(got, value, err_msg=ours)
