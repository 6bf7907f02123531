"""Graphs of Keras 3 as models of tf_keras: the same function, the same names, or a line."""

import json

import numpy as np
import pytest

from qkd_tf.models.copier import leaves
from qkd_tf.models.keras3 import arrays, door
from qkd_tf.models.keras3.config import checked
from qkd_tf.models.keras3.conversion import convert
from qkd_tf.models.keras3.refusal import RefusalError

# Network of keras.applications -> side of its pictures; those that are unlike one another, and soon built.
FEW = {"MobileNetV3Small": 32, "EfficientNetB0": 32}
MANY = {
    **{
        name: 32
        for name in (
            "MobileNet",
            "MobileNetV2",
            "VGG16",
            "MobileNetV3Large",
            "ResNet50",
            "ResNet50V2",
            "DenseNet121",
            "EfficientNetV2B0",
        )
    },
    **{"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71, "NASNetMobile": 224},
}


def test_network_is_the_same_function_with_the_same_names(network, alike):
    model = network()
    difference, converted = alike(model)
    assert difference < 1e-6
    names = {layer.name for layer in leaves(converted)}
    assert {"conv", "rescaling", "dense"} <= {name.rstrip("_0123456789") for name in names}
    assert converted.get_layer("base").name == "base" and converted.name == "mine"
    assert not converted.get_layer("base").layers[2].trainable and converted.get_layer("base").layers[5].trainable


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, side",
    [*FEW.items(), *(pytest.param(*row, marks=pytest.mark.applications) for row in MANY.items())],
)
def test_network_of_keras_applications_is_the_same_function(keras, alike, randomized, name, side):
    model = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(side, side, 3))
    assert alike(randomized(model))[0] < 1e-5


@pytest.mark.parametrize("name", ["ConvNeXtTiny"])
def test_network_with_a_layer_of_its_own_is_refused_by_name(keras, name):
    model = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(32, 32, 3))
    with pytest.raises(RefusalError, match="a LayerScale, is not converted: its class is of keras.src.applications"):
        door.of_model(model)


def sequential(keras):
    return keras.Sequential(
        [keras.layers.Conv2D(3, 3), keras.layers.Dropout(0.1), keras.layers.Flatten(), keras.layers.Dense(2)]
    )


def test_sequential_that_saw_pictures_knows_its_input(keras, alike):
    model = sequential(keras)
    model(np.zeros((4, 6, 6, 3), np.float32))
    difference, converted = alike(model)
    assert difference < 1e-6 and converted.input_shape == (None, 6, 6, 3)


@pytest.mark.parametrize("order", ["functional in Sequential", "Sequential in functional", "functional at the end"])
def test_models_in_models(keras, alike, randomized, order):
    def inner():
        pixels = keras.Input((6, 6, 3))
        return keras.Model(pixels, keras.layers.Conv2D(3, 3, padding="same")(pixels), name="inner")

    if order == "functional in Sequential":
        model = keras.Sequential([keras.Input((6, 6, 3)), inner(), keras.layers.Flatten(), keras.layers.Dense(2)])
    elif order == "Sequential in functional":
        pixels = keras.Input((6, 6, 3))
        chain = keras.Sequential([keras.Input((6, 6, 3)), inner(), keras.layers.Flatten()])
        model = keras.Model(pixels, keras.layers.Dense(2)(chain(pixels)))
    else:
        pixels, shared = keras.Input((6, 6, 3)), inner()
        model = keras.Model(pixels, shared(keras.layers.ReLU()(shared(pixels))))
    assert alike(randomized(model))[0] < 1e-6


@pytest.mark.parametrize(
    "freeze",
    [
        lambda model: setattr(model.get_layer("base"), "trainable", False),
        lambda model: setattr(model.get_layer("shared").layers[1], "trainable", False),
        lambda model: setattr(model, "trainable", False),
    ],
)
def test_what_is_frozen_stays_frozen(network, alike, freeze):
    model = network()
    num_before = len(model.trainable_weights)
    freeze(model)
    _, converted = alike(model)
    assert len(converted.trainable_weights) == len(model.trainable_weights) < num_before


