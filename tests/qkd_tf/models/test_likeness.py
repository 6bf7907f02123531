"""The proof at the door: what is equal passes, what is broken is refused by its layer, borders are counted."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers, mixed_precision

from qkd_tf import networks
from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization
from qkd_tf.models import likeness, normalization, reading
from qkd_tf.quantization import standard_form, student_reading

SHAPE = (8, 8, 3)
SPEC = NetworkSpec("in_memory:trained:user", PixelNormalization((128.0,), (64.0,)))
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
ROLES = {"student": networks.build_student, "teacher": networks.build_teacher}


def pictures(num=12):
    return np.random.default_rng(0).integers(0, 256, (num, *SHAPE)).astype(np.uint8)


def imagenet():
    return layers.Rescaling((1 / STD).tolist(), (-MEAN / STD).tolist())


def user(*body, front=None, classes=5, activation=None):
    pixels = x = tf_keras.Input(SHAPE, name="pixels")
    for layer in (front or layers.Rescaling(1 / 64, -2.0), *body):
        x = layer(x)
    x = x if len(x.shape) == 2 else layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(pixels, layers.Dense(classes, activation=activation, name="logits")(x), name="user")


def subject_of(role, model, **spec):
    return ROLES[role](dataclasses.replace(SPEC, **spec), SHAPE, 5, model).subject


def refusal(subject, images=None):
    with pytest.raises(ExperimentError) as caught:
        likeness.prove(subject, pictures() if images is None else images)
    message = str(caught.value)
    assert message.startswith(f"the {subject.role} user would train as a different network: on ")
    assert "\n" not in message
    return message


def body():
    return (
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.Activation("swish", name="swish"),
        layers.SeparableConv2D(6, 3, activation="relu", name="separable"),
    )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("activation, head", [(None, "logits"), ("softmax", "softmax"), ("sigmoid", "sigmoid")])
def test_equal_networks_are_proven_and_the_row_says_of_what(role, activation, head, randomize):
    subject = subject_of(role, randomize(user(*body(), activation=activation)))
    row = likeness.prove(subject, pictures())
    assert row.keys() == {"num_images", "difference", "tolerance", "head"}
    assert (row["num_images"], row["tolerance"], row["head"]) == (12, 1e-3, head)
    assert row["difference"] < 1e-5
    line = likeness.line(subject, row)
    assert line.startswith(f"the {role} computes what user computes: on 12 pictures outputs differ by ")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "end",
    [
        lambda x: 1.0 - layers.Dense(1, activation="sigmoid", name="last")(x),
        lambda x: layers.Dense(1, activation="hard_sigmoid", name="last")(x),
        lambda x: layers.Average()([layers.Dense(1, activation="sigmoid", name=n)(x) for n in ("last", "other")]),
    ],
    ids=["1 - sigmoid", "hard_sigmoid", "average"],
)
def test_one_probability_that_is_no_sigmoid_is_not_taken_as_a_logit(role, end, randomize):
    """Cut at 0, where a probability never is, nearly all would be of class 1."""
    body_of = user(*body())
    x = body_of.get_layer("pool").output
    build = {"student": networks.build_student, "teacher": networks.build_teacher}[role]
    subject = build(SPEC, SHAPE, 2, randomize(tf_keras.Model(body_of.input, end(x), name="user"))).subject
    with pytest.raises(ExperimentError, match="user has one output, which layer last.* keeps within 0 and 1: a proba"):
        likeness.prove(subject, pictures())


def test_difference_is_the_largest_as_a_share_of_the_largest_logit(randomize):
    subject = subject_of("student", randomize(user(*body())))
    dense = subject.ours.get_layer("logits")
    expected = subject.outputs(pictures())
    kernel, bias = dense.get_weights()
    gap = 5e-4 * np.abs(expected).max()  # within the tolerance
    dense.set_weights([kernel, bias + [0, gap, 0, 0, 0]])
    assert likeness.prove(subject, pictures())["difference"] == pytest.approx(5e-4, rel=1e-2)
    dense.set_weights([kernel, bias + [0, 4 * gap, 0, 0, 0]])
    assert "logits differ by 0.002, rounding explains 0.001; " in refusal(subject)


def test_difference_of_probabilities_is_as_it_is(randomize):
    subject = subject_of("student", randomize(user(*body(), activation="softmax")))
    dense = subject.ours.get_layer("logits")
    kernel, bias = dense.get_weights()
    dense.set_weights([kernel, bias + [0, 0.1, 0, 0, 0]])
    logits = subject.ours(pictures().astype(np.float32)).numpy()
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gap = np.abs(odds - subject.outputs(pictures())).max()
    assert f"probabilities differ by {gap:.3g}, " in refusal(subject)


# What is broken -> (how, the layer that has to be named).
def average_for_largest(self, call):
    return self.add(layers.GlobalAveragePooling2D(name=call.name), call.inputs)


def relu_for_swish(self, function, name, inputs):
    return self.add(layers.Activation("relu" if function == "swish" else function, name=name), inputs)


def test_broken_row_of_the_first_reading_is_refused_by_its_layer(monkeypatch, randomize):
    monkeypatch.setitem(student_reading.StudentReading.rewrites, layers.GlobalMaxPooling2D, average_for_largest)
    model = randomize(user(*body(), layers.GlobalMaxPooling2D(name="largest"), layers.Dense(6, name="hidden")))
    assert refusal(subject_of("student", model)).endswith(
        "they differ from layer largest on; write that layer in another way"
    )


@pytest.mark.parametrize("role", ROLES)
def test_broken_activation_of_the_first_reading_is_refused_by_its_layer(role, monkeypatch, randomize):
    kind = student_reading.StudentReading if role == "student" else reading.Reading
    monkeypatch.setattr(kind, "activation", relu_for_swish)
    model = randomize(user(layers.Conv2D(4, 3, name="conv"), lambda x: tf.nn.silu(x), *body()[3:]))
    if role == "teacher":  # whose operators become layers as they are
        monkeypatch.setattr(reading, "as_layer", lambda node: layers.ReLU() if "silu" in node.layer.name else None)
    assert "they differ from layer tf.nn.silu" in refusal(subject_of(role, model))


@pytest.mark.parametrize("role", ROLES)
def test_layer_of_a_nested_model_is_named(role, monkeypatch, randomize):
    class Doubled(layers.Layer):
        """Copied by a config that has lost what it does."""

        def __init__(self, factor=1.0, **options):
            super().__init__(**options)
            self.factor = factor

        def call(self, x):
            return self.factor * x

        def get_config(self):
            return {"name": self.name}

    part = Doubled(2.0, name="doubled")
    if role == "student":  # in which there are no layers of a user's own
        part = layers.GlobalMaxPooling2D(keepdims=True, name="doubled")
        monkeypatch.setitem(
            student_reading.StudentReading.rewrites,
            layers.GlobalMaxPooling2D,
            lambda self, call: self.add(layers.GlobalAveragePooling2D(keepdims=True, name=call.name), call.inputs),
        )
    innermost = tf_keras.Sequential([layers.Input((6, 6, 4)), part, layers.Conv2D(3, 1)], name="innermost")
    inner = tf_keras.Sequential([layers.Input((6, 6, 4)), innermost], name="inner")
    model = randomize(user(layers.Conv2D(4, 3, name="conv"), inner, layers.Conv2D(6, 1, name="behind")))
    assert "they differ from layer doubled on; " in refusal(subject_of(role, model))


def taking_up_nothing(kernel, step):
    return kernel, np.zeros(kernel.shape[-1])


@pytest.mark.parametrize("nested", [False, True])
def test_kernel_that_does_not_take_up_the_normalization_is_refused_by_its_name(nested, monkeypatch, randomize):
    """The second reading, which only students have."""
    monkeypatch.setitem(normalization.TAKING_UP, layers.Conv2D, taking_up_nothing)
    stem = layers.Conv2D(4, 3, name="stem")
    if nested:
        stem = tf_keras.Sequential([layers.Input(SHAPE), stem], name="inner")
    model = randomize(user(stem, layers.Conv2D(4, 1, name="second"), front=imagenet()))
    assert "they differ from layer stem on; " in refusal(subject_of("student", model))


def test_broken_batch_norm_of_the_second_reading_is_refused_by_its_name(monkeypatch, randomize):
    original = standard_form._Shaped._batch_norm_alone
    monkeypatch.setattr(standard_form._Shaped, "_batch_norm_alone", lambda self, call, x: original(self, call, 2.0 * x))
    model = randomize(user(layers.Conv2D(4, 3, activation="relu", name="conv"), layers.BatchNormalization(name="bn")))
    assert "they differ from layer bn on; " in refusal(subject_of("student", model))


def test_broken_sum_of_the_second_reading_is_refused_by_its_name(monkeypatch, randomize):
    def body(x):
        branches = [layers.Conv2D(4, 3, name=f"branch{n}")(x) for n in range(3)]
        return layers.Add(name="sum")(branches)

    original = standard_form._Shaped.call

    def without_the_last(self, call):
        if isinstance(call.layer, layers.Add):
            call = dataclasses.replace(call, inputs=[call.inputs[0], call.inputs[1], call.inputs[1]])
        return original(self, call)

    monkeypatch.setattr(standard_form._Shaped, "call", without_the_last)
    assert "they differ from layer sum on; " in refusal(subject_of("student", randomize(user(body))))


def test_layers_that_are_mended_by_those_behind_are_not_blamed(monkeypatch, randomize):
    """A twice as large kernel before a BatchNormalization that knows of it is no fault; what is behind them is."""
    monkeypatch.setitem(student_reading.StudentReading.rewrites, layers.GlobalMaxPooling2D, average_for_largest)
    model = randomize(
        user(*body(), layers.GlobalMaxPooling2D(name="largest"), layers.Dense(6, name="hidden"), front=imagenet())
    )
    assert "they differ from layer largest on; " in refusal(subject_of("student", model))


# Borders


def network_with(stem):
    """A linear network behind a stem, so that what a border changes can be added up."""
    return user(*stem(), front=imagenet())


STEMS = {
    "same": lambda: [layers.Conv2D(4, 3, padding="same", name="stem")],
    "same, strides": lambda: [layers.Conv2D(4, 3, 2, padding="same", name="stem")],
    "same, strides, odd": lambda: [layers.Conv2D(4, 5, 3, padding="same", name="stem")],
    "same, dilated": lambda: [layers.Conv2D(4, 3, padding="same", dilation_rate=2, name="stem")],
    "ZeroPadding2D": lambda: [layers.ZeroPadding2D(((0, 1), (2, 1))), layers.Conv2D(4, 3, 2, name="stem")],
    "both": lambda: [layers.ZeroPadding2D(1), layers.Conv2D(4, 3, padding="same", name="stem")],
    "groups": lambda: [layers.Conv2D(6, 3, padding="same", groups=3, name="stem")],
}


def padded(stem, size):
    """((top, bottom), (left, right)) of zeros around a map of size x size."""
    rows = [np.zeros(2, int), np.zeros(2, int)]
    for layer in stem:
        if isinstance(layer, layers.ZeroPadding2D):
            rows = [np.array(axis) + more for axis, more in zip(rows, layer.padding, strict=True)]
        elif layer.padding == "same":
            for axis in (0, 1):
                have = size + rows[axis].sum()
                window = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
                total = max((-(-have // layer.strides[axis]) - 1) * layer.strides[axis] + window - have, 0)
                rows[axis] = rows[axis] + [total // 2, total - total // 2]
    return rows


def change_at_borders(model, stem, zero_pixel):
    """[K]: what logits gain where padding reads as one pixel in all channels instead of as the mean of each.

    Sums the taps of the stem's kernel that lie on padding, by loops over the definition.
    """
    conv = next(layer for layer in model.layers if layer.name == "stem")
    kernel, _ = conv.get_weights()
    kernel = np.asarray(kernel, np.float64)
    (top, bottom), (left, right) = padded(stem, SHAPE[0])
    read = np.ones((SHAPE[0] + top + bottom, SHAPE[1] + left + right, 3)) * (zero_pixel - MEAN) / STD
    read[top : top + SHAPE[0], left : left + SHAPE[1]] = 0.0
    (rows, columns, per_group, filters), rate, stride = kernel.shape, conv.dilation_rate[0], conv.strides[0]
    heights = range(0, read.shape[0] - (rows - 1) * rate, stride)
    widths = range(0, read.shape[1] - (columns - 1) * rate, stride)
    mean = np.zeros(filters)
    for f in range(filters):
        first = f // (filters // conv.groups) * per_group
        for row in heights:
            for column in widths:
                patch = read[row : row + rows * rate : rate, column : column + columns * rate : rate]
                patch = patch[:rows, :columns, first : first + per_group]
                mean[f] += np.sum(patch * kernel[..., f]) / (len(heights) * len(widths))
    return mean @ model.get_layer("logits").get_weights()[0]


@pytest.mark.parametrize("name", STEMS)
def test_borders_are_proven_exactly_and_what_a_file_makes_of_them_is_counted(name, randomize):
    """The difference is the same of every picture, for behind the stem everything is linear."""
    stem = STEMS[name]()
    model = randomize(network_with(lambda: stem))
    subject = subject_of("student", model)
    row = likeness.prove(subject, pictures())
    assert row["difference"] < 1e-5
    zero_pixel = -float(subject.trains.get_layer("normalization").offset) / float(
        subject.trains.get_layer("normalization").scale
    )
    assert zero_pixel == pytest.approx(np.round(MEAN.mean()))
    logits = model(pictures().astype(np.float32)).numpy()
    change = change_at_borders(model, stem, zero_pixel)
    trained = subject.trains(pictures().astype(np.float32)).numpy()
    np.testing.assert_allclose(
        trained - logits, np.broadcast_to(change, logits.shape), atol=1e-4 * np.abs(logits).max()
    )
    assert row["border_difference"] == pytest.approx(np.abs(change).max() / np.abs(logits).max(), rel=1e-3)
    assert row["border_difference"] > 0
    same = np.mean(trained.argmax(-1) == logits.argmax(-1))
    assert row["border_top1_agreement"] == 100 * same
    assert (
        f"changes logits by at most {100 * row['border_difference']:.1f} %; the class is the same on"
        in likeness.line(subject, row)
    )


@pytest.mark.parametrize(
    "stem, front",
    [
        (STEMS["same"], layers.Rescaling(1 / 64, -2.0)),  # a whole zero pixel for all channels
        (STEMS["ZeroPadding2D"], layers.Rescaling(1 / 255)),
        (lambda: [layers.Conv2D(4, 3, name="stem")], imagenet()),  # nothing is padded
        (lambda: [layers.Conv2D(4, 1, padding="same", name="stem")], imagenet()),
        (lambda: [layers.Conv2D(4, 2, 2, padding="same", name="stem")], imagenet()),
    ],
    ids=["whole", "zero", "valid", "one_tap", "fits"],
)
def test_where_nothing_is_read_otherwise_there_is_no_border_to_tell_of(stem, front, randomize):
    row = likeness.prove(subject_of("student", randomize(user(*stem(), front=front))), pictures())
    assert row["difference"] < 1e-5 and "border_difference" not in row


def test_means_that_are_one_pixel_but_not_a_whole_one_have_a_border(randomize):
    """(pixel / 127.5) - 1, as MobileNetV2 and many others read pixels: 127.5 is no pixel."""
    model = randomize(user(*STEMS["same"](), front=layers.Rescaling(1 / 127.5, -1.0)))
    row = likeness.prove(subject_of("student", model), pictures())
    assert row["difference"] < 1e-5 and 0 < row["border_difference"] < 0.02


def test_borders_of_a_depthwise_stem_and_of_several_readers_are_exact(randomize):
    """At 6352718 such a file passed with logits that were off by 40 to 366 %."""

    def body(x):
        one = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
        other = layers.BatchNormalization(name="bn")(
            layers.Conv2D(4, 5, padding="same", use_bias=False, name="conv")(x)
        )
        return layers.Concatenate()([one, other])

    row = likeness.prove(subject_of("student", randomize(user(body, front=imagenet()))), pictures())
    assert row["difference"] < 1e-5 and row["border_difference"] > 0


# Precision and what is no number


@pytest.mark.parametrize(
    "policy, tolerance", [("float32", 1e-3), ("mixed_float16", 0.02), ("mixed_bfloat16", 0.15), ("float64", 1e-3)]
)
@pytest.mark.parametrize("role", ROLES)
def test_tolerance_is_that_of_the_precision_that_the_users_model_computes_in(role, policy, tolerance, randomize):
    before = mixed_precision.global_policy()
    mixed_precision.set_global_policy(policy)
    try:
        model = randomize(user(layers.Conv2D(4, 3, name="conv"), layers.ReLU()))
    finally:
        mixed_precision.set_global_policy(before)
    row = likeness.prove(subject_of(role, model), pictures())
    assert row["tolerance"] == tolerance and row["difference"] < tolerance
    assert (row["difference"] > 1e-5) == policy.startswith("mixed")


@pytest.mark.parametrize("inside, tolerance", [("mixed_float16", 0.02), ("mixed_bfloat16", 0.15)])
def test_coarsest_precision_of_any_layer_decides(inside, tolerance, randomize):
    finer = mixed_precision.Policy("mixed_float16")
    model = randomize(user(layers.Conv2D(4, 3, dtype=mixed_precision.Policy(inside)), layers.Conv2D(4, 3, dtype=finer)))
    assert likeness.prove(subject_of("student", model), pictures())["tolerance"] == tolerance


class Poison(layers.Layer):
    """NaN where a picture is dark; a copy by its config does nothing, or it alone does."""

    def __init__(self, poisons=False, copies=False, **options):
        super().__init__(**options)
        self.poisons, self.copies = poisons, copies

    def get_config(self):
        return {"name": self.name, "poisons": self.copies, "copies": self.copies}

    def call(self, x):
        dark = tf.reduce_mean(x, [1, 2, 3], keepdims=True) < -1.0
        return tf.where(dark & self.poisons, float("nan"), x)


@pytest.mark.parametrize(
    "poisons, copies", [(True, True), (True, False), (False, True)], ids=["both", "theirs", "ours"]
)
def test_outputs_that_are_not_finite_are_refused_on_whatever_side_they_are(poisons, copies, randomize):
    images = pictures()
    images[3] //= 8
    subject = subject_of("teacher", randomize(user(Poison(poisons, copies, name="poison"), layers.Conv2D(4, 3))))
    assert np.isnan(subject.outputs(images)).any() == poisons
    with pytest.raises(ExperimentError) as caught:
        likeness.prove(subject, images)
    message = str(caught.value)
    assert message.startswith("the teacher user gives outputs that are not finite; ")
    assert ("layer poison is the first to do so; " in message) == poisons
    assert likeness.prove(subject, np.delete(images, 3, axis=0))["difference"] < 1e-5


def test_all_zero_logits_are_equal_to_themselves():
    model = user(layers.Conv2D(4, 3, kernel_initializer="zeros"))
    assert likeness.prove(subject_of("student", model), pictures())["difference"] == 0


def test_pixels_reach_the_users_model_as_its_user_feeds_them(randomize):
    """Of integers where its input is of integers; under the normalisation that was told where it has none."""
    pixels = tf_keras.Input(SHAPE, dtype="uint8")
    x = layers.Flatten()(tf.cast(pixels, tf.float32) / 255.0)
    model = randomize(tf_keras.Model(pixels, layers.Dense(5)(x), name="user"))
    subject = subject_of("teacher", model)
    assert subject.fed(pictures()).dtype == tf.uint8
    assert likeness.prove(subject, pictures())["difference"] < 1e-5

    told = PixelNormalization(tuple(MEAN), tuple(STD))
    pixels = tf_keras.Input(SHAPE)
    model = randomize(tf_keras.Model(pixels, layers.Dense(5)(layers.Flatten()(pixels)), name="user"))
    subject = subject_of("student", model, weights_normalization=told)
    np.testing.assert_allclose(subject.fed(pictures()), (pictures() - MEAN) / STD, rtol=1e-4, atol=1e-5)
    assert likeness.prove(subject, pictures())["difference"] < 1e-5


def test_batches_of_the_proof_cover_every_picture(randomize):
    subject = subject_of("student", randomize(user(*body())))
    np.testing.assert_allclose(
        subject.outputs(pictures(11)), subject.given(pictures(11).astype(np.float32)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "changes, explained",
    [
        ({}, True),
        ({"moved": [0.0, 0.0, 1e-4, 0.05]}, False),  # layer c differs by more than ten times what a nudge changes
        ({"again": [0.0, 0.0, 0.0, 0.02]}, False),  # the last layer is another each time
        ({"differ": [0.0, 0.2, 0.0, 0.3]}, True),  # a layer that is part of another one until they agree again
        ({"differ": [0.2, 0.2, 0.2, 0.3]}, False),  # nothing agrees from the first layer on
    ],
)
def test_a_difference_is_explained_by_rounding_where_a_nudge_makes_a_tenth_of_it(changes, explained):
    shifts = {"differ": [0.0, 1e-4, 0.03, 0.3], "again": [0.0] * 4, "moved": [1e-7, 1e-7, 4e-3, 0.05], **changes}
    own = [np.linspace(-1, 1, 5)] * 4
    other = {what: [kept + shift for kept, shift in zip(own, by, strict=True)] for what, by in shifts.items()}
    pairs = [
        (name, tf.constant(got), tf.constant(kept))
        for name, got, kept in zip("abcd", other["differ"], own, strict=True)
    ]
    found = likeness._are_explained(pairs, other["again"], iter([other["moved"], own]), tolerance=1e-3)
    assert found == explained


@pytest.mark.parametrize("role", ROLES)
def test_another_function_behind_the_last_layer_that_both_have_is_no_rounding(role):
    subject = subject_of(role, user(*body()))
    other = tf_keras.Model(subject.ours.inputs, layers.Rescaling([1, 1, 1, 1, 2], name="new")(subject.ours.output))
    refusal(dataclasses.replace(subject, ours=other, trains=other))
