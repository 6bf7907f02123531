"""Layers over one axis: the same function in layers over maps, or a refusal by name."""

import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_keras import layers

from qkd_tf.experiment import ExperimentError, PixelNormalization, QuantizationSpec
from qkd_tf.quantization import one_axis
from qkd_tf.quantization.plan import make_plan
from qkd_tf.quantization.roles import LAYERS
from qkd_tf.quantization.standard_form import standard_form
from qkd_tf.quantization.student_reading import unsupported

RAW = PixelNormalization((0.0,), (64.0,))
STEPS, CHANNELS = 16, 6
SHAPE = (8, 4, 3)


def model_of(*body, ends=None):
    """A model whose pixels become a series of 16 steps and 6 channels."""
    pixels = tf_keras.Input(SHAPE, name="image")
    x = layers.Reshape((STEPS, CHANNELS), name="series")(layers.Rescaling(1 / 64)(pixels))
    for layer in (*body, *(ends or [layers.Flatten()])):
        x = layer(x)
    return tf_keras.Model(pixels, layers.Dense(5, name="logits")(x), name="user")


def images(num=3):
    return np.random.default_rng(1).integers(0, 256, (num, *SHAPE)).astype(np.float32)


def form_of(model):
    return standard_form(model, SHAPE, None, RAW).model


def assert_same_function(model):
    form = form_of(model)
    expected = model.predict_on_batch(images())
    np.testing.assert_allclose(form.predict_on_batch(images()), expected, atol=2e-5 * np.abs(expected).max())
    make_plan(form, QuantizationSpec())
    assert {type(layer) for layer in form.layers} <= LAYERS.keys()
    assert not [layer.name for layer in form.layers if len(tuple(layer.output.shape)) == one_axis.SERIES_RANK]
    return form


class _Both(layers.Layer):
    """Two branches of a series, joined."""

    def __init__(self, join, *branches):
        super().__init__()
        self._join, self._branches = join, branches

    def __call__(self, x):
        return self._join([x, *(branch(x) for branch in self._branches)])


