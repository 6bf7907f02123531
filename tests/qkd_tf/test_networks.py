"""Networks that are ready to train, and what their user is told of them."""

import dataclasses
import re
from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers, regularizers

from qkd_tf import flags, networks
from qkd_tf.experiment import (
    ExperimentError,
    NetworkSpec,
    PixelNormalization,
    QuantizationSpec,
    TargetSpec,
    require_network,
)
from qkd_tf.models import zoo
from tests.saved_flags import saved_flags

SPEC = QuantizationSpec(weight_bits=3, activation_bits=4)
PIXELS = PixelNormalization((128.0,), (64.0,))
OTHERS = PixelNormalization((100.0,), (50.0,))
IMAGENET = PixelNormalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
SHAPE = (8, 8, 3)
NEW = NetworkSpec("in_memory:untrained:user", PIXELS)
TRAINED = NetworkSpec("in_memory:trained:user", PIXELS)


def pictures(num=4):
    return np.random.default_rng(0).integers(0, 256, (num, *SHAPE)).astype(np.uint8)


def user(*before, end=None, **conv):
    """The layers `before`, a small classifier, and what makes of its logits what it gives."""
    pixels = x = tf_keras.Input(SHAPE)
    for layer in before:
        x = layer(x)
    x = layers.Conv2D(4, 3, padding="same", name="conv", **conv)(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    return tf_keras.Model(pixels, end(x) if end else x, name="user")


def predict(model, images):
    return model.predict_on_batch(np.asarray(images, np.float32))


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "mobilenet_v2_0.35_cifar"])
def test_network_of_the_zoo_is_in_standard_form_already(name):
    tf_keras.utils.set_random_seed(3)
    expected = zoo.build(NetworkSpec(name, PIXELS), (32, 32, 3), 10)
    tf_keras.utils.set_random_seed(3)
    student, notes = networks.build_student(NetworkSpec(name, PIXELS), (32, 32, 3), 10)
    assert notes == []
    assert [layer.name for layer in student.layers] == [layer.name for layer in expected.layers]
    for ours, theirs in zip(student.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_folder_of_a_saved_model_is_told_from_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "saved_model.pb").touch()
    with pytest.raises(ExperimentError, match="--student=mine is a folder; write a SavedModel as --student=./mine"):
        require_network(NetworkSpec("mine", PIXELS), "--student")


def test_unknown_name_and_missing_file_are_refused_and_builders_are_looked_at_later(tmp_path):
    with pytest.raises(ExperimentError, match="unknown --student 'resnet21'"):
        require_network(NetworkSpec("resnet21", PIXELS), "--student")
    with pytest.raises(ExperimentError, match="no model at ./saved"):
        require_network(NetworkSpec("./saved", PIXELS), "--student")
    (tmp_path / "saved_model.pb").touch()
    for name in ("mine:build", str(tmp_path), "resnet20"):
        require_network(NetworkSpec(name, PIXELS), "--student")


@pytest.mark.slow
@pytest.mark.parametrize("weights, own", [(IMAGENET, PIXELS), (PixelNormalization((10.0,), (50.0,)), PIXELS)])
def test_weights_of_the_zoo_are_taken_from_their_normalization_to_the_networks_own(tmp_path, randomize, weights, own):
    """What `weights.adapt_normalization` did to the first Conv2D: exact where no padding is read, and near it at all.

    At the borders one zero pixel for all channels stands for three means.
    """
    trained = randomize(zoo.build(NetworkSpec("resnet8", weights), (32, 32, 3), 10))
    trained.save_weights(tmp_path / "trained.h5")
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3))
    spec = NetworkSpec("resnet8", own, str(tmp_path / "trained.h5"), weights)
    student, notes = networks.build_student(spec, (32, 32, 3), 10)
    rescaling = student.get_layer("normalization")
    assert (rescaling.scale, rescaling.offset) == (1 / 64, -2.0)
    assert "the first kernel is adapted" in notes[0]

    first = next(layer.name for layer in trained.layers if isinstance(layer, layers.BatchNormalization))
    got, expected = (
        predict(tf_keras.Model(model.input, model.get_layer(first).output), images) for model in (student, trained)
    )
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=tolerance)
    assert np.abs(got - expected)[:, 0].max() > 100 * tolerance  # the padded rim is another pixel now


