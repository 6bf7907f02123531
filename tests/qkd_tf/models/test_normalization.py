"""Normalisation of pixels, read off a model's beginning and taken up by kernels: by hand, and by NumPy's loops."""

import numpy as np
import pytest
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from tf_keras import layers

from qkd_tf.experiment import ExperimentError, PixelNormalization
from qkd_tf.models import normalization
from qkd_tf.models.normalization import Affine

SHAPE = (6, 6, 3)


def affine(scale, offset):
    return Affine(np.asarray(scale, np.float64), np.asarray(offset, np.float64))


def model_of(*chain, shape=SHAPE):
    pixels = x = tf_keras.Input(shape, name="pixels")
    for layer in chain:
        x = layer(x)
    return tf_keras.Model(pixels, x)


# Maps

finite = st.floats(-100, 100).map(lambda v: round(v, 3))
scales = st.floats(0.01, 100).map(lambda v: round(v, 3)) | st.floats(-100, -0.01).map(lambda v: round(v, 3))
maps = st.tuples(st.lists(scales, min_size=3, max_size=3), st.lists(finite, min_size=3, max_size=3)).map(
    lambda pair: affine(*pair)
)


def assert_same(one, other):
    np.testing.assert_allclose(one.scale, other.scale, rtol=1e-9)
    np.testing.assert_allclose(one.offset, other.offset, rtol=1e-9, atol=1e-6 * np.abs(one.scale).max())


@given(maps, maps)
def test_map_after_another_is_what_leads_from_that_one_to_it(one, other):
    """(x -> one) is (x -> other), then `one.after(other)`."""
    step = one.after(other)
    assert_same(other.then(step.scale, step.offset), one)


@given(maps)
def test_map_after_itself_is_nothing_and_after_nothing_itself(one):
    assert_same(one.after(one), Affine.identity(3))
    assert_same(one.after(Affine.identity(3)), one)
    assert_same(Affine.identity(3).then(one.scale, one.offset), one)


@given(maps, maps, st.integers(0, 255))
def test_maps_are_done_one_after_the_other(one, other, pixel):
    pixels = np.full((1, 1, 1, 3), pixel, np.float64)
    expected = (pixels * one.scale + one.offset) * other.scale + other.offset
    got = one.then(other.scale, other.offset)(pixels)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-5 * np.abs(expected).max() + 1e-3)


@given(
    st.lists(st.tuples(st.floats(0, 254), st.floats(0.1, 300)), min_size=1, max_size=3).filter(lambda v: len(v) != 2)
)
def test_map_of_a_mean_and_a_deviation_reads_the_mean_as_zero(pairs):
    mean, std = (tuple(values) for values in zip(*pairs, strict=True))
    got = Affine.of(PixelNormalization(mean, std), 3)
    np.testing.assert_allclose(got.zero_pixels, np.broadcast_to(mean, 3), atol=1e-4)
    np.testing.assert_allclose(got(np.asarray(mean) + np.asarray(std)), np.ones(3), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "scale, offset, mean, std",
    [
        ([1 / 127.5] * 3, [-1.0] * 3, 128.0, 127.5),  # half to even
        ([1 / 255] * 3, [0.0] * 3, 0.0, 255.0),
        ([1 / 50, 1 / 60, 1 / 70], [-2.0, -2.0, -2.0], 120.0, 60.0),
        ([-1 / 255] * 3, [1.0] * 3, 254.0, 255.0),  # 255 has no place in an input's grid
        ([1.0] * 3, [5.0] * 3, 0.0, 1.0),
    ],
)
def test_nearest_normalization_of_an_input_by_hand(scale, offset, mean, std):
    nearest = affine(scale, offset).nearest()
    assert nearest.mean == (mean,) and nearest.std == pytest.approx((std,)) and nearest.fits_input


def test_maps_are_the_same_up_to_rounding():
    one = affine([1 / 64] * 3, [-2.0] * 3)
    assert one.is_as(affine([1 / 64 * (1 + 1e-7)] * 3, [-2.0] * 3))
    assert not one.is_as(affine([1 / 64 * (1 + 1e-4)] * 3, [-2.0 * (1 + 1e-4)] * 3))
    assert not one.is_as(affine([1 / 64] * 3, [-2.0, -2.0, -2.01]))
    assert str(one) == "mean 128 and deviation 64"
    assert str(affine([1 / 50, 1 / 60, 1 / 70], [-2, -2, -2])) == "mean 100,120,140 and deviation 50,60,70"


