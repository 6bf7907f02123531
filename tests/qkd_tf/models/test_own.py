"""Networks that a user brings: by builder, or as tf_keras saved them."""

import re

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization
from qkd_tf.models import own

RAW = PixelNormalization((0.0,), (1.0,))
SHAPE = (8, 8, 3)


def network(name, **options):
    return NetworkSpec(name, RAW, **options)


def small(softmax=False, rescaling=True, classes=5):
    pixels = tf_keras.Input(SHAPE)
    x = layers.Rescaling(1 / 64)(pixels) if rescaling else pixels
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    return tf_keras.Model(pixels, layers.Dense(classes, activation="softmax" if softmax else None)(x), name="small")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """package(source): a module `mine` of that source."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)

    def write(source):
        (tmp_path / "mine.py").write_text(source)

    return write


@pytest.mark.parametrize("named, called", [("model_3", "my_flowers"), ("sequential", "my_flowers"), ("net", "net")])
def test_saved_model_that_nobody_named_has_the_name_of_its_file(tmp_path, named, called):
    model = small()
    model._name = named
    model.save(tmp_path / "my_flowers.keras")
    assert own.build(network(str(tmp_path / "my_flowers.keras")), SHAPE, 5)[0].name == called


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_model_of_keras_3_that_nobody_named_has_the_name_of_its_file_in_notes_too(tmp_path, ending):
    keras = pytest.importorskip("keras", "3")
    keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(5)]).save(
        tmp_path / f"mine.{ending}"
    )
    model, (note, *_) = own.build(network(str(tmp_path / f"mine.{ending}")), SHAPE, 5)
    assert model.name == "mine" and note.startswith("note: mine is a model of Keras 3")


BUILDER = """
import tf_keras
def build(input_shape, num_classes):
    pixels = tf_keras.Input(input_shape)
    x = tf_keras.layers.GlobalAveragePooling2D()(pixels)
    return tf_keras.Model(pixels, tf_keras.layers.Dense({classes})(x))
def subclassed(input_shape, num_classes):
    class Net(tf_keras.Model):
        pass
    return Net()