@pytest.mark.slow
def test_weights_whose_means_are_the_networks_own_are_exact_at_the_borders_too(tmp_path, randomize):
    weights = PixelNormalization((128.0,) * 3, (50.0, 60.0, 70.0))
    trained = randomize(zoo.build(NetworkSpec("resnet8", weights), (32, 32, 3), 10))
    trained.save_weights(tmp_path / "trained.h5")
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3))
    spec = NetworkSpec("resnet8", PIXELS, str(tmp_path / "trained.h5"), weights)
    student, notes = networks.build_student(spec, (32, 32, 3), 10)
    expected = predict(trained, images)
    np.testing.assert_allclose(predict(student, images), expected, atol=1e-5 * np.abs(expected).max())
    assert "borders" not in notes[0]


def test_saved_student_without_normalization_must_be_explained(tmp_path):
    pixels = tf_keras.Input(SHAPE)
    x = tf_keras.layers.GlobalAveragePooling2D()(tf_keras.layers.Conv2D(4, 3)(pixels))
    tf_keras.Model(pixels, tf_keras.layers.Dense(5)(x)).save(tmp_path / "saved.keras")
    name = str(tmp_path / "saved.keras")
    with pytest.raises(ExperimentError, match="--student_weights_mean"):
        networks.build_student(NetworkSpec(name, PIXELS), SHAPE, 5)
    student, _ = networks.build_student(NetworkSpec(name, PIXELS, weights_normalization=PIXELS), SHAPE, 5)
    assert student.output_shape == (None, 5)


def test_normalization_that_a_model_does_itself_makes_what_was_told_of_it_idle_and_that_is_noted():
    spec = dataclasses.replace(TRAINED, weights_normalization=OTHERS)
    for build, flag in ((networks.build_student, "student_weights"), (networks.build_teacher, "teacher_pixel")):
        given = user(layers.Rescaling(1 / 64))
        model, notes = build(spec, SHAPE, 5, given)
        assert any(f"--{flag}_mean and _std are not used" in note for note in notes)
        np.testing.assert_allclose(predict(model, pictures()), predict(given, pictures()), atol=1e-4)


# How a network may begin.
BEGINNINGS = {
    "rescaling": lambda: [layers.Rescaling(1 / 64)],
    "normalization": lambda: [layers.Normalization(mean=0.0, variance=64.0**2)],
    "augmentation": lambda: [layers.RandomFlip(), layers.RandomRotation(0.1), layers.Rescaling(1 / 64)],
    "two steps": lambda: [layers.Rescaling(1 / 8), layers.Dropout(0.1), layers.Rescaling(1 / 8)],
    "nested": lambda: [tf_keras.Sequential([layers.Input(SHAPE), layers.Rescaling(1 / 64)])],
    "operator": lambda: [lambda x: x / 64.0],
    "preprocess_input of mode torch": lambda: [tf_keras.applications.densenet.preprocess_input],
    "preprocess_input of mode tf": lambda: [tf_keras.applications.mobilenet_v2.preprocess_input],
}


@pytest.mark.parametrize("build", [networks.build_student, networks.build_teacher])
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_network_that_normalizes_reads_pixels_as_they_are_however_it_does(build, beginning, randomize):
    """At 6352718 a teacher's Rescaling was seen as the second layer alone: behind augmentation it got other pixels."""
    model = randomize(user(*BEGINNINGS[beginning]()))
    network = build(TRAINED, SHAPE, 5, model)
    expected = predict(model, pictures())
    ours = predict(network.subject.ours, pictures())  # with the user's own padding
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())
    assert network.subject.feed is None
    assert network.prove(pictures())["difference"] < 1e-5