# Kernels


def test_kernels_that_take_up_by_hand():
    """2 x + 1 of the first channel and 3 x - 1 of the second."""
    step = affine([2, 3], [1, -1])
    kernel, added = normalization.conv_taking_up(np.array([[[[1.0, 10.0], [5.0, 7.0]]]]), step)
    assert kernel.tolist() == [[[[2, 20], [15, 21]]]] and added.tolist() == [1 - 5, 10 - 7]
    kernel, added = normalization.depthwise_taking_up(np.array([[[[1.0, 10.0], [5.0, 7.0]]]]), step)
    assert kernel.tolist() == [[[[2, 20], [15, 21]]]] and added.tolist() == [1, 10, -5, -7]
    kernel, added = normalization.dense_taking_up(np.array([[1.0], [10.0], [5.0], [7.0]]), step)  # two pixels
    assert kernel.tolist() == [[2], [30], [10], [21]] and added.tolist() == [1 - 10 + 5 - 7]
    kernel, added = normalization.conv_taking_up(np.array([[[[1.0, 10.0, 5.0, 7.0]]]]), step)  # two groups
    assert kernel.tolist() == [[[[2, 20, 15, 21]]]] and added.tolist() == [1, 10, -5, -7]


def convolve(x, kernel, groups=1):
    """[H, W, C] by [h, w, C / groups, out], without padding: loops over what the definition sums."""
    (height, width), (rows, columns, per_group, filters) = x.shape[:2], kernel.shape
    out = np.zeros((height - rows + 1, width - columns + 1, filters))
    for f in range(filters):
        first = f // (filters // groups) * per_group
        for row in range(out.shape[0]):
            for column in range(out.shape[1]):
                patch = x[row : row + rows, column : column + columns, first : first + per_group]
                out[row, column, f] = np.sum(patch * kernel[..., f])
    return out


def convolve_depthwise(x, kernel):
    multiplier = kernel.shape[3]
    outputs = [
        convolve(x[..., c : c + 1], kernel[:, :, c : c + 1, m : m + 1])
        for c in range(x.shape[-1])
        for m in range(multiplier)
    ]
    return np.concatenate(outputs, -1)


seeds, sizes = st.integers(0, 2**32 - 1), st.integers(1, 3)


@given(seeds, sizes, sizes, st.integers(1, 3), st.integers(1, 2), st.integers(1, 3))
def test_convolution_that_takes_up_is_the_convolution_behind(seed, rows, columns, groups, per_group, per_filter):
    rng = np.random.default_rng(seed)
    channels = groups * per_group
    step = affine(rng.uniform(0.5, 2, channels), rng.normal(size=channels))
    x, kernel = rng.normal(size=(4, 3, channels)), rng.normal(size=(rows, columns, per_group, groups * per_filter))
    taken, added = normalization.TAKING_UP[layers.Conv2D](kernel, step)
    expected = convolve(x * step.scale + step.offset, kernel, groups)
    np.testing.assert_allclose(convolve(x, taken, groups) + added, expected, atol=1e-9)


@given(seeds, sizes, sizes, st.integers(1, 3), st.integers(1, 3))
def test_depthwise_convolution_that_takes_up_is_the_one_behind(seed, rows, columns, channels, multiplier):
    rng = np.random.default_rng(seed)
    step = affine(rng.uniform(0.5, 2, channels), rng.normal(size=channels))
    x, kernel = rng.normal(size=(4, 3, channels)), rng.normal(size=(rows, columns, channels, multiplier))
    taken, added = normalization.TAKING_UP[layers.DepthwiseConv2D](kernel, step)
    expected = convolve_depthwise(x * step.scale + step.offset, kernel)
    np.testing.assert_allclose(convolve_depthwise(x, taken) + added, expected, atol=1e-9)


@given(seeds, sizes, sizes, st.integers(1, 3))
def test_dense_layer_that_takes_up_is_the_one_behind(seed, height, width, channels):
    rng = np.random.default_rng(seed)
    step = affine(rng.uniform(0.5, 2, channels), rng.normal(size=channels))
    x, kernel = rng.normal(size=(height, width, channels)), rng.normal(size=(height * width * channels, 2))
    taken, added = normalization.TAKING_UP[layers.Dense](kernel, step)
    expected = (x * step.scale + step.offset).ravel() @ kernel
    np.testing.assert_allclose(x.ravel() @ taken + added, expected, atol=1e-9)