"""


def test_builder_gets_shape_and_classes(package):
    package(BUILDER.format(classes="num_classes"))
    model, notes = own.build(network("mine:build"), SHAPE, 7)
    assert model.output_shape == (None, 7) and notes == []


@pytest.mark.slow
def test_builder_of_keras_applications_gets_them_by_its_own_names():
    model, _ = own.build(network("tf_keras.applications:MobileNetV2"), (32, 32, 3), 7)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 7))


@pytest.mark.parametrize(
    "name, message",
    [
        ("no_such_package:build", "no_such_package:build cannot be imported"),
        ("mine:absent", "module 'mine' has no attribute 'absent'; its functions are build, subclassed"),
        ("mine.py:build", "mine.py:build begins with a file's path; give mine:build"),
        ("../nets/mine.py:build", "give mine:build, and start in ../nets or put that folder into PYTHONPATH"),
        ("nets:build", ", and no package of that name"),
        ("math:sqr", "has no attribute 'sqr'; did you mean math:sqrt?"),
        ("tf_kera.applications:VGG16", "No module named 'tf_kera'; did you mean tf_keras.applications:VGG16?"),
        ("tf_keras.application:VGG16", "did you mean tf_keras.applications:VGG16?"),
        (":", "cannot be imported"),
        ("..:build", "cannot be imported"),
        ("mine:tf_keras", "mine:tf_keras cannot be called as builder(input_shape, num_classes)"),
        ("os:getcwd", "os:getcwd cannot be called as builder(input_shape, num_classes)"),
        ("mine:subclassed", "gives Net; a functional or Sequential Keras model"),
        ("mine:build", "has 3 classes, the data set has 5"),
        ("folder/absent.keras", "no model at folder/absent.keras"),
    ],
)
def test_what_is_no_network_is_told_in_one_line(package, name, message):
    package(BUILDER.format(classes="3"))
    with pytest.raises(ExperimentError, match=re.escape(message)) as error:
        own.build(network(name), SHAPE, 5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source, message",
    [
        ("import os\ndef build(input_shape, num_classes)\n    pass", "line 2: SyntaxError: expected ':'; fix"),
        ("import no_such_package", "line 1: ModuleNotFoundError: No module named 'no_such_package'; fix"),
        ("kernels = {}['stem']", "line 1: KeyError: 'stem'; fix"),
        ("import sys\nsys.exit('give me a file')", "line 2: SystemExit: give me a file; fix"),
    ],
)
def test_module_that_fails_is_told_by_its_line(package, tmp_path, source, message):
    package(source)
    expected = f"mine:build cannot be imported: {tmp_path / 'mine.py'}, {message} that; python -c 'import mine' shows"
    with pytest.raises(ExperimentError, match=re.escape(expected)):
        own.build(network("mine:build"), SHAPE, 5)


def test_builder_that_fails_is_told_by_its_line(package, tmp_path):
    package("import tf_keras\ndef build(input_shape, num_classes):\n    return tf_keras.layers.Dense('many')")
    told = f"mine:build fails as builder((8, 8, 3), 5): {tmp_path / 'mine.py'}, line 3: ValueError: invalid literal"
    with pytest.raises(
        ExperimentError, match=f"{re.escape(told)}.*import mine; mine.build\\(\\(8, 8, 3\\), 5\\)' shows"
    ):
        own.build(network("mine:build"), SHAPE, 5)


def test_builder_of_a_package_that_fails_is_told_without_a_place():
    told = "builder((8, 8, 3), weights=None, classes=5): ValueError: Input size must be at least 32x32"
    with pytest.raises(ExperimentError, match=re.escape(told)):
        own.build(network("tf_keras.applications:MobileNetV2"), SHAPE, 5)


@pytest.mark.parametrize("ending", [".keras", ".h5", ""])
def test_saved_model_comes_back_with_its_weights(tmp_path, ending):
    model, path = small(), tmp_path / f"saved{ending}"
    model.save(path, **({} if ending else {"save_format": "tf"}))
    spec = network(str(path))
    assert spec.is_saved and spec.has_weights and not spec.is_builder
    images = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype(np.float32)
    again, notes = own.build(spec, SHAPE, 5)
    assert notes == []
    np.testing.assert_allclose(again.predict_on_batch(images), model.predict_on_batch(images), rtol=1e-5)


def test_other_pixels_are_refused(tmp_path):
    small().save(tmp_path / "saved.keras")
    with pytest.raises(
        ExperimentError,
        match=r"reads pictures of \(8, 8, 3\) \(height, width, channels\), the data set has \(16, 16, 3\)",
    ):
        own.build(network(str(tmp_path / "saved.keras")), (16, 16, 3), 5)


def test_code_and_weights_without_a_number_are_refused(tmp_path):
    model = small()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias * np.nan])
    model.save(tmp_path / "nan.keras")
    with pytest.raises(ExperimentError, match=r"nan.keras: dense\w*/bias:0 has NaN or infinity; give"):
        own.build(network(str(tmp_path / "nan.keras")), SHAPE, 5)
    pixels = tf_keras.Input(SHAPE)
    x = layers.Flatten()(layers.Lambda(lambda x: x * 2)(pixels))
    tf_keras.Model(pixels, layers.Dense(5)(x)).save(tmp_path / "code.h5")
    with pytest.raises(ExperimentError, match="code.h5 cannot be loaded by tf_keras: it has a Lambda layer.*--trust_m"):
        own.build(network(str(tmp_path / "code.h5")), SHAPE, 5)
    trusted, _ = own.build(network(str(tmp_path / "code.h5"), trust_code=True), SHAPE, 5)
    assert trusted.output_shape == (None, 5)


def test_file_that_is_no_model_is_named(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"nothing")
    with pytest.raises(ExperimentError, match="broken.keras cannot be loaded by tf_keras: it is neither a .keras"):
        own.build(network(str(tmp_path / "broken.keras")), SHAPE, 5)


def test_weights_of_a_builder_are_loaded_and_misfits_told(tmp_path, package):
    package(BUILDER.format(classes="num_classes"))
    model, _ = own.build(network("mine:build"), SHAPE, 7)
    model.save_weights(tmp_path / "mine.h5")
    loaded, notes = own.build(network("mine:build", weights=str(tmp_path / "mine.h5")), SHAPE, 7)
    assert notes == []
    assert_same_weights(model, loaded)
    with pytest.raises(ExperimentError, match="do not fit"):
        own.build(network("mine:build", weights=str(tmp_path / "mine.h5")), SHAPE, 6)


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_weights_of_every_format_go_into_a_users_model_whatever_keras_called_its_layers(tmp_path, package, ending):
    """README says that .keras weights go in; Keras itself loads .h5 files alone."""
    package(BUILDER.format(classes="num_classes"))
    model, _ = own.build(network("mine:build"), SHAPE, 7)
    path = str(tmp_path / f"mine{ending}")
    (model.save if ending == ".keras" else model.save_weights)(path)
    loaded, _ = own.build(network("mine:build", weights=path), SHAPE, 7)
    assert_same_weights(model, loaded)


def test_match_of_weights_by_position_is_told(tmp_path, package):
    package(BUILDER.format(classes="num_classes"))
    pixels = tf_keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(pixels)
    tf_keras.Model(pixels, layers.Dense(7, name="classes")(x)).save(tmp_path / "other.keras")
    _, notes = own.build(network("mine:build", weights=str(tmp_path / "other.keras")), SHAPE, 7)
    assert "layers were matched by position and shape" in notes[0] and len(notes) == 1


def test_model_in_memory_is_taken_as_it_is(tmp_path):
    model = small()
    taken, _ = own.build(network("in_memory:untrained:small"), SHAPE, 5, model)
    assert taken is model


def test_model_in_memory_is_left_as_it_is_where_weights_are_loaded_for_it(tmp_path):
    model, trained = small(), small()
    before = model.get_weights()
    trained.save_weights(tmp_path / "trained.h5")
    taken, _ = own.build(network("in_memory:untrained:small", weights=str(tmp_path / "trained.h5")), SHAPE, 5, model)
    assert taken is not model
    assert_same_weights(taken, trained)
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


@pytest.mark.parametrize("num_classes, fits", [(2, True), (1, False), (3, False)])
def test_one_unit_is_enough_for_two_classes(num_classes, fits):
    name = "in_memory:untrained:small"
    if fits:
        own.build(network(name), SHAPE, num_classes, small(classes=1))
    else:
        with pytest.raises(
            ExperimentError,
            match="2 classes, the data set has 1|1 output, which tells 2 classes apart, the data set has 3",
        ):
            own.build(network(name), SHAPE, num_classes, small(classes=1 if num_classes == 3 else 2))


def in_memory(inputs, outputs):
    own.build(network("in_memory:untrained:x"), SHAPE, 5, tf_keras.Model(inputs, outputs, name="user"))


def test_inputs_and_outputs_in_a_dict_are_told_how_to_be_handed_over():
    pixels = tf_keras.Input(SHAPE)
    logits = layers.Dense(5)(layers.Flatten()(pixels))
    for inputs, outputs in (({"image": pixels}, logits), (pixels, {"logits": logits})):
        with pytest.raises(ExperimentError, match=r"a dict; give tf_keras.Model\(model.inputs\[0\]"):
            in_memory(inputs, outputs)
    in_memory([pixels], [logits])


@pytest.mark.parametrize(
    "shape, remedy",
    [
        ((16, 16, 3), "give --image_size=16"),
        ((16, 8, 3), "give --image_size=16x8"),
        ((8, 8, 1), "give --image_channels=1"),
        ((8, 8, 4), "give another --dataset, or a network of its channels"),
        ((8, 8), "pictures are expected: height, width, channels"),
    ],
)
def test_pictures_of_another_shape_are_told_which_flag_makes_them_so(shape, remedy):
    pixels = tf_keras.Input(shape)
    with pytest.raises(ExperimentError, match=remedy):
        in_memory(pixels, layers.Dense(5)(layers.Flatten()(pixels)))


OF_KERAS_3 = """
import keras
def build(input_shape, num_classes):
    pixels = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, activation="hard_silu")(keras.layers.Rescaling(1 / 64)(pixels))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(num_classes)(x), name="net")
