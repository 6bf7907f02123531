import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers
from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from qkd_tf.experiment import ExperimentError, PixelNormalization, QuantizationSpec
from qkd_tf.models.copier import leaves
from qkd_tf.quantization.plan import make_plan
from qkd_tf.quantization.refusals import problems
from qkd_tf.quantization.standard_form import standard_form
from qkd_tf.quantization.student_reading import unsupported

RAW = PixelNormalization((0.0,), (64.0,))
SHAPE = (8, 8, 3)


def functional(body, front=True):
    """A model that begins with a Rescaling and ends in five logits."""
    pixels = tf_keras.Input(SHAPE, name="image")
    x = layers.Rescaling(1 / 64, name="scaled")(pixels) if front else pixels
    x = layers.GlobalAveragePooling2D(name="pool")(body(x))
    return tf_keras.Model(pixels, layers.Dense(5, name="logits")(x), name="user")


def nested():
    inner_input = tf_keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inner_input)
    inner = tf_keras.Model(inner_input, layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x)), name="inner")
    stem = tf_keras.Sequential([layers.Conv2D(4, 3, activation="relu", name="conv")], name="stem")
    return functional(lambda x: layers.Add()([y := layers.ZeroPadding2D(1)(stem(x)), inner(y)]))


def sequential():
    return tf_keras.Sequential(
        [
            layers.InputLayer(SHAPE),
            layers.Rescaling(1 / 64),
            layers.SeparableConv2D(6, 3, 2, "same", activation="relu"),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(5),
        ],
        name="user",
    )


def pre_activation():
    def block(x):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
        return layers.Add()([x, y])

    def body(x):
        x = block(block(layers.Conv2D(4, 3, padding="same")(x)))
        return layers.Activation("relu")(layers.BatchNormalization()(x))

    return functional(body)


def dense_then_batch_norm():
    pixels = tf_keras.Input(SHAPE)
    x = layers.Dense(6, activation="relu")(layers.Flatten()(layers.Rescaling(1 / 64)(pixels)))
    return tf_keras.Model(pixels, layers.Dense(5)(layers.BatchNormalization()(x)), name="user")


def through(*kinds):
    def body(x):
        for layer in kinds:
            x = layer(x)
        return x

    return lambda: functional(body)


def three_terms():
    def body(x):
        terms = [layers.Conv2D(4, 1, use_bias=False)(x) for _ in range(3)]
        return layers.Add(name="sum")(terms)

    return functional(body)


def pre_activation_without_batch_norm():
    def body(x):
        x = layers.Conv2D(4, 3, padding="same")(x)
        y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(x))
        return layers.ReLU(6.0)(layers.Concatenate()([layers.Add()([x, y]), x]))

    return functional(body)