@pytest.mark.parametrize(
    "layer",
    [layers.Conv2D(4, 2), layers.Conv2D(6, 2, groups=3), layers.DepthwiseConv2D(2, depth_multiplier=2)],
    ids=["conv", "groups", "depthwise"],
)
def test_numpys_convolutions_are_those_of_keras(layer, randomize):
    """The law above would hold of any convolution; this ties it to the one that trains."""
    model = randomize(model_of(layer))
    kernel, bias = layer.get_weights()
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    if isinstance(layer, layers.DepthwiseConv2D) and type(layer) is layers.DepthwiseConv2D:
        expected = convolve_depthwise(x, kernel)
    else:
        expected = convolve(x, kernel, layer.groups)
    np.testing.assert_allclose(model(x[np.newaxis])[0], expected + bias, atol=1e-4)


# Beginnings

HALF = ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
# What a flat model begins with -> names of the layers of its front, and what they make of a pixel.
FRONTS = {
    "rescaling": ([layers.Rescaling(0.5, 1.0, name="a")], ["a"], *HALF),
    "two": ([layers.Rescaling(0.5, 3.0, name="a"), layers.Rescaling(1.0, -2.0, name="b")], ["a", "b"], *HALF),
    "augmentation before": (
        [layers.RandomFlip(name="flip"), layers.RandomRotation(0.1, name="turn"), layers.Rescaling(0.5, 1.0, name="a")],
        ["flip", "turn", "a"],
        *HALF,
    ),
    "dropout between": (
        [layers.Rescaling(0.5, name="a"), layers.Dropout(0.1, name="d"), layers.Rescaling(1.0, 1.0, name="b")],
        ["a", "d", "b"],
        *HALF,
    ),
    "augmentation behind is none of it": (
        [layers.Rescaling(0.5, 1.0, name="a"), layers.RandomFlip(name="flip"), layers.Conv2D(2, 1)],
        ["a"],
        *HALF,
    ),
    "channels": (
        [layers.Rescaling([0.5, 0.25, 2.0], [1.0, 0.0, -1.0], name="a")],
        ["a"],
        [0.5, 0.25, 2.0],
        [1.0, 0.0, -1.0],
    ),
    "normalization": ([layers.Normalization(mean=-2.0, variance=4.0, name="n")], ["n"], *HALF),
    "normalization of channels": (
        [layers.Normalization(mean=[-2.0, 0.0, 1.0], variance=[4.0, 16.0, 1.0], name="n")],
        ["n"],
        [0.5, 0.25, 1.0],
        [1.0, 0.0, -1.0],
    ),
    "inverted normalization": (
        [layers.Rescaling(0.25, -1.0, name="a"), layers.Normalization(mean=3.0, variance=4.0, invert=True, name="n")],
        ["a", "n"],
        *HALF,
    ),
    "convolution before": ([layers.Conv2D(3, 1), layers.Rescaling(0.5, 1.0)], [], None, None),
    "none": ([layers.Flatten()], [], None, None),
}


@pytest.mark.parametrize("name", FRONTS)
def test_front_of_a_model(name):
    chain, names, scale, offset = FRONTS[name]
    found, made = normalization.front(model_of(*chain))
    assert [layer.name for layer in found] == names
    if scale is None:
        assert made is None
    else:
        assert_same(made, affine(scale, offset))


def test_front_is_what_the_layers_compute():
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype(np.float32)
    adapted = layers.Normalization(axis=-1)
    adapted.adapt(np.random.default_rng(1).normal(100, [10, 20, 30], (50, *SHAPE)))
    inverted = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0], invert=True)
    model = model_of(layers.Rescaling(0.9, 3.0), adapted, layers.Rescaling([1, 2, 3], [3, 2, 1]), inverted)
    found, made = normalization.front(model)
    assert len(found) == 4
    np.testing.assert_allclose(made(images), model(images), rtol=1e-5, atol=1e-5)