def test_one_layer_of_a_frozen_model_trains_as_in_keras_3(network, alike):
    model = network()
    model.get_layer("base").trainable = False
    model.get_layer("base").layers[0].trainable = True
    _, converted = alike(model)
    assert len(converted.trainable_weights) == len(model.trainable_weights)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float16"])
def test_policies_are_kept(keras, alike, policy):
    pixels = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, dtype=policy)(pixels)
    model = keras.Model(pixels, keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten()(x)))
    _, converted = alike(model)
    assert converted.layers[1].dtype_policy.name == policy


def test_names_that_only_keras_3_takes_are_changed(keras, alike):
    pixels = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(3, 3, name="my conv")(pixels)
    difference, converted = alike(keras.Model(pixels, keras.layers.Conv2D(3, 3, name="my_conv")(x)))
    assert difference < 1e-6
    assert [layer.name for layer in converted.layers[1:]] == ["my_conv", "my_conv_again_1"]


def chain(keras):
    """(Checked configuration, arrays) of input, first, second, which are Dense."""
    pixels = keras.Input((3,), name="input")
    x = keras.layers.Dense(4, name="first")(pixels)
    model = keras.Model(pixels, keras.layers.Dense(2, name="second")(x))
    return checked(json.loads(model.to_json())), dict(arrays.of_model(model))


def reads(config, place, layer, call=0, output=0):
    tensor = config["config"]["layers"][place]["inbound_nodes"][0]["args"][0]
    tensor["config"]["keras_history"] = [layer, call, output]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda config, given: reads(config, 1, "second"), "layer first reads its own output"),
        (lambda config, given: reads(config, 1, "first"), "layer first reads its own output"),
        (
            lambda config, given: reads(config, 1, "absent"),
            "layer first reads its own output, or a tensor that does not exist",
        ),
        (
            lambda config, given: reads(config, 2, "first", 0, 5),
            "reads output 5 of call 0 of first, which does not exist",
        ),
        (lambda config, given: config["config"].update(output_layers=["first", 7, 0]), "output 0 of call 7 of first"),
        (
            lambda config, given: given.pop(("first",)),
            r"first, a Dense, .* shape \(3, 4\) is expected, there is nothing",
        ),
        (lambda config, given: given["first",].pop(), r"shape \(4,\) is expected, there is nothing"),
        (
            lambda config, given: given.update({("first",): [np.zeros((3, 5), "f")]}),
            r"there is float32 of shape \(3, 5\)",
        ),
        (
            lambda config, given: given["first",].append(np.zeros(4, "f")),
            "than it has weights: 1 array too many",
        ),
        (lambda config, given: given["first",].__setitem__(0, np.zeros((3, 4), "S3")), "is not converted"),
        (
            lambda config, given: config["config"]["layers"][1]["config"].update(units=10**12),
            "there is float32 of shape",
        ),
        (lambda config, given: config["config"]["layers"][1]["config"].update(units="many"), "is not converted: "),
        (lambda config, given: config["config"]["layers"][1]["config"].update(units=-1), "is not converted: "),
    ],
)
def test_damage_is_told_in_one_line_before_memory_is_taken(keras, spoil, message):
    config, given = chain(keras)
    spoil(config, given)
    with pytest.raises(RefusalError, match=message) as caught:
        convert(config, given)
    assert "\n" not in str(caught.value)


def test_tensors_beyond_memory_are_refused(keras):
    pixels = keras.Input((4, 4, 3))
    model = keras.Model(pixels, keras.layers.ZeroPadding2D(100_000, name="pad")(pixels))
    with pytest.raises(RefusalError, match="layer pad, a ZeroPadding2D, is not converted: it gives a tensor of shape"):
        convert(checked(json.loads(model.to_json())), {})