@pytest.mark.parametrize(
    "build, flag", [(networks.build_student, "student_weights"), (networks.build_teacher, "teacher_pixel")]
)
def test_trained_network_whose_pixels_nobody_told_is_refused(build, flag):
    """At 6352718 a teacher got 128 and 64 without a word."""
    with pytest.raises(
        ExperimentError, match=f"does not normalise its pixels itself; .*--{flag}_mean and --{flag}_std"
    ):
        build(TRAINED, SHAPE, 5, user())


@pytest.mark.parametrize("build", [networks.build_student, networks.build_teacher])
def test_trained_network_reads_the_pixels_that_were_told(build, randomize):
    model = randomize(user())
    spec = NetworkSpec("in_memory:trained:user", OTHERS, weights_normalization=OTHERS)
    network = build(spec, SHAPE, 5, model)
    expected = predict(model, (pictures() - 100.0) / 50.0)
    np.testing.assert_allclose(predict(network.model, pictures()), expected, atol=1e-5 * np.abs(expected).max())
    assert network.prove(pictures())["difference"] < 1e-5


def test_new_teacher_without_normalization_gets_ours_and_that_is_noted():
    teacher, notes = networks.build_teacher(NEW, SHAPE, 5, user())
    (note,) = notes
    assert note.endswith("itself, so it gets them normalised by mean 128 and deviation 64")
    rescaling = teacher.get_layer("pixel_normalization")
    assert (rescaling.scale, rescaling.offset) == (1 / 64, -2.0)