def subclassed(input_shape, num_classes):
    class Net(keras.Model):
        def call(self, x):
            return x
    return Net(name="net")
"""


@pytest.fixture
def of_keras_3(package):
    """A builder of Keras 3, mine:build."""
    pytest.importorskip("keras", "3")
    package(OF_KERAS_3)
    from mine import build

    return build


def of_images(model):
    images = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype(np.float32)
    return np.asarray(model(images, training=False))


def test_builder_of_keras_3_is_taken_over_and_proven(of_keras_3):
    model, (note,) = own.build(network("mine:build"), SHAPE, 7)
    assert isinstance(model, tf_keras.Model) and model.output_shape == (None, 7)
    assert "net is a model of Keras 3, rebuilt in tf_keras; outputs differ by" in note


@pytest.mark.slow
def test_networks_of_keras_applications_have_names_of_keras_3_too():
    model, _ = own.build(network("keras.applications:MobileNetV3Small"), (32, 32, 3), 7)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 7))


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
def test_files_of_keras_3_are_models_and_weights(tmp_path, of_keras_3, ending):
    original, path = of_keras_3(SHAPE, 5), str(tmp_path / f"mine{ending}")
    (original.save_weights if "weights" in ending else original.save)(path)
    if "weights" not in ending:
        saved, (note,) = own.build(network(path), SHAPE, 5)
        np.testing.assert_allclose(of_images(saved), of_images(original), rtol=1e-5, atol=1e-6)
        assert "is a model of Keras 3" in note
    if ending == ".h5":
        return  # whose arrays are found by names, and Keras numbers those of each builder's call
    built, _ = own.build(network("mine:build", weights=path), SHAPE, 5)
    np.testing.assert_allclose(of_images(built), of_images(original), rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_fit_a_model_of_keras_3_are_one_line(tmp_path, of_keras_3):
    of_keras_3(SHAPE, 6).save_weights(path := tmp_path / "six.weights.h5")
    with pytest.raises(ExperimentError, match=r"six.weights.h5 cannot be used: .*a Dense, .*\(4, 5\) is expected"):
        own.build(network("mine:build", weights=str(path)), SHAPE, 5)
    with pytest.raises(ExperimentError, match="weights file absent.weights.h5 does not exist"):
        own.build(network("mine:build", weights="absent.weights.h5"), SHAPE, 5)


def test_what_is_not_taken_over_of_keras_3_is_one_line(tmp_path, of_keras_3):
    import keras

    with pytest.raises(ExperimentError, match="mine:subclassed cannot be used: it is a model of Keras 3, a Net"):
        own.build(network("mine:subclassed"), SHAPE, 5)
    pixels = keras.Input(SHAPE)
    x = keras.layers.Lambda(lambda x: x, name="mine")(keras.layers.Flatten()(pixels))
    keras.Model(pixels, keras.layers.Dense(5)(x)).save(tmp_path / "code.keras")
    for trusted in (False, True):  # the file's code is for Keras 3, and runs in no case
        with pytest.raises(ExperimentError, match="code.keras cannot be used: .*layer mine, a Lambda, is not conv"):
            own.build(network(str(tmp_path / "code.keras"), trust_code=trusted), SHAPE, 5)


@pytest.mark.parametrize(
    "num_outputs, num_classes, told",
    [
        (4, 4, None),
        (1, 2, None),
        (3, 4, "x.keras has 3 classes, the data set has 4; give a model with as many, or leave the other classes out"),
        (1, 3, "x.keras has 1 output, which tells 2 classes apart, the data set has 3; give a model"),
        (1000, 4, "x.keras has 1,000 classes, the data set has 4; give a model with as many, or name the classes"),
    ],
)
def test_remedy_for_other_classes_depends_on_which_are_more(num_outputs, num_classes, told):
    if told is None:
        own.require_classes("x.keras", num_outputs, num_classes)
        return
    with pytest.raises(ExperimentError) as caught:
        own.require_classes("x.keras", num_outputs, num_classes)
    assert str(caught.value).startswith(told)