MODELS = {
    "nested": nested,
    "Sequential, separable, Flatten": sequential,
    "pre-activation, batch norm after add": pre_activation,
    "pre-activation without batch norm, relu6 after concatenate": pre_activation_without_batch_norm,
    "relu after pooling": through(layers.Conv2D(4, 3), layers.MaxPooling2D(), layers.Activation("relu")),
    "linear activation": through(layers.Conv2D(4, 3), layers.MaxPooling2D(), layers.Activation("linear")),
    "batch norm after a dense layer's relu": dense_then_batch_norm,
    "swish": through(layers.Conv2D(4, 3), layers.Activation("swish")),
    "swish inside a convolution": through(layers.Conv2D(4, 3, activation="swish")),
    "sigmoid inside a separable one": through(layers.SeparableConv2D(4, 3, activation="sigmoid")),
    "batch norm without beta": through(
        layers.Conv2D(4, 3), layers.BatchNormalization(center=False, scale=False), layers.ReLU()
    ),
    "batch norm of a relu": through(layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()),
    "three terms": three_terms,
    "depth_multiplier": through(
        layers.DepthwiseConv2D(3, depth_multiplier=3, activation="relu"),
        layers.SeparableConv2D(4, 3, depth_multiplier=2, activation="swish"),
    ),
    "groups": through(
        layers.Conv2D(4, 3), layers.Conv2D(6, 3, groups=2, use_bias=False), layers.BatchNormalization(), layers.ReLU()
    ),
    "a group for each channel": through(layers.Conv2D(6, 3, 2, "same", groups=3, activation="relu")),
    "a group for each channel, swish": through(layers.Conv2D(3, 3, groups=3, use_bias=False, activation="swish")),
    "leaky relu": through(layers.Conv2D(4, 3), layers.LeakyReLU(), layers.MaxPooling2D(), layers.LeakyReLU(0.1)),
    "leaky relu inside a convolution": through(layers.Conv2D(4, 3, activation=layers.LeakyReLU(0.1))),
    "tf.nn.leaky_relu inside a separable one": through(layers.SeparableConv2D(4, 3, activation=tf.nn.leaky_relu)),
    "tf.nn.leaky_relu": through(
        layers.Conv2D(4, 3), tf.nn.leaky_relu, layers.Conv2D(4, 3), lambda x: tf.nn.leaky_relu(x, 0.1)
    ),
    "ReLU with a slope": through(layers.Conv2D(4, 3), layers.ReLU(negative_slope=0.1)),
    "a slope of 0": through(layers.Conv2D(4, 3), layers.LeakyReLU(0.0)),
    "slopes that are learned": through(
        layers.Conv2D(4, 3), layers.PReLU(shared_axes=[1, 2]), layers.Conv2D(4, 3), layers.PReLU()
    ),
    "slopes of a series": through(
        layers.Reshape((64, 3)), layers.PReLU(shared_axes=[1]), layers.PReLU(), layers.Reshape((8, 8, 3))
    ),
    "crop, repeat": through(layers.Cropping2D(((1, 0), (0, 2))), layers.UpSampling2D((2, 3)), layers.Conv2D(4, 3)),
    "average of the pixels that are there": through(layers.Conv2D(4, 3), layers.AveragePooling2D(3, 1, "same")),
    "a sum of InceptionResNetV2": lambda: functional(lambda x: CustomScaleLayer(0.25)([x, layers.Conv2D(3, 1)(x)])),
    "average of windows that need no padding": through(
        layers.Conv2D(4, 3, padding="same"), layers.AveragePooling2D(2, padding="same")
    ),
    "average of three": lambda: functional(lambda x: layers.Average()([layers.Conv2D(4, 3)(x) for _ in range(3)])),
    "difference": lambda: functional(lambda x: layers.Subtract()([layers.Conv2D(4, 3)(x), layers.Conv2D(4, 3)(x)])),
    "TensorFlow's difference": lambda: functional(lambda x: layers.Conv2D(4, 3)(x) - layers.Conv2D(4, 3)(x)),
    "TensorFlow's mean and largest": through(
        layers.Conv2D(4, 3),
        lambda x: tf.concat([tf.reduce_mean(x, [1, 2]), tf.reduce_max(x, [1, 2])], -1),
        lambda x: tf.reshape(x, (-1, 2, 2, 2)),
    ),
    "TensorFlow's padding and clipping": through(
        layers.Conv2D(4, 3), lambda x: tf.pad(tf.clip_by_value(x, 0.0, 0.5), [[0, 0], [1, 1], [2, 0], [0, 0]])
    ),
    "largest of the map": through(layers.Conv2D(4, 3), layers.GlobalMaxPooling2D(keepdims=True)),
    "largest of the map, flat": through(
        layers.Conv2D(4, 3), layers.GlobalMaxPooling2D(), layers.Dense(5), layers.Reshape((1, 1, 5))
    ),
}