def test_builders_student_without_normalization_is_told_what_it_reads(tmp_path, monkeypatch):
    (tmp_path / "bare_student.py").write_text(
        "import tf_keras\n"
        "from tf_keras import layers\n"
        "def build(input_shape, num_classes):\n"
        "    return tf_keras.Sequential([layers.Input(input_shape), layers.Flatten(), layers.Dense(num_classes)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _, notes = networks.build_student(NetworkSpec("bare_student:build", PIXELS), SHAPE, 5)
    (note,) = notes
    assert "so it gets them normalised by mean 128 and deviation 64" in note and "--student_weights_mean" in note


# How a teacher may give probabilities -> what makes them of logits.
PROBABILITIES = {
    "layer": lambda x: layers.Softmax()(x),
    "activation": lambda x: layers.Activation("softmax")(x),
    "cast": lambda x: layers.Activation("linear", dtype="float32")(layers.Activation("softmax")(x)),
    "nested": lambda x: tf_keras.Sequential([layers.Input((5,)), layers.Activation("softmax")])(x),
    "function": lambda x: tf.nn.softmax(x),
    "lambda": lambda x: layers.Lambda(lambda x: tf.nn.softmax(x))(x),
    "by hand": lambda x: layers.Lambda(softmax_by_hand)(x),
}


def softmax_by_hand(x):
    odds = tf.exp(x - tf.reduce_max(x, -1, keepdims=True))
    return odds / tf.reduce_sum(odds, -1, keepdims=True)


@pytest.mark.parametrize("end", PROBABILITIES)
def test_teacher_teaches_logits_whatever_made_its_probabilities(end, randomize):
    """Where they cannot be read off its layers, numbers tell: their logarithms are logits up to one number a picture.

    At 6352718 probabilities that no layer called softmax made at the very end were distilled as logits.
    """
    model = randomize(user(layers.Rescaling(1 / 255), end=PROBABILITIES[end]))
    teacher, notes = networks.build_teacher(TRAINED, SHAPE, 5, model)
    logits, expected = predict(teacher, pictures()), predict(model, pictures())
    np.testing.assert_allclose(softmax(logits), expected, atol=1e-6)
    assert np.abs(logits.sum(-1) - 1).max() > 0.1
    assert len(notes) == 1 and ("softmax at the end" in notes[0] or "their logarithms are used as logits" in notes[0])


@pytest.mark.parametrize("units", [1, 5])
def test_sigmoids_that_no_layer_tells_of_teach_as_they_are_and_that_is_noted(units, randomize):
    """Numbers alone cannot tell sigmoids from logits, so nothing is changed, and nothing is silent."""
    pixels = tf_keras.Input(SHAPE)
    x = layers.Dense(units)(layers.Flatten()(layers.Rescaling(1e-3)(pixels)))
    model = randomize(tf_keras.Model(pixels, layers.Lambda(lambda x: 1 / (1 + tf.exp(-x)))(x), name="user"))
    teacher, notes = networks.build_teacher(TRAINED, SHAPE, max(2, units), model)
    (note,) = [note for note in notes if "between 0 and 1" in note]
    assert "if they are probabilities, end the network in the logits from which they are computed" in note
    np.testing.assert_allclose(predict(teacher, pictures())[:, -units:], predict(model, pictures()), rtol=1e-5)


@pytest.mark.parametrize("end, noted", [(lambda x: 1 - layers.Activation("sigmoid")(x), True), (layers.ReLU(), False)])
def test_probabilities_of_a_student_that_no_layer_tells_of_are_noted(end, noted, randomize):
    model = randomize(user(layers.Rescaling(1 / 255), end=end))
    notes = networks.build_student(TRAINED, SHAPE, 5, model).notes
    assert (
        any("all outputs of the student user are between 0 and 1, and are used as logits" in n for n in notes) == noted
    )


def test_logits_of_a_teacher_stay_what_they_are_though_they_may_be_positive(randomize):
    model = randomize(user(layers.Rescaling(1 / 255), end=lambda x: layers.Activation("softplus")(x)))
    teacher, notes = networks.build_teacher(TRAINED, SHAPE, 5, model)
    assert notes == []
    np.testing.assert_allclose(predict(teacher, pictures()), predict(model, pictures()), rtol=1e-5)


def test_teacher_may_have_any_layers(randomize):
    model = randomize(
        user(layers.Rescaling(1 / 64), layers.LayerNormalization(), layers.Lambda(lambda x: x * 2), layers.LeakyReLU())
    )
    network = networks.build_teacher(TRAINED, SHAPE, 5, model)
    assert network.prove(pictures())["difference"] < 1e-5


@pytest.mark.parametrize("build, role", [(networks.build_student, "student"), (networks.build_teacher, "teacher")])
def test_regularizers_of_the_user_are_told_to_be_left_out(build, role):
    """At 6352718 they were dropped without a word."""
    model = user(layers.Rescaling(1 / 64), kernel_regularizer=regularizers.L2(0.1))
    network = build(NEW, SHAPE, 5, model)
    (note,) = [note for note in network.notes if "regularizers" in note]
    assert f"the {role}'s own regularizers, in conv, are not used" in note and "--weight_decay" in note


def test_many_regularizers_are_counted():
    convs = [layers.Conv2D(3, 1, name=f"c{n}", bias_regularizer="l1") for n in range(6)]
    _, notes = networks.build_student(NEW, SHAPE, 5, user(layers.Rescaling(1 / 64), *convs))
    assert "in c0, c1, c2 and 3 more layers, are not used" in notes[0]


@pytest.mark.parametrize("build, role", [(networks.build_student, "student"), (networks.build_teacher, "teacher")])
@pytest.mark.parametrize("how", ["layer", "model", "nested"])
def test_frozen_layers_stay_frozen_and_are_told(build, role, how, randomize):
    inner = tf_keras.Sequential([layers.Input(SHAPE), layers.Conv2D(3, 1, name="frozen"), layers.BatchNormalization()])
    model = randomize(user(layers.Rescaling(1 / 64), inner))
    if how == "layer":
        model.get_layer("conv").trainable = False
    else:
        (inner if how == "nested" else model).trainable = False
    expected = {"layer": 1, "nested": 2, "model": 5}[how]
    network = build(TRAINED, SHAPE, 5, model)
    (note,) = [note for note in network.notes if "frozen, trainable" in note]
    assert f"{expected} of 5 layers of the {role} user {'is' if expected == 1 else 'are'} frozen" in note
    assert ("their intervals are learned" in note) == (role == "student")
    assert len(network.model.trainable_variables) == len(model.trainable_variables)


def test_model_is_left_as_it_is(randomize):
    model = randomize(user(layers.Rescaling(1 / 64), end=layers.Softmax()))
    before = [weight.copy() for weight in model.get_weights()]
    student, teacher = (
        build(TRAINED, SHAPE, 5, model).model for build in (networks.build_student, networks.build_teacher)
    )
    for network in (student, teacher):
        for variable in network.trainable_variables:
            variable.assign_add(np.ones_like(variable))
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_teacher_of_the_zoo_trains_as_it_is_and_is_proven_by_nothing():
    network = networks.build_teacher(NetworkSpec("resnet8", PIXELS), (32, 32, 3), 10)
    assert network.prove(np.zeros((2, 32, 32, 3), np.uint8)) is None and network.notes == []


def test_what_was_compared_becomes_a_note(randomize):
    network = networks.build_student(TRAINED, SHAPE, 5, randomize(user(layers.Rescaling(1 / 64))))
    network.prove(pictures())
    assert "the student computes what user computes: on 4 pictures outputs differ by" in network.notes[-1]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_teacher_of_one_unit_is_for_two_classes_alone(num_classes, randomize):
    pixels = tf_keras.Input(SHAPE)
    x = layers.Dense(1, activation="sigmoid")(layers.Flatten()(layers.Rescaling(1 / 255)(pixels)))
    model = randomize(tf_keras.Model(pixels, x))
    if num_classes == 5:
        with pytest.raises(ExperimentError, match="has 1 output, which tells 2 classes apart, the data set has 5"):
            networks.build_teacher(TRAINED, SHAPE, num_classes, model)
        return
    teacher, _ = networks.build_teacher(TRAINED, SHAPE, num_classes, model)
    logits = predict(teacher, pictures())
    np.testing.assert_allclose(softmax(logits)[:, 1:], predict(model, pictures()), atol=1e-5)


@pytest.mark.parametrize("build", [networks.build_student, networks.build_teacher])
def test_integer_input_cannot_hold_normalized_pixels(build, randomize):
    """Keras would cut them to whole numbers; raw pixels are such."""
    pixels = tf_keras.Input(SHAPE, dtype="uint8")
    model = tf_keras.Model(pixels, layers.Dense(5)(layers.Flatten()(tf.cast(pixels, tf.float32))), name="user")
    told = NetworkSpec("in_memory:trained:user", OTHERS, weights_normalization=OTHERS)
    with pytest.raises(
        ExperimentError, match="user has an Input of uint8, which cannot hold pixels normalised by mean 1"
    ):
        build(told, SHAPE, 5, model)
    raw = PixelNormalization((0.0,), (1.0,))
    network = build(dataclasses.replace(told, weights_normalization=raw), SHAPE, 5, randomize(model))
    assert network.prove(pictures())["difference"] < 1e-5


@pytest.mark.parametrize("build", [networks.build_student, networks.build_teacher])
def test_means_of_other_channels_than_the_pictures_have_are_refused(build):
    pixels = tf_keras.Input((8, 8, 1))
    model = tf_keras.Model(pixels, layers.Dense(5)(layers.Flatten()(pixels)), name="user")
    spec = NetworkSpec("in_memory:trained:user", PIXELS, weights_normalization=IMAGENET)
    with pytest.raises(ExperimentError, match="for 3 channels, the images have 1"):
        build(spec, (8, 8, 1), 5, model)


@pytest.mark.parametrize(
    "target, message",
    [
        (TargetSpec("microcontroller", max_flash_bytes=100), "--max_flash_bytes=100"),
        (TargetSpec("microcontroller", max_ram_bytes=100), "--max_ram_bytes=100"),
    ],
)
def test_limit_of_the_target_is_an_error(make_residual_student, target, message, capsys):
    with pytest.raises(ExperimentError, match=message):
        networks.checked_plan(make_residual_student(), SPEC, target, every_layer=True)
    assert "depthwise" in capsys.readouterr().out


AUTO = QuantizationSpec(weight_bits=8, activation_bits=8, finds_bits=True)


@pytest.mark.parametrize(
    "target, storage, more", [("microcontroller", "auto", False), ("phone", "auto", True), ("phone", "int4_all", False)]
)
def test_a_budget_below_the_fewest_bits_is_refused_with_the_least_that_is_possible(
    make_residual_student, target, storage, more
):
    small = TargetSpec(target, max_flash_bytes=900, weight_storage=storage)
    with pytest.raises(
        ExperimentError, match=r"--max_flash_bytes=900 is too little: --bits=auto needs at least [\d,]+ bytes"
    ) as told:
        networks.checked_plan(make_residual_student(), AUTO, small)
    assert ("--weight_storage=int4_all packs more" in str(told.value)) == more
    least = int(re.search("at least ([\\d,]+) bytes", str(told.value))[1].replace(",", ""))
    enough = dataclasses.replace(small, max_flash_bytes=least)
    assert set(networks.checked_plan(make_residual_student(), AUTO, enough).weight_grids) == {
        *("stem", "depthwise", "linear", "logits")
    }


def test_a_file_that_may_be_larger_than_its_room_is_told(make_residual_student, capsys):
    networks.checked_plan(make_residual_student(), SPEC, TargetSpec("microcontroller", 1_000))
    assert "bytes, above --max_flash_bytes=1,000; the export checks it" in capsys.readouterr().out


def test_widths_of_another_network_are_refused(make_residual_student):
    found = dataclasses.replace(AUTO, found_bits=(4, 8, 8))
    with pytest.raises(ExperimentError, match="the widths of 3 kernels were found in this run, and the student has 4"):
        networks.checked_plan(make_residual_student(), found, TargetSpec())


def test_limits_that_hold_pass(make_residual_student, capsys):
    target = TargetSpec("microcontroller", 10_000, 10_000)
    networks.checked_plan(make_residual_student(), SPEC, target, every_layer=True)
    printed = capsys.readouterr().out
    assert "stem" in printed and "multiply-adds" in printed and "REFUSED" not in printed
    networks.checked_plan(make_residual_student(), SPEC, target)
    printed = capsys.readouterr().out
    assert "stem" not in printed and "multiply-adds" in printed


@pytest.mark.parametrize(
    "body, message",
    [
        ([layers.Activation("tanh", name="bad")], "layer bad is .*tanh|layer bad has activation tanh"),
        (
            [layers.BatchNormalization(name="bn"), layers.Conv2D(4, 3, name="bad", data_format="channels_first")],
            "layer bad has data_format",
        ),
    ],
)
def test_layer_that_is_refused_is_marked_in_the_table(chain, capsys, body, message):
    model = chain(
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, name="conv"),
        *body,
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    )
    with pytest.raises(ExperimentError, match=message):
        networks.checked_student(in_memory(), (8, 8, 3), 5, model)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad")]
    assert "REFUSED" in line