def test_front_ends_where_two_layers_read_the_pixels():
    pixels = tf_keras.Input(SHAPE)
    model = tf_keras.Model(pixels, layers.Add()([layers.Rescaling(0.5)(pixels), layers.Rescaling(2.0)(pixels)]))
    assert normalization.front(model) == ([], None)
    x = layers.Rescaling(0.5, name="first")(pixels)
    model = tf_keras.Model(pixels, layers.Add()([layers.Rescaling(0.5)(x), x]))
    assert [layer.name for layer in normalization.front(model)[0]] == ["first"]


@pytest.mark.parametrize(
    "scale", [0.0, [1.0, 0.0, 1.0], float("inf"), float("nan")], ids=["zero", "one_channel", "inf", "nan"]
)
def test_front_that_leaves_nothing_of_the_pixels_is_refused(scale):
    with pytest.raises(ExperimentError, match="layer nothing scales pixels by 0 or by a number that is not finite"):
        normalization.front(model_of(layers.Rescaling(scale, name="nothing")))


def test_normalization_that_was_never_adapted_is_nothing():
    """Keras' own, of mean 0 and variance 1, which it has until it sees data."""
    _, made = normalization.front(model_of(layers.Normalization()))
    assert_same(made, Affine.identity(3))


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.Rescaling(np.ones((6, 1, 1)).tolist(), name="bad"), r"\(6, 1, 1\)"),
        (layers.Rescaling(np.ones(SHAPE).tolist(), name="bad"), r"\(6, 6, 3\)"),
        (layers.Normalization((1, 2, 3), np.zeros(SHAPE), np.ones(SHAPE), name="bad"), r"\(1, 6, 6, 3\)"),
    ],
    ids=["rows", "pixels", "normalization"],
)  # fmt: skip
def test_values_of_rows_and_pixels_are_refused_by_the_layers_name(layer, shape):
    with pytest.raises(
        ExperimentError, match=f"layer bad normalises by values of shape {shape}; one value, or one per channel"
    ):
        normalization.front(model_of(layer))


@pytest.mark.parametrize(
    "layer, nothing",
    [
        (layers.Dropout(0.5), True),
        (layers.SpatialDropout2D(0.5), True),
        (layers.GaussianNoise(1.0), True),
        (layers.ActivityRegularization(0.1), True),
        (layers.RandomFlip(), True),
        (layers.RandomZoom(0.1), True),
        (layers.RandomContrast(0.1), True),
        (layers.RandomCrop(6, 6), True),
        (layers.RandomCrop(4, 4), False),  # a crop of the middle at inference
        (layers.Identity(), True),
        (layers.ReLU(), False),
        (layers.Conv2D(3, 1), False),
    ],
)  # fmt: skip
def test_nothing_at_inference(layer, nothing):
    model = model_of(layer)
    assert normalization.is_nothing(model.layers[1]) == nothing
    if nothing:
        images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype(np.float32)
        np.testing.assert_array_equal(model(images, training=False), images)


def branches(first, second):
    pixels = tf_keras.Input(SHAPE)
    ends = [layers.Flatten()(layers.Conv2D(2, 1)(branch(pixels) if branch else pixels)) for branch in (first, second)]
    return tf_keras.Model(pixels, layers.Concatenate()(ends))


@pytest.mark.parametrize(
    "model, does",
    [
        (lambda: model_of(layers.Rescaling(0.5), layers.Conv2D(2, 1)), True),
        (lambda: model_of(layers.Conv2D(2, 1)), False),
        (lambda: model_of(layers.Conv2D(2, 1), layers.Rescaling(0.5)), False),
        (lambda: model_of(layers.ZeroPadding2D(), layers.Rescaling(0.5), layers.Conv2D(2, 1)), True),
        (lambda: model_of(layers.RandomFlip(), layers.Normalization(), layers.Conv2D(2, 1)), True),
        (lambda: model_of(layers.Lambda(lambda x: x / 255), layers.Rescaling(0.5)), False),
        (lambda: model_of(layers.BatchNormalization(), layers.Rescaling(0.5)), False),
        (lambda: branches(layers.Rescaling(0.5), layers.Rescaling(0.25)), True),
        (lambda: branches(layers.Rescaling(0.5), None), False),
        (lambda: model_of(layers.Flatten(), layers.ReLU()), False),
    ],
    ids="yes,no,late,padded,augmented,lambda,batch_norm,branches,one_branch,no_weights".split(","),
)
def test_model_normalizes_where_every_path_does_before_any_weights(model, does):
    assert normalization.normalizes(model()) == does