MODELS = {
    "batch norm and relu fold": lambda: [
        layers.Conv1D(4, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
    ],
    "batch norm of the last axis by number": lambda: [layers.Conv1D(4, 3), layers.BatchNormalization(axis=2)],
    "batch norm alone": lambda: [layers.MaxPooling1D(), layers.BatchNormalization()],
    "fused activations": lambda: [
        layers.Conv1D(4, 3, activation="swish"),
        layers.DepthwiseConv1D(3, activation="relu"),
    ],
    "a group for each channel": lambda: [layers.Conv1D(12, 3, 2, "same", groups=6, activation="relu")],
    "depthwise, dilated": lambda: [layers.DepthwiseConv1D(3, padding="same", dilation_rate=2, depth_multiplier=2)],
    "separable": lambda: [layers.SeparableConv1D(4, 3, 2, "same", depth_multiplier=2, activation="relu")],
    "separable, causal": lambda: [layers.SeparableConv1D(4, 3, padding="causal", dilation_rate=3)],
    "pooling": lambda: [
        layers.MaxPooling1D(3, 2, "same"),
        layers.AveragePooling1D(2),
        layers.AveragePooling1D(2, padding="same"),
    ],
    "padding": lambda: [layers.ZeroPadding1D((2, 1)), layers.Conv1D(4, 3)],
    "dense at each step": lambda: [layers.Dense(4, activation="relu"), layers.Dense(3, use_bias=False)],
    "sum and concatenations": lambda: [
        _Both(layers.Add(), layers.Conv1D(6, 3, padding="same")),
        _Both(layers.Concatenate(axis=1), layers.Conv1D(6, 1)),
        _Both(layers.Concatenate(axis=2), layers.Conv1D(3, 1)),
        _Both(layers.Concatenate(), layers.Conv1D(3, 1)),
    ],
    "a gate": lambda: [
        _Both(
            layers.Multiply(),
            tf_keras.Sequential(
                [layers.GlobalAveragePooling1D(keepdims=True), layers.Dense(6, activation="sigmoid")],
            ),
        )
    ],
    "a gate without steps": lambda: [
        _Both(
            layers.Multiply(),
            tf_keras.Sequential([layers.GlobalAveragePooling1D(), layers.Dense(6, activation="sigmoid")]),
        )
    ],
    "nothing at inference": lambda: [layers.SpatialDropout1D(0.2), layers.Conv1D(4, 1), layers.Dropout(0.1)],
    "to maps and back": lambda: [
        layers.Reshape((4, 4, 6)),
        layers.Conv2D(4, 3, padding="same"),
        layers.Reshape((-1, 4)),
        layers.Conv1D(3, 3),
    ],
    "permuted where nothing moves": lambda: [layers.Reshape((1, 96)), layers.Permute((2, 1)), layers.Conv1D(4, 3, 3)],
}


@pytest.mark.parametrize("name", MODELS)
def test_a_series_is_a_map_of_one_row(name, randomize):
    assert_same_function(randomize(model_of(*MODELS[name]())))


@pytest.mark.parametrize("kind", [layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D])
@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling_ends_in_a_vector_or_a_map(kind, keepdims, randomize):
    ends = (kind(keepdims=keepdims), *([layers.Flatten()] if keepdims else []))
    assert_same_function(randomize(model_of(layers.Conv1D(4, 3), ends=ends)))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    kernel=st.integers(1, 5),
    step=st.sampled_from(((1, 1), (2, 1), (3, 1), (1, 2), (1, 3))),
    padding=st.sampled_from(("valid", "same", "causal")),
    groups=st.sampled_from((1, 2, 3, 6)),
    seed=st.integers(0, 9),
)
def test_a_convolution_is_that_of_the_definition(kernel, step, padding, groups, seed):
    """out[t, f] = bias[f] + sum over k, c of x[stride * t + dilation * k - before, c] * w[k, c, f]: a NumPy loop."""
    stride, dilation = step
    conv = layers.Conv1D(6, kernel, stride, padding, dilation_rate=dilation, groups=groups, name="conv")
    model = model_of(conv)
    rng = np.random.default_rng(seed)
    conv.set_weights([rng.normal(size=w.shape) for w in conv.get_weights()])
    form = assert_same_function(model)
    taken = tf_keras.Model(form.input, form.get_layer("conv").output)
    weights, bias = conv.get_weights()
    extent = dilation * (kernel - 1) + 1
    total = {"valid": 0, "causal": extent - 1, "same": max((-(-STEPS // stride) - 1) * stride + extent - STEPS, 0)}
    before = {"valid": 0, "causal": extent - 1, "same": total["same"] // 2}[padding]
    num_steps = (STEPS + total[padding] - extent) // stride + 1
    x = images(1).reshape(STEPS, CHANNELS) / 64
    expected = np.tile(bias, (num_steps, 1)).astype(np.float64)
    share = CHANNELS // groups
    for t, f, k in np.ndindex(num_steps, 6, kernel):
        at = stride * t + dilation * k - before
        if 0 <= at < STEPS:
            first = f // (6 // groups) * share
            expected[t, f] += x[at, first : first + share] @ weights[k, :, f]
    np.testing.assert_allclose(taken(images(1))[0, 0], expected, atol=1e-4)


def test_names_and_frozen_layers_are_kept():
    form = form_of(model_of(layers.Conv1D(4, 3, padding="causal", trainable=False, name="conv")))
    conv = form.get_layer("conv")
    assert (type(conv), conv.kernel_size, conv.trainable) == (layers.Conv2D, (1, 3), False)
    assert form.get_layer("conv_pad").padding == ((0, 0), (2, 0))


REFUSED = {
    "channels first": (lambda: layers.MaxPooling1D(data_format="channels_first", name="bad"), "use channels_last"),
    "a recurrent layer": (
        lambda: layers.GRU(4, return_sequences=True, name="bad"),
        "use convolutions and pooling along the steps: the state of a recurrent layer is not computed in integers",
    ),
    "once for each step": (lambda: layers.TimeDistributed(layers.Dense(4), name="bad"), "Conv1D(units, 1) does what"),
    "permuted": (lambda: layers.Permute((2, 1), name="bad"), "store the data in that order"),
    "transposed": (lambda: layers.Conv1DTranspose(4, 3, name="bad"), "use UpSampling (nearest) and"),
    "normalised over steps": (lambda: layers.BatchNormalization(axis=1, name="bad"), "use the last axis"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_is_refused_by_name(name):
    make, remedy = REFUSED[name]
    model = model_of(make())
    with pytest.raises(ExperimentError) as error:
        make_plan(form_of(model), QuantizationSpec())
    assert "layer bad" in str(error.value) and remedy in str(error.value)


def test_series_of_pictures_are_refused():
    pixels = tf_keras.Input(SHAPE)
    x = layers.Conv1D(4, 3, name="rows")(layers.Rescaling(1 / 64)(pixels))
    model = tf_keras.Model(pixels, layers.Dense(5)(layers.Flatten()(x)))
    assert "put Reshape to (steps, channels) before" in unsupported(model)["rows"]