def in_memory(*options):
    """An experiment whose student Python hands over."""
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=x", "--phases=", *options])
        experiment = flags.experiment_from_flags()
    given = dataclasses.replace(experiment.student, name="in_memory:trained:chain")
    return dataclasses.replace(experiment, student=given)


@pytest.mark.slow
@pytest.mark.parametrize(
    "network, precision, told",
    [
        ("mobilenet_v2_0.25_cifar", "bfloat16", True),
        ("mobilenet_v2_0.25_cifar", "float32", False),
        ("resnet8", "bfloat16", False),
    ],
)
def test_bfloat16_on_depthwise_convolutions_is_noted_as_slower(network, precision, told):
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=x", f"--student={network}", f"--mixed_precision={precision}", "--phases="])
        experiment = flags.experiment_from_flags()
    network, _ = networks.checked_student(experiment, (32, 32, 3), 10)
    assert any("slower" in note for note in network.notes) == told


@pytest.mark.parametrize("options, refused", [([], True), (["--nodeterministic"], False)])
def test_maximum_that_xla_cannot_train_deterministically_is_refused(chain, options, refused):
    model = chain(layers.Rescaling(1 / 255), layers.MaxPooling2D(name="pool"), layers.Flatten(), layers.Dense(5))
    experiment = in_memory("--jit_compile", *options)
    with (
        pytest.raises(ExperimentError, match="pool of .* MaxPooling2D.*--nodeterministic") if refused else nullcontext()
    ):
        networks.checked_student(experiment, (8, 8, 3), 5, model)


