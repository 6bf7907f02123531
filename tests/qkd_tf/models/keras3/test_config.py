"""Configurations of Keras 3: what is understood is handed on, everything else is refused by name."""

import copy
import json

import pytest

from qkd_tf.models.keras3.config import checked, in_double
from qkd_tf.models.keras3.refusal import RefusalError


@pytest.fixture(scope="module")
def config(keras, network):
    """config(change): the configuration of `network`, changed."""
    model = network()
    model.compile("adam", "mse")
    written = json.loads(model.to_json())

    def make(change=lambda config: None):
        config = copy.deepcopy(written)
        change(config)
        return config

    return make


def part(config, class_name):
    return next(one for one in config["config"]["layers"] if one["class_name"] == class_name)


def layer(kind, /, **changes):
    return lambda config: part(config, kind).update(changes)


def argument(kind, /, **changes):
    return lambda config: part(config, kind)["config"].update(changes)


def test_what_is_understood_is_written_as_keras_3_writes_it(config, keras):
    found = checked(config())
    shapes = [
        [tuple(weight.shape) for weight in keras.saving.deserialize_keras_object(one, safe_mode=True).weights]
        for one in (copy.deepcopy(found), config())
    ]
    assert shapes[0] == shapes[1]
    assert checked(json.loads(json.dumps(found))) == found


def test_what_makes_nothing_of_the_function_is_left_out(config):
    text = json.dumps(checked(config()))
    for word in ("initializer", "build_config", "compile_config", "shared_object_id", "quantization_config", "Adam"):
        assert word not in text


def test_calls_keep_what_their_user_wrote_of_training(config):
    found = checked(config())
    assert [part(found, name)["inbound_nodes"][0]["kwargs"] for name in ("Sequential", "RandomFlip", "Dropout")] == [
        {"training": False},
        {},
        {},
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        (
            layer("Conv2D", class_name="Popen", module="subprocess"),
            "a Popen, is not converted: its class is of subprocess",
        ),
        (layer("Dropout", module="__main__"), "a Dropout, is not converted: its class is of __main__"),
        (layer("Dropout", registered_name="mine>Dropout"), "a Dropout, is not converted"),
        (layer("Dense", class_name="Lambda"), "a Lambda, is not converted: it runs your own code; "),
        (
            layer("Dense", class_name="MultiHeadAttention"),
            "a MultiHeadAttention, is not converted: a file of integers cannot compute it; use convolutions",
        ),
        (layer("Add", class_name="Einsum"), "an Einsum, is not converted"),
        (layer("Add", module="os"), "an Add, is not converted"),
        (argument("Conv2D", activation="glu"), "tf_keras has no activation glu"),
        (argument("Conv2D", activation={"value": ["4wEA", None, None]}), "tf_keras has no activation of a lambda"),
        (argument("Conv2D", activation={"class_name": "function", "module": "os", "config": "system"}), "tion system"),
        (argument("Conv2D", activation={"class_name": "PReLU", "module": "keras.layers", "config": {}}), "activation"),
        (argument("Conv2D", new_argument=3), "its new_argument is 3"),
        (argument("Conv2D", filters={"class_name": "Popen"}), "one of its arguments is {'class_name': 'Popen'}"),
        (argument("Conv2D", kernel_regularizer={"class_name": "Mine", "module": "mine", "config": {}}), "no Mine"),
        (argument("Conv2D", bias_constraint={"class_name": "NonNeg", "module": "os", "config": {}}), "no NonNeg"),
        (
            argument("Dense", dtype={"class_name": "QuantizedDTypePolicy", "config": {"name": "int8_from_float32"}}),
            "int8",
        ),
        (
            argument("Dense", dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}),
            "tf_keras has no dtype policy QuantizedDTypePolicy",
        ),
        (layer("Dropout", class_name="RandomCrop"), "a RandomCrop, is not converted: it crops at inference too; leave"),
        (
            lambda config: config["config"].update(output_layers={"a": config["config"]["output_layers"]}),
            "which takes or returns a dict; give keras.Model(model.inputs[0], model.outputs[0])",
        ),
        (argument("Dense", quantization_config={"class_name": "Int8"}), "its quantization_config is"),
        (argument("Dropout", name="base"), "whose mine has two layers called base"),
        (lambda config: config.update(class_name="Mine"), "a Mine; a functional or Sequential model without"),
        (lambda config: config.update(module="mine"), "a Functional; a functional or Sequential model without"),
        (lambda config: config.update(registered_name="mine>Net"), "a functional or Sequential model without"),
        (
            lambda config: part(config, "Dense")["inbound_nodes"][0]["kwargs"].update(mask=[1]),
            "a Dense, is not converted: it is called with mask",
        ),
        (
            lambda config: (
                part(config, "Sequential")["config"]["layers"].pop(0)
                and part(config, "Sequential")["config"].pop("build_input_shape")
            ),
            "whose Sequential base does not know its input; begin it with keras.Input",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(config, change, message):
    with pytest.raises(RefusalError) as caught:
        checked(config(change))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_batch_renormalization_is_refused(keras):
    pixels = keras.Input((4, 4, 3))
    model = keras.Model(pixels, keras.layers.BatchNormalization(renorm=True, name="norm")(pixels))
    with pytest.raises(RefusalError, match="layer norm, a BatchNormalization, is not converted: its renorm is True"):
        checked(json.loads(model.to_json()))


@pytest.mark.parametrize(
    "wrong", [{}, {"class_name": "Functional"}, {"class_name": "Functional", "config": {"name": 1}}]
)
def test_what_is_no_configuration_raises(wrong):
    with pytest.raises((LookupError, TypeError, AttributeError)):
        checked(wrong)


def test_in_double_float32_is_float64_and_nothing_else_changes():
    one = {"dtype": "float32", "layers": [{"dtype": "uint8"}, {"config": {"dtype": "float32", "axis": [1, 2]}}]}
    assert in_double(one) == {
        "dtype": "float64",
        "layers": [{"dtype": "uint8"}, {"config": {"dtype": "float64", "axis": [1, 2]}}],
    }
    assert one["dtype"] == "float32"