def images(num=3):
    return np.random.default_rng(1).integers(0, 256, (num, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_standard_form_is_the_same_function_and_can_be_planned(name, randomize):
    model = randomize(MODELS[name]())
    before = [w.copy() for w in model.get_weights()]
    form = standard_form(model, SHAPE, None, RAW).model
    expected = model.predict_on_batch(images())
    np.testing.assert_allclose(form.predict_on_batch(images()), expected, atol=2e-5 * np.abs(expected).max())
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    make_plan(form, QuantizationSpec())
    assert all(
        isinstance(layer, tf_keras.layers.Layer) and not isinstance(layer, tf_keras.Model) for layer in form.layers
    )


@pytest.mark.parametrize(
    "size, window, strides, pads",
    [
        ((8, 8), 2, 2, False),
        ((8, 6), (4, 3), (4, 3), False),
        ((8, 8), 2, 3, False),  # ends of the map that no window reads are read by none without padding either
        ((9, 8), 2, 2, True),
        ((8, 9), 2, 2, True),
        ((8, 8), 3, 2, True),
        ((8, 8), 1, 1, False),
        ((7, 7), 1, 2, False),
        ((4, 4), 8, 8, True),
    ],
)
def test_average_over_padding_stays_and_one_that_has_none_is_valid(size, window, strides, pads):
    """Keras' own shape of "valid", and its numbers, say whether the two are one."""
    pixels = tf_keras.Input((*size, 3))
    pool = layers.AveragePooling2D(window, strides, "same", name="pool")
    model = tf_keras.Model(pixels, layers.Dense(5)(layers.Flatten()(pool(layers.Rescaling(1 / 64)(pixels)))))
    form = standard_form(model, (*size, 3), None, RAW).model
    assert form.get_layer("pool").padding == ("same" if pads else "valid")
    assert problems(form) == []
    x = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    valid = layers.AveragePooling2D(window, strides, "valid")
    same = pool(x).numpy()
    if min(size) >= np.max(window):
        equal = same.shape == valid(x).shape and np.allclose(same, valid(x), atol=1e-6)
        assert equal == (not pads)


@pytest.mark.parametrize(
    "groups, strides, kind",
    [(3, 1, "DepthwiseConv2D"), (3, 2, "DepthwiseConv2D"), (3, (1, 2), "Conv2D"), (1, 1, "Conv2D")],
)
def test_a_group_for_each_channel_is_a_depthwise_convolution_of_that_name(groups, strides, kind):
    """But for strides that differ, which TensorFlow's depthwise kernels do not take."""
    conv = layers.Conv2D(6, 3, strides, groups=groups, trainable=False, name="conv")
    layer = standard_form(functional(conv), SHAPE, None, RAW).model.get_layer("conv")
    assert type(layer).__name__ == kind and not layer.trainable
    if kind == "DepthwiseConv2D":
        kernel, bias = conv.get_weights()
        np.testing.assert_array_equal(layer.get_weights()[0][:, :, 2, 1], kernel[:, :, 0, 5])
        np.testing.assert_array_equal(layer.get_weights()[1], bias)


def test_largest_of_the_map_keeps_its_name_where_it_hands_its_tensor_on():
    for keepdims, kinds in ((True, {"most": "MaxPooling2D"}), (False, {"most_map": "MaxPooling2D", "most": "Flatten"})):
        pixels = tf_keras.Input(SHAPE)
        x = layers.GlobalMaxPooling2D(keepdims=keepdims, name="most")(
            layers.Conv2D(4, 3)(layers.Rescaling(1 / 64)(pixels))
        )
        model = tf_keras.Model(pixels, layers.Dense(5)(layers.Flatten()(x)))
        form = standard_form(model, SHAPE, None, RAW).model
        assert {n: type(form.get_layer(n)).__name__ for n in kinds} == kinds
        assert form.get_layer("most_map" if not keepdims else "most").pool_size == (6, 6)


def test_layers_keep_their_names_unless_two_are_named_alike():
    names = [layer.name for layer in standard_form(nested(), SHAPE, None, RAW).model.layers]
    assert {"conv", "bn", "relu", "logits", "pool"} <= set(names)
    assert len(names) == len(set(names)) and sum(name.endswith("_conv") for name in names) == 1


def test_a_batch_norm_without_kernel_gets_one_of_ones_that_is_not_trained():
    form = standard_form(functional(lambda x: layers.BatchNormalization(name="bn")(x)), SHAPE, None, RAW).model
    scale = form.get_layer("bn_scale")
    assert isinstance(scale, layers.DepthwiseConv2D) and not scale.trainable
    np.testing.assert_array_equal(scale.get_weights()[0], np.ones((1, 1, 3, 1)))


@pytest.mark.parametrize("end", ["dense", "layer", "activation"])
def test_softmax_at_the_end_is_left_out_and_told(end):
    pixels = tf_keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 64)(pixels))
    if end == "dense":
        output = layers.Dense(5, activation="softmax", name="probabilities")(x)
    elif end == "layer":
        output = layers.Softmax(name="probabilities")(layers.Dense(5)(x))
    else:
        output = layers.Activation("softmax", name="probabilities")(layers.Dense(5)(x))
    model = tf_keras.Model(pixels, output, name="user")
    form = standard_form(model, SHAPE, None, RAW)
    notes = form.notes
    form = form.model
    logits = form.predict_on_batch(images())
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(odds, model.predict_on_batch(images()), atol=1e-5)
    assert [note for note in notes if "probabilities" in note and "softmax" in note]