# Steps of signals mean 0.25 * (step - 100).
SIGNALS = PixelNormalization((100.0,), (4.0,))


def on_signals(name, **changes):
    return dataclasses.replace(NetworkSpec(name, PIXELS, **changes).on_signals(SIGNALS, "student"))


def hearing(shape, *before, **changes):
    """A small classifier of maps, of series or of vectors."""
    features = x = tf_keras.Input(shape)
    for layer in before:
        x = layer(x)
    if len(shape) > 1:
        conv, pool = (
            (layers.Conv2D, layers.GlobalAveragePooling2D)
            if len(shape) == 3
            else (layers.Conv1D, layers.GlobalAveragePooling1D)
        )
        x = pool()(conv(4, 3, activation="relu", name="conv", **changes)(x))
    return tf_keras.Model(features, layers.Dense(5, name="logits")(x), name="user")


def normalization(channels):
    return layers.Normalization(mean=np.arange(channels) - 3.0, variance=np.arange(channels) + 0.5)


@pytest.mark.parametrize("shape", [(9, 5, 2), (12, 3), (7,)])
@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("build", [networks.build_student, networks.build_teacher])
def test_networks_read_signals_as_the_numbers_that_their_steps_mean(build, shape, normalizes):
    """Also one that begins with a normalisation: it comes behind."""
    given = hearing(shape, *[normalization(shape[-1])] * normalizes)
    steps = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.uint8)
    network = build(on_signals("in_memory:trained:user"), shape, 5, given)
    expected = predict(given, 0.25 * (steps.astype(np.float32) - 100))
    np.testing.assert_allclose(predict(network.model, steps), expected, atol=1e-4 * np.abs(expected).max())
    assert network.model.input_shape == (None, *shape)
    assert network.prove(steps)["difference"] < 1e-4
    if build is networks.build_student:
        plan = networks.checked_plan(network.model, SPEC, TargetSpec())
        grid = next(grid for grid in plan.output_grids.values() if grid.qmax == 155)
        assert grid.qmin == -100


