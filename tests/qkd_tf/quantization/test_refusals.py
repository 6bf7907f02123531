"""What a refusal says of the layers that have no integer form."""

import tf_keras
from tf_keras import layers

from qkd_tf.quantization.refusals import UnsupportedLayers, problems


def refused(*kinds):
    """The refusal of a network that has a layer of each of `kinds`."""
    x = pixels = tf_keras.Input((8, 8, 3))
    for number, kind in enumerate(kinds):
        x = kind(name=f"l{number}")(x)
    model = tf_keras.Model(pixels, x, name="net")
    return UnsupportedLayers(model, problems(model))


def test_a_reason_that_many_layers_share_is_given_once():
    error = refused(*[layers.LayerNormalization, layers.Masking] * 3, layers.UnitNormalization)
    reasons = str(error).removeprefix("net cannot become an integer .tflite: ").split("; layer ")
    assert [reason.split(";")[0] for reason in reasons] == [
        "layer l0 is a LayerNormalization",
        "l1 is a Masking",
        "l6 is a UnitNormalization",
    ]
    assert [reason.endswith("(and 2 more layers like it)") for reason in reasons] == [True, True, False]
    assert refused(*[layers.LayerNormalization] * 2).args[0].endswith("(and 1 more layer like it)")


def test_each_layer_keeps_its_own_line():
    error = refused(*[layers.LayerNormalization] * 3)
    assert list(error.refusals) == ["l0", "l1", "l2"]
    assert all(line.startswith(f"layer {name} is a") for name, line in error.refusals.items())
