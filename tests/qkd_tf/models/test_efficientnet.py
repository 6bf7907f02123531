import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import NetworkSpec, PixelNormalization
from qkd_tf.models import zoo

NORMALIZATION = PixelNormalization((128.0,), (64.0,))


def build(name, side=64, num_classes=1000, normalization=NORMALIZATION):
    return zoo.build(NetworkSpec(name, normalization), (side, side, 3), num_classes)


@pytest.mark.slow
@pytest.mark.parametrize("name, size", [("efficientnet_b0", 5_288_548), ("efficientnet_lite0", 4_652_008)])
def test_efficientnet_has_the_published_size(name, size):
    assert sum(int(np.prod(v.shape)) for v in build(name).trainable_variables) == size


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b1", "efficientnet_b2"])
def test_larger_efficientnet_has_the_size_of_keras_applications(name):
    ours, theirs = build(name), getattr(tf_keras.applications, f"EfficientNet{name[-2:].upper()}")(weights=None)
    assert len(ours.trainable_variables) == len(theirs.trainable_variables)
    sizes = [sum(int(np.prod(v.shape)) for v in model.trainable_variables) for model in (ours, theirs)]
    assert sizes[0] == sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 75])  # even and odd maps are padded differently before strided windows
def test_b0_computes_what_keras_applications_computes_with_the_same_weights(side):
    ours = build("efficientnet_b0", side, 10, PixelNormalization((0.0,), (255.0,)))
    theirs = tf_keras.applications.EfficientNetB0(
        input_shape=(side, side, 3), weights=None, classes=10, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    for layer in ours.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.abs(rng.normal(1, 0.1, w.shape)) for w in layer.get_weights()])
        if layer.weights:
            theirs.get_layer(layer.name).set_weights(layer.get_weights())
    images = rng.integers(0, 256, (2, side, side, 3)).astype(np.float32)
    expected = theirs.predict_on_batch(images)
    np.testing.assert_allclose(ours.predict_on_batch(images), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_lite_has_relu6_and_no_gate():
    kinds = {type(layer) for layer in build("efficientnet_lite0").layers}
    assert layers.ReLU in kinds and not kinds & {layers.Activation, layers.Multiply, layers.ZeroPadding2D}
    assert {
        float(layer.max_value) for layer in build("efficientnet_lite0").layers if isinstance(layer, layers.ReLU)
    } == {6.0}


def test_lite_leaves_stem_head_and_the_ends_unscaled():
    model = build("efficientnet_lite2")
    assert model.get_layer("stem_conv").filters == 32 and model.get_layer("top_conv").filters == 1280
    names = {layer.name for layer in model.layers}
    assert "block1b_dwconv" not in names and "block7b_dwconv" not in names and "block2c_dwconv" in names