def test_padding_of_signals_reads_as_0_and_a_difference_is_told():
    given = hearing((12, 3), normalization(3), padding="same")
    steps = np.random.default_rng(0).integers(0, 256, (4, 12, 3)).astype(np.uint8)
    row = networks.build_student(on_signals("in_memory:trained:user"), (12, 3), 5, given).prove(steps)
    assert row["difference"] < 1e-4 < row["border_difference"]
    plain = networks.build_student(on_signals("in_memory:trained:user"), (12, 3), 5, hearing((12, 3), padding="same"))
    assert "border_difference" not in plain.prove(steps)


def test_a_network_trained_on_signals_is_kept_as_one_that_reads_them():
    spec = on_signals("in_memory:untrained:user")
    network = networks.build_student(spec, (12, 3), 5, hearing((12, 3), normalization(3)))
    kept = networks.of_signals(network.model, spec)
    again = networks.build_student(on_signals("in_memory:trained:kept"), (12, 3), 5, kept)
    steps = np.random.default_rng(0).integers(0, 256, (4, 12, 3)).astype(np.uint8)
    np.testing.assert_allclose(predict(again.model, steps), predict(network.model, steps), rtol=1e-4, atol=1e-4)
    assert again.notes == []
    pictures = networks.build_student(NEW, SHAPE, 5, user()).model
    assert networks.of_signals(pictures, NEW) is pictures