def test_what_becomes_of_layers_for_training_alone_is_told():
    def body(x):
        x = layers.RandomFlip(name="flip")(layers.RandomRotation(0.1, name="turn")(x))
        x = layers.SpatialDropout2D(0.1, name="drop")(layers.Conv2D(4, 3)(x))
        x = layers.RandomTranslation(0.1, 0.1, name="move")(layers.RandomContrast(0.1, name="contrast")(x))
        return layers.RandomZoom(0.1, name="idle")(layers.Dropout(0.1, name="kept")(x), training=False)

    form = standard_form(functional(body), SHAPE, None, RAW)
    assert [note for note in form.notes if "used neither" in note] == [
        "note: the student's augmentation layers are used neither in training nor in the file: contrast "
        "(RandomContrast), move (RandomTranslation); to augment the training pictures, give --horizontal_flip, "
        "--crop_padding or --augment=package.module:function",
        "note: the student's layers for training alone are used neither in training nor in the file: drop "
        "(SpatialDropout2D); of such layers only Dropout is used in training",
    ]
    assert [layer.name for layer, _ in form.reading.augmenting] == ["turn", "flip"]


def test_normalization_for_each_channel_moves_into_the_first_kernel(randomize):
    def body(x):
        x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.05, 0.06])(layers.Rescaling(1 / 255)(x))
        return layers.Conv2D(4, 3, name="conv")(x)

    model = randomize(functional(body, front=False))
    form = standard_form(model, SHAPE, None, RAW)
    notes = form.notes
    form = form.model
    expected = model.predict_on_batch(images())
    np.testing.assert_allclose(form.predict_on_batch(images()), expected, atol=1e-4 * np.abs(expected).max())
    assert "first kernel is adapted" in notes[0]
    assert float(form.get_layer("normalization").offset) == pytest.approx(-128 * form.get_layer("normalization").scale)


def test_model_without_normalization_reads_what_it_was_trained_under(randomize):
    model = randomize(functional(lambda x: layers.Conv2D(4, 3, name="conv")(x), front=False))
    trained, own = PixelNormalization((127.5,), (127.5,)), PixelNormalization((128.0,), (64.0,))
    form = standard_form(model, SHAPE, trained, own).model
    expected = model.predict_on_batch((images() - 127.5) / 127.5)
    np.testing.assert_allclose(form.predict_on_batch(images()), expected, atol=1e-4 * np.abs(expected).max())
    assert float(form.get_layer("normalization").scale) == pytest.approx(1 / 64)


def test_model_of_unknown_normalization_is_refused_by_the_flag():
    with pytest.raises(ExperimentError, match="--student_weights_mean"):
        standard_form(functional(lambda x: x, front=False), SHAPE, None, RAW)


class Custom(layers.Layer):
    def call(self, x):
        return x


UNSUPPORTED = {
    "Lambda": (lambda: layers.Lambda(lambda x: x, name="bad"), "write it with Keras layers"),
    "ELU": (lambda: layers.ELU(name="bad"), "use ReLU"),
    "LayerNormalization": (lambda: layers.LayerNormalization(name="bad"), "use BatchNormalization"),
    "RandomCrop": (lambda: layers.RandomCrop(4, 4, name="bad"), "--horizontal_flip"),
    "Custom": (lambda: Custom(name="bad"), "custom layer Custom"),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 3, name="bad"), "use UpSampling (nearest) and"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_layer_is_named_with_its_remedy(kind):
    make, remedy = UNSUPPORTED[kind]
    model = functional(make())
    assert list(unsupported(model)) == ["bad"]
    with pytest.raises(ExperimentError) as error:
        standard_form(model, SHAPE, None, RAW)
    assert "layer bad" in str(error.value) and kind in str(error.value) and remedy in str(error.value)


