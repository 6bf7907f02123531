"""Layer graphs: walked in one order, called on numbers, and copied without a bit of the original being moved."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers, mixed_precision

from qkd_tf.experiment import ExperimentError
from qkd_tf.models import copier
from qkd_tf.models.copier import Copier

SHAPE = (6, 6, 3)


class Plain(Copier):
    """Copies each call as it is."""

    def call(self, call):
        return self.same(call)

    @classmethod
    def of(cls, model):
        plain = cls()
        inputs = [tf_keras.Input(tensor.shape[1:]) for tensor in model.inputs]
        outputs = plain.copy(model, inputs)
        plain.note_names()
        return plain, plain.finished(inputs, outputs, model.name)


def pictures(num=3):
    return np.random.default_rng(0).normal(size=(num, *SHAPE)).astype(np.float32)


def functional(body):
    pixels = tf_keras.Input(SHAPE, name="pixels")
    return tf_keras.Model(pixels, body(pixels), name="user")


def sequential(*inner, shape=SHAPE, name=None):
    return tf_keras.Sequential([layers.Input(shape), *inner], name=name)


def chained(x):
    return layers.ReLU(name="relu")(layers.Conv2D(4, 3, name="conv")(x))


def nested(x):
    inner = sequential(layers.Conv2D(3, 3, padding="same", name="conv"), layers.ReLU(name="relu"), name="inner")
    return layers.Conv2D(2, 1, name="conv")(inner(x))


def deeply_nested(x):
    innermost = sequential(layers.Dense(3, name="dense"), name="innermost")
    return sequential(sequential(innermost, name="middle"), layers.ReLU(name="relu"), name="outer")(x)


def shared(x):
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    return layers.Add(name="add")([conv(conv(x)), conv(x)])


def shared_model(x):
    inner = sequential(layers.Conv2D(3, 3, padding="same", name="conv"), name="inner")
    return inner(inner(x))


def same_tensor_twice(x):
    y = layers.Conv2D(3, 1, name="conv")(x)
    return layers.Concatenate(name="both")([y, x, y])


def several_outputs(x):
    class Halves(layers.Layer):
        def call(self, x):
            return tf.split(x, [1, 2], axis=-1)

    first, second = Halves(name="halves")(x)
    return layers.Concatenate(name="swapped")([second, first])


def by_name(x):
    class Weighted(layers.Layer):
        def call(self, x, weight=1.0, other=None):
            return x * weight - other

    y = layers.Conv2D(3, 1, name="conv")(x)
    return Weighted(name="weighted")(y, other=x, weight=0.5)


def two_inputs(x):
    one, other = tf_keras.Input(SHAPE), tf_keras.Input(SHAPE)
    inner = tf_keras.Model([one, other], layers.Subtract(name="difference")([one, other]), name="inner")
    y = layers.Conv2D(3, 1, name="conv")(x)
    return layers.Concatenate(name="both")([inner([x, y]), inner([y, x])])


def operators(x):
    return tf.nn.relu(x * 2.0 - tf.constant([0.5, -0.5, 0.0])) + 1.0


def unread_layer(x):
    layers.Conv2D(7, 1, name="read_by_nobody")(x)
    return layers.Conv2D(3, 1, name="conv")(x)


GRAPHS = {
    body.__name__: body
    for body in (
        chained,
        nested,
        deeply_nested,
        shared,
        shared_model,
        same_tensor_twice,
        several_outputs,
        by_name,
        two_inputs,
        operators,
        unread_layer,
    )  # fmt: skip
}


@pytest.mark.parametrize("name", GRAPHS)
def test_layers_called_one_by_one_give_what_the_model_gives(name, randomize):
    model = randomize(functional(GRAPHS[name]))
    expected = model(pictures()).numpy()
    ran = copier.run(model, [tf.constant(pictures())])
    np.testing.assert_array_equal(ran[-1][1], expected)
    assert [layer for layer, _ in ran] == [node.layer.name for node in copier.calls(model)]


@pytest.mark.parametrize("name", GRAPHS)
def test_copy_is_the_same_function_in_layers_of_its_own(name, randomize):
    model = randomize(functional(GRAPHS[name]))
    before = model.get_weights()
    plain, copy = Plain.of(model)
    np.testing.assert_allclose(copy(pictures()), model(pictures()), rtol=1e-6, atol=1e-6)
    assert not {id(layer) for layer in copy.layers} & {id(layer) for layer in copier.leaves(model)}
    assert [layer for layer, _ in plain.made] == [layer for layer, _ in copier.run(model, [tf.constant(pictures())])]
    for variable in copy.variables:
        variable.assign(tf.zeros_like(variable))
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_copy_of_a_sequential_model_is_functional_and_flat(randomize):
    model = randomize(sequential(layers.Conv2D(3, 3, name="conv"), layers.Flatten(), layers.Dense(2, name="logits")))
    _, copy = Plain.of(model)
    assert type(copy) is not tf_keras.Sequential and copier.is_graph(copy)
    np.testing.assert_array_equal(copy(pictures()), model(pictures()))


def test_nodes_come_after_those_that_they_read():
    model = functional(shared)
    seen = {id(tensor) for tensor in model.inputs}
    for node in copier.nodes(model):
        assert {id(tensor) for tensor in node.keras_inputs} <= seen
        seen |= {id(tensor) for tensor in tf.nest.flatten(node.outputs)}
    assert [node.layer.name for node in copier.nodes(model)].count("conv") == 3


def test_calls_of_an_inner_model_stand_in_its_place():
    assert [node.layer.name for node in copier.calls(functional(nested))] == ["conv", "relu", "conv"]
    assert [node.layer.name for node in copier.nodes(functional(nested))] == ["inner", "conv"]
    assert [node.layer.name for node in copier.calls(functional(shared_model))] == ["conv", "conv"]


def test_leaves_are_layers_without_the_models_around_them():
    kinds = [type(layer).__name__ for layer in copier.leaves(functional(deeply_nested))]
    assert kinds == ["InputLayer", "Dense", "ReLU"]  # a Sequential keeps its own input to itself


def test_walk_hands_values_from_maker_to_readers():
    """Here the values are sets of names: what an output depends on."""
    outputs = copier.walk(
        functional(two_inputs), [{"pixels"}], lambda node, given: [set().union({node.layer.name}, *given)]
    )
    assert outputs == [{"pixels", "conv", "difference", "both"}]


def test_readers_are_told_once_for_each_time():
    model = functional(same_tensor_twice)
    read_by = copier.readers(model)
    assert [layer.name for layer in read_by(model.get_layer("conv"))] == ["both", "both"]
    assert sorted(layer.name for layer in read_by(model.get_layer("pixels"))) == ["both", "conv"]
    assert read_by(model.get_layer("both")) == []


@pytest.mark.parametrize(
    "model, seen",
    [
        (lambda: functional(chained), True),
        (lambda: sequential(layers.Dense(2)), True),
        (lambda: tf_keras.Sequential([layers.Dense(2)]), False),
        (lambda: layers.Dense(2), False),
        (lambda: type("Own", (tf_keras.Model,), {"call": lambda self, x: x})(), False),
        (lambda: of_own_call(tf_keras.Model), False),
        (lambda: of_own_call(tf_keras.Sequential), False),
        (lambda: "model", False),
    ],
    ids="functional sequential unbuilt layer subclassed functional_with_call sequential_with_call text".split(),
)
def test_graph_is_what_has_layers_and_wires_to_be_seen(model, seen):
    assert copier.is_graph(model()) == seen


def of_own_call(kind):
    """A model whose layers are there, and whose `call` does something else with them."""

    class Twice(kind):
        def call(self, x, training=None, mask=None):
            return 2 * super().call(x, training=training, mask=mask)

    pixels = tf_keras.Input(SHAPE)
    if kind is tf_keras.Sequential:
        return Twice([layers.Input(SHAPE), layers.Dense(2)])
    return Twice(pixels, layers.Dense(2)(pixels))


def test_model_with_a_call_of_its_own_is_no_graph_inside_of_another():
    """Else its layers would be copied and its own call left out."""
    pixels = tf_keras.Input(SHAPE)
    model = tf_keras.Model(pixels, of_own_call(tf_keras.Model)(pixels))
    (node,) = copier.calls(model)
    assert type(node.layer).__name__ == "Twice"


class Times(layers.Layer):
    def call(self, x, factor, other=None):
        return x * factor


@pytest.mark.parametrize(
    "call, constants",
    [
        (lambda x: layers.Add()([x, x]), False),
        (lambda x: layers.Add()([x, tf.ones((1, *SHAPE))]), True),
        (lambda x: layers.Concatenate()([x, np.ones((1, *SHAPE), np.float32)]), True),
        (lambda x: Times()(x, 2.0), False),
        (lambda x: Times()(x, tf.constant(2.0)), True),
        (lambda x: Times()(x, 2.0, other=np.ones(3)), True),
        (lambda x: Times()(x, x), False),
        (lambda x: layers.Dropout(0.5)(x, training=True), False),
    ],
)
def test_constants_beside_the_graphs_tensors_are_seen(call, constants):
    (node,) = copier.nodes(functional(call))
    assert copier.has_constants(node) == constants


@pytest.mark.parametrize(
    "arguments, named, training",
    [
        ((), {}, None),
        ((), {"training": True}, True),
        ((), {"training": False}, False),
        ((True,), {}, True),
        ((False,), {}, False),
        ((), {"training": None}, None),
    ],
)
def test_training_argument_is_seen_by_place_and_by_name(arguments, named, training):
    model = functional(lambda x: layers.Dropout(0.5)(x, *arguments, **named))
    assert copier.training_argument(copier.nodes(model)[0]) is training


def test_layers_and_models_called_with_training_are_found_wherever_they_are():
    inner = sequential(layers.Dropout(0.5, name="dropout"), name="inner")

    def body(x):
        noise = layers.GaussianNoise(1.0, name="noise")(x, training=True)
        return layers.Dropout(0.5, name="other")(inner(noise, training=True), training=False)

    model = functional(lambda x: tf_keras.Model(inputs := tf_keras.Input(SHAPE), body(inputs), name="outer")(x))
    assert [layer.name for layer in copier.called_in_training(model)] == ["noise", "inner"]


@pytest.mark.parametrize("where", ["layer", "inner model", "model around the inner one"])
def test_batch_norm_called_in_inference_is_frozen_in_the_copy(where, randomize):
    """As transfer-learning guides write `base(x, training=False)`: its statistics and weights stay."""
    inner = sequential(layers.Conv2D(3, 1), layers.BatchNormalization(name="bn"))

    def body(x):
        if where == "layer":
            return layers.BatchNormalization(name="bn")(layers.Conv2D(3, 1)(x), training=False)
        if where == "inner model":
            return inner(x, training=False)
        return sequential(inner)(x, training=False)

    _, copy = Plain.of(randomize(functional(body)))
    bn = copy.get_layer("bn")
    assert not bn.trainable and not bn.trainable_variables
    expected = copy(pictures(), training=False).numpy()
    np.testing.assert_array_equal(copy(pictures(), training=True), expected)


def test_batch_norm_of_other_calls_is_as_trainable_as_it_was(randomize):
    for trainable in (True, False):
        bn = layers.BatchNormalization(name="bn", trainable=trainable)
        _, copy = Plain.of(randomize(functional(bn)))
        assert copy.get_layer("bn").trainable == trainable


@pytest.mark.parametrize(
    "names, expected",
    [
        (("a/kernel", "b c", "größe"), ["a_kernel", "b_c", "gr__e"]),
        (("quant_conv", "x_requantize"), ["layer_quant_conv_", "layer_x_requantize_"]),
        (("a/b", "a b", "a_b"), ["a_b", "again_a_b", "again_again_a_b"]),
        (("conv", "conv2"), ["conv", "conv2"]),
    ],
)
def test_names_become_what_files_can_have_and_that_is_noted(names, expected):
    """At 6352718 they met a traceback, or the handoff was blamed after training."""
    plain = Plain()
    assert [plain.free_name(name) for name in names] == expected
    plain.note_names()
    changed = [
        name
        for name, valid in zip(names, expected, strict=True)
        if not re.fullmatch(r"[A-Za-z0-9]\w*", name, re.ASCII) or valid.startswith("layer_")
    ]
    assert len(plain.notes) == bool(changed)
    for name in changed:
        assert repr(name) in plain.notes[0]


def test_names_are_told_up_to_five_and_counted():
    plain = Plain()
    for number in range(8):
        plain.free_name(f"block/{number}")
    plain.note_names()
    assert plain.notes[0].endswith("'block/4' to block_4 and 3 more")


def test_layer_of_an_inner_model_whose_name_is_taken_gets_the_models_before_it(randomize):
    _, copy = Plain.of(randomize(functional(nested)))
    assert [layer.name for layer in copy.layers[1:]] == ["conv", "relu", "again_conv"]
    two = [sequential(layers.Dense(3, name="dense"), name=name) for name in ("left", "right")]
    _, copy = Plain.of(functional(lambda x: layers.Add(name="add")([two[0](x), two[1](x)])))
    assert {layer.name for layer in copy.layers[1:]} == {"dense", "right_dense", "add"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_copy_of_a_mixed_policy_is_of_float32_with_the_weights(policy, randomize):
    before = mixed_precision.global_policy()
    mixed_precision.set_global_policy(policy)
    try:
        model = randomize(functional(chained))
    finally:
        mixed_precision.set_global_policy(before)
    _, copy = Plain.of(model)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"} and copy.output.dtype == tf.float32
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float32))


def test_activation_that_no_config_can_tell_is_copied_and_the_original_keeps_it(randomize):
    """At 6352718 a layer as an activation, or a partial of one, was a traceback."""
    function = layers.LeakyReLU(0.2)
    dense = layers.Dense(3, activation=function, name="dense")
    model = randomize(functional(dense))
    _, copy = Plain.of(model)
    assert dense.activation is function
    np.testing.assert_allclose(copy(pictures()), model(pictures()), rtol=1e-6)


class Untold(layers.Layer):
    """One whose argument Keras cannot write into a config."""

    def __init__(self, scheme, **options):
        super().__init__(**options)
        self._scheme = scheme

    def call(self, x):
        return x


class Wordless(layers.Layer):
    def call(self, x):
        return x

    def get_config(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "layer, reason",
    [
        (lambda: Untold(object(), name="bad"), "bad, a Untold, cannot be copied: "),
        (lambda: Wordless(name="bad"), "RuntimeError"),
    ],
)
def test_layer_that_cannot_be_copied_is_named_in_a_line(layer, reason):
    with pytest.raises(ExperimentError, match=reason) as caught:
        Plain.of(functional(lambda x: layer()(x)))
    assert "layer bad, a " in str(caught.value) and "\n" not in str(caught.value)