def test_features_normalised_by_the_last_axis_in_numbers_are_taken():
    steps = np.random.default_rng(0).integers(0, 256, (4, 12, 3)).astype(np.float32)
    statistics = {"mean": np.arange(3) - 3.0, "variance": np.arange(3) + 0.5}
    by_axis = [
        networks.build_student(
            on_signals("in_memory:trained:user"),
            (12, 3),
            5,
            hearing((12, 3), layers.Normalization(axis=axis, **statistics)),
        ).model
        for axis in (2, -1)
    ]
    weights = by_axis[1].get_weights()
    by_axis[0].set_weights(weights)
    np.testing.assert_array_equal(*(model(steps) for model in by_axis))
    adapted = layers.Normalization(axis=1)
    adapted.adapt(steps)
    with pytest.raises(ExperimentError, match=r"normalises by values of shape \(1, 1, 12, 1\); .*; normalise the data"):
        networks.build_student(on_signals("in_memory:trained:user"), (12, 3), 5, hearing((12, 3), adapted))


def test_networks_that_cannot_read_signals_are_told():
    with pytest.raises(ExperimentError, match=r"resnet8 reads pictures or maps .* the data set gives \(12, 3\)"):
        networks.build_student(on_signals("resnet8"), (12, 3), 5)
    model, _ = networks.build_student(on_signals("resnet8"), (12, 6, 1), 5)
    assert model.input_shape == (None, 12, 6, 1)
    with pytest.raises(ExperimentError, match=r"of shape \(12, 3, 1\), .*; features.reshape\(-1, 12, 3, 1\) has that"):
        networks.build_student(on_signals("in_memory:trained:user"), (12, 3), 5, hearing((12, 3, 1)))
    with pytest.raises(
        ExperimentError, match=r"only the order of axes differs, features.transpose\(0, 2, 1\) has that"
    ):
        networks.build_student(on_signals("in_memory:trained:user"), (3, 12), 5, hearing((12, 3)))
    with pytest.raises(ExperimentError, match=r"features.transpose\(0, 2, 3, 1\) has that"):  # channels came first
        networks.build_student(on_signals("in_memory:trained:user"), (3, 12, 9), 5, hearing((12, 9, 3)))
    with pytest.raises(ExperimentError, match=r"\(12, 3\), the data set has \(9, 4\); give a network that reads"):
        networks.build_student(on_signals("in_memory:trained:user"), (9, 4), 5, hearing((12, 3)))
    with pytest.raises(ExperimentError, match=r"\(11, 3\), the data set has \(12, 3\); give a network that reads"):
        networks.build_student(on_signals("in_memory:trained:user"), (12, 3), 5, hearing((11, 3)))
    for told, flag in (({"is_told": True}, "student_pixel"), ({"weights_normalization": OTHERS}, "student_weights")):
        with pytest.raises(
            ExperimentError, match=f"--{flag}_mean and --{flag}_std are for pixels, and signals are read"
        ):
            on_signals("in_memory:trained:user", **told)


@pytest.mark.parametrize("weight, widths, refused", [(1.0, (4, 6), True), (1.0, (4, 4), False), (0.0, (4, 6), False)])
def test_features_of_two_sizes_are_refused_if_they_are_compared(chain, weight, widths, refused):
    student, teacher = (
        chain(layers.Conv2D(width, 3), layers.GlobalAveragePooling2D(), layers.Dense(5)) for width in widths
    )
    experiment = in_memory()
    training = dataclasses.replace(experiment.training, feature_distillation_weight=weight)
    told = pytest.raises(ExperimentError, match="which have 4 numbers in .* and 6 in ") if refused else nullcontext()
    with told:
        networks.require_comparable(dataclasses.replace(experiment, training=training), student, teacher)