def test_recurrent_layer_is_refused():
    pixels = tf_keras.Input(SHAPE)
    x = layers.LSTM(4, name="memory")(layers.Reshape((64, 3))(pixels))
    with pytest.raises(ExperimentError, match="layer memory is an LSTM; use convolutions"):
        standard_form(tf_keras.Model(pixels, layers.Dense(5)(x)), SHAPE, None, RAW)


def test_layer_with_weights_that_is_used_twice_is_refused():
    def body(x):
        conv = layers.Conv2D(3, 3, padding="same", name="shared")
        return conv(conv(x))

    with pytest.raises(ExperimentError, match="layer shared is used several times"):
        standard_form(functional(body), SHAPE, None, RAW)


def test_layer_without_weights_may_be_used_twice():
    def body(x):
        relu = layers.ReLU(name="relu")
        return relu(layers.Conv2D(4, 3)(relu(layers.Conv2D(4, 3)(x))))

    form = standard_form(functional(body), SHAPE, None, RAW).model
    assert problems(form) == []
    assert sum(isinstance(layer, layers.ReLU) for layer in form.layers) == 2


def test_leaves_are_those_of_inner_models_too():
    assert {layer.name for layer in leaves(nested())} >= {"scaled", "bn", "relu", "conv", "pool", "logits"}


def _gated(gate):
    """A body that multiplies the output of a convolution by what `gate` makes of it."""

    def body(x):
        x = layers.Conv2D(4, 3, name="conv")(x)
        return layers.Multiply(name="swish")([x, gate(x)])

    return body


# How people write relu6(x + 3) / 6 and its like -> slope, offset and end of the one ReLU that it becomes.
HARD_SIGMOIDS = {
    "tf_keras.applications": (lambda x: layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0), 1 / 6, 0.5, 1.0),
    "tf.nn.relu6, divided": (lambda x: tf.nn.relu6(x + 3) / 6, 1 / 6, 0.5, 1.0),
    "Rescaling": (
        lambda x: layers.Rescaling(1 / 6)(layers.ReLU(6.0)(layers.Rescaling(1.0, 3.0)(x))),
        1 / 6,
        0.5,
        1.0,
    ),
    "tf_keras' own": (layers.Activation("hard_sigmoid"), 0.2, 0.5, 1.0),
    "without an end": (lambda x: tf.nn.relu(x + 1) * 3.0, 3.0, 3.0, None),
}


@pytest.mark.parametrize("name", HARD_SIGMOIDS)
def test_a_factor_behind_a_relu_moves_before_it(name, randomize):
    gate, scale, offset, end = HARD_SIGMOIDS[name]
    model = randomize(functional(_gated(gate)))
    form = standard_form(model, SHAPE, None, RAW).model
    expected = model.predict_on_batch(images())
    np.testing.assert_allclose(form.predict_on_batch(images()), expected, atol=2e-5 * np.abs(expected).max())
    make_plan(form, QuantizationSpec())
    (scaled,) = [layer for layer in form.layers if isinstance(layer, layers.DepthwiseConv2D)]
    (relu,) = [layer for layer in form.layers if isinstance(layer, layers.ReLU)]
    np.testing.assert_allclose(scaled.get_weights()[0].ravel(), scale, rtol=1e-6)
    np.testing.assert_allclose(scaled.get_weights()[1], offset, rtol=1e-6)
    assert relu.max_value is None if end is None else relu.max_value == pytest.approx(end)


def test_a_factor_on_a_product_moves_into_the_relu_of_one_of_both(randomize):
    def body(x):
        x = layers.Conv2D(4, 3)(x)
        return x * tf.nn.relu6(x + 3) / 6

    model = randomize(functional(body))
    form = standard_form(model, SHAPE, None, RAW).model
    expected = model.predict_on_batch(images())
    np.testing.assert_allclose(form.predict_on_batch(images()), expected, atol=2e-5 * np.abs(expected).max())
    assert [type(layer).__name__ for layer in form.layers][3:6] == ["DepthwiseConv2D", "ReLU", "Multiply"]


@pytest.mark.parametrize(
    "body",
    [
        lambda x: layers.Conv2D(4, 3, activation="relu")(x) * 0.5,  # its kernel may be read elsewhere
        lambda x: tf.nn.relu6(layers.Conv2D(4, 3)(x) + 3.0) * -1.0,
        lambda x: tf.nn.relu6(layers.Conv2D(3, 3)(x) + 3.0) * np.array([1.0, 2.0, 3.0], np.float32),
        lambda x: tf.nn.relu6(layers.Conv2D(3, 3)(x) + np.array([1.0, 2.0, 3.0], np.float32)) * 2.0,
        lambda x: tf.nn.relu6(layers.Conv2D(3, 3)(x) + 3.0) + 1.0,
    ],
)
def test_other_factors_stay_where_they_are(body, randomize):
    model = randomize(functional(body))
    form = standard_form(model, SHAPE, None, RAW).model
    expected = model.predict_on_batch(images())
    np.testing.assert_allclose(form.predict_on_batch(images()), expected, atol=2e-5 * np.abs(expected).max())
    make_plan(form, QuantizationSpec())
    assert isinstance(form.layers[-3], layers.DepthwiseConv2D)


@pytest.mark.parametrize("end, ends_by_grid", [(1.0, True), (6.0, False), (7.5, True)])
@pytest.mark.parametrize("place", ["convolution", "batch norm", "add", "pooling", "activation", "twice"])
def test_a_relu_that_ends_elsewhere_than_at_6_has_a_grid_that_ends_there(place, end, ends_by_grid):
    relu = layers.ReLU(end, name="clip")

    def body(x):
        x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
        if place == "activation":
            return layers.Conv2D(4, 3, activation=layers.ReLU(end), name="last")(x)
        rows = {"batch norm": layers.BatchNormalization(), "pooling": layers.MaxPooling2D(), "twice": relu}
        x = layers.Add()([x, x]) if place == "add" else rows[place](x) if place in rows else x
        return (layers.ReLU(2 * end, name="clip_again") if place == "twice" else relu)(x)

    form = standard_form(functional(body), SHAPE, None, RAW).model
    plan = make_plan(form, QuantizationSpec())
    clips = [layer.name for layer in form.layers if isinstance(layer, layers.ReLU | layers.Activation)]
    if ends_by_grid:
        assert clips[0] == ("last_relu" if place == "activation" else "clip")
        assert clips[0] in plan.clipped_by_grid and plan.output_grids[clips[0]].qmin == 0
    elif place == "convolution":
        assert not clips or clips[0] not in plan.clipped_by_grid  # the operator has a RELU6


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_relu_of_nothing_is_refused(value):
    relu = layers.ReLU(name="bad")
    relu.max_value = np.float32(value)
    assert "applies relu(max_value" in unsupported(functional(relu))["bad"]


def test_pixels_between_pixels_are_refused():
    form = standard_form(functional(layers.UpSampling2D(interpolation="bilinear", name="bad")), SHAPE, None, RAW).model
    assert problems(form) == ["layer bad has interpolation bilinear; use nearest, which moves integers as they are"]


@pytest.mark.slow
@pytest.mark.parametrize("minimalistic", [False, True])
def test_mobilenet_v3_has_one_operator_for_each_hard_sigmoid(minimalistic):
    shape = (32, 32, 3)
    model = tf_keras.applications.MobileNetV3Small(
        shape, minimalistic=minimalistic, weights=None, classes=5, classifier_activation=None
    )
    form = standard_form(model, shape, None, RAW).model
    x = np.random.default_rng(1).integers(0, 256, (2, *shape)).astype(np.float32)
    expected = model.predict_on_batch(x)
    make_plan(form, QuantizationSpec())
    ends = [
        [layer.max_value for layer in network.layers if isinstance(layer, layers.ReLU) and layer.max_value]
        for network in (model, form)
    ]
    assert ends == [[6.0] * len(ends[0]), [1.0] * len(ends[0])] and bool(ends[0]) != minimalistic
    assert not [layer for layer in form.layers[2:] if isinstance(layer, layers.Rescaling)]
    np.testing.assert_allclose(form.predict_on_batch(x), expected, atol=0.05 * np.abs(expected).max())  # borders differ
