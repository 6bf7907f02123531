"""The student in integers as a graph: every tensor as the definition in NumPy has it, in every arithmetic."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_keras import layers

from qkd_tf.contract.runtime_arithmetic import ARITHMETICS
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization import integer_graph
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.integer_graph import BUILDS, RESCALES, IntegerGraph
from qkd_tf.quantization.integer_steps import put_on_integer_steps
from qkd_tf.quantization.integer_student import OPERATORS, SIGMOID, WINDOWS, IntegerStudent
from qkd_tf.quantization.scheme import quantize_student

LOW = QuantizationSpec(weight_bits=3, activation_bits=4)
HIGH = QuantizationSpec(weight_bits=8, activation_bits=8)


def kernels(x):
    """Strides, padding, dilation, groups of an odd width, channels in blocks of eight and beyond, a constant one."""
    x = layers.Conv2D(6, (3, 2), (2, 1), "same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.DepthwiseConv2D((3, 2), padding="same", depth_multiplier=3, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(name="wide_bn")(x))
    x = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(9, 3, groups=3, padding="same", activation="relu")(x)
    return layers.Dense(5, name="logits")(layers.Flatten()(layers.MaxPooling2D(2, padding="same")(x)))


def joined(x):
    """A residual, its ReLU alone, a swish, a gate for each channel, tensors side by side, both averages."""
    x = stem = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    x = layers.Conv2D(4, 3, padding="same")(layers.ReLU(name="relu")(x))
    x = layers.Concatenate(name="concat")([layers.Add(name="add")([stem, x]), stem])
    x = layers.Conv2D(4, 1)(layers.ZeroPadding2D(1)(x))
    x = layers.Multiply(name="swish")([x, layers.Activation("sigmoid", name="sigmoid")(x)])
    gate = layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply(name="gated")([x, layers.Activation("sigmoid", name="gate")(gate)])
    x = layers.Conv2D(6, 1)(layers.AveragePooling2D((3, 2), (2, 1))(x))
    return layers.GlobalAveragePooling2D()(x)


def sloped(x):
    """One slope, slopes of channels, of each value, and of each value of a vector."""
    x = layers.LeakyReLU(0.1, name="leaky")(layers.Conv2D(4, 3, name="stem")(x))
    x = layers.PReLU(shared_axes=[1, 2], name="channels")(layers.Conv2D(4, 3)(x))
    x = layers.PReLU(name="values")(layers.Conv2D(3, 3)(x))
    return layers.PReLU(name="vector")(layers.Dense(6)(layers.Flatten()(x)))


def dense(x):
    """Sums beyond what float32 holds."""
    x = layers.Dense(600, activation="relu")(layers.Flatten()(x))
    return layers.Dense(5, name="logits")(x)


@pytest.fixture(scope="module")
def make_student(randomize):
    """make_student(body, spec, factor): calibrated on random pixels, intervals of activations times `factor`."""

    def make(body, spec, factor=1.0, seed=0) -> IntegerStudent:
        inputs = tf_keras.Input((9, 8, 3), name="pixels")
        model = randomize(tf_keras.Model(inputs, body(layers.Rescaling(1 / 64, -2.0, name="normalization")(inputs))))
        if body is kernels:
            model.get_layer("wide_bn").gamma[2].assign(0.0)
            model.get_layer("wide_bn").gamma[3].assign(-1.5)
        if body is dense:
            model.get_layer("logits").kernel.assign(tf.ones((600, 5)))
        student = quantize_student(model, spec)
        calibrate(student, [pictures(8).astype(np.float32)], "minmax", seed)
        for tensor in student.outputs.values():
            if tensor.interval.trainable:
                tensor.interval.assign(tensor.interval * factor)
        put_on_integer_steps(student)
        return IntegerStudent(student)

    return make


def pictures(num_images, seed=7):
    return np.random.default_rng(seed).integers(0, 256, (num_images, 9, 8, 3)).astype(np.uint8)


def assert_equal(student: IntegerStudent, arithmetic: str, images: np.ndarray) -> None:
    expected = student.predict(images, ARITHMETICS[arithmetic])
    graph = IntegerGraph(student, ARITHMETICS[arithmetic], len(images))
    found = graph.predict(images)
    assert found.keys() == expected.keys()
    for name, stored in expected.items():
        assert found[name].dtype == np.int8
        np.testing.assert_array_equal(found[name], stored, f"{arithmetic}/{name}")
    np.testing.assert_array_equal(np.concatenate(list(graph.logits([images]))), expected[student.output])


@pytest.mark.parametrize("compiled", [False, True], ids=["one by one", "compiled"])
@pytest.mark.parametrize("spec", [LOW, HIGH], ids=["W3A4", "W8A8"])
@pytest.mark.parametrize("body", [kernels, joined, dense])
def test_every_tensor_is_the_definitions(monkeypatch, make_student, body, spec, compiled):
    monkeypatch.setattr(integer_graph, "COMPILED_VALUES", 0 if compiled else 2**60)
    student = make_student(body, spec)
    for arithmetic in ARITHMETICS:
        assert_equal(student, arithmetic, pictures(5))


@pytest.mark.slow
def test_slopes_are_the_definitions(make_student):
    student = make_student(sloped, LOW)
    for arithmetic in ARITHMETICS:
        assert_equal(student, arithmetic, pictures(5))


@pytest.mark.parametrize(
    "moving", [layers.Flatten(name="end"), layers.Reshape((5,), name="end"), layers.Dropout(0.5, name="end")]
)
def test_logits_that_are_moved_in_the_end_have_the_shape_of_the_students_output(make_student, moving):
    """MobileNet of keras.applications ends in a Reshape."""

    def body(x):
        x = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(6, 3, name="first")(x))
        return moving(layers.Conv2D(5, 1, name="last")(x))

    student = make_student(body, HIGH)
    (logits,) = IntegerGraph(student, ARITHMETICS["litert"], 5).logits([pictures(5)])
    assert student.output == "end" and logits.shape[1:] == moving.output_shape[1:]
    assert_equal(student, "litert", pictures(5))


def test_sums_that_float32_does_not_hold_are_there(make_student):
    student = make_student(dense, HIGH)
    assert {kernel.codes.dtype.name for kernel in student.kernels.values()} == {"float32", "float64"}


@pytest.mark.slow
@given(
    st.sampled_from([kernels, joined]),
    st.builds(QuantizationSpec, **{f"{what}_bits": st.integers(2, 8) for what in ("weight", "activation", "residual")}),
    st.floats(0.05, 4.0),
    st.sampled_from(sorted(ARITHMETICS)),
)
@settings(max_examples=5)
def test_every_tensor_is_the_definitions_at_any_width_and_interval(make_student, body, spec, factor, arithmetic):
    assert_equal(make_student(body, spec, factor), arithmetic, pictures(3))


@pytest.mark.parametrize("compiled", [False, True], ids=["one by one", "compiled"])
@given(st.data())
def test_sums_are_brought_to_steps_as_the_definition_does(compiled, data):
    """Near ties above all: a multiple of half a step, and a little beside it."""
    rule = data.draw(st.sampled_from(sorted(RESCALES, key=lambda rule: rule.__name__)), label="rule")
    scale = st.floats(2.0**-12, 4.0, width=32)
    input_scale, output_scale = (np.float32(data.draw(scale)) for _ in range(2))
    exponents = np.array(data.draw(st.lists(st.floats(-14, 0), min_size=11, max_size=11)))
    kernel_scales = (2.0**exponents * output_scale / input_scale).astype(np.float32)
    largest = data.draw(st.sampled_from([2**23, 2**30]), label="largest")
    ties = data.draw(st.lists(st.integers(-600, 600), min_size=4, max_size=4))
    near = np.array(ties)[:, np.newaxis] / 2 / 2.0**exponents + data.draw(st.integers(-2, 2))
    spread = np.array(data.draw(st.lists(st.integers(-largest, largest), min_size=22, max_size=22))).reshape(2, 11)
    sums = np.clip(np.concatenate([np.round(near), spread]), -largest, largest)
    expected = np.clip(rule(sums, input_scale, kernel_scales, output_scale), -128, 127)
    rescale, numbers = RESCALES[rule](input_scale, kernel_scales, output_scale, 11)
    kind = tf.float32 if largest < 2**24 else tf.float64
    bias = np.arange(11)
    rescale = integer_graph._compiled(rescale) if compiled else rescale
    limits = tf.constant(-128.0), tf.constant(127.0)
    found = rescale(tf.constant(sums - bias, kind), tf.constant(bias, kind), *limits, *map(tf.constant, numbers))
    np.testing.assert_array_equal(found, expected)


def test_every_way_of_the_definition_has_one_here():
    assert {compute for _, compute in (*OPERATORS.values(), SIGMOID, WINDOWS)} < BUILDS.keys()
    rows = [row for arithmetic in ARITHMETICS.values() for row in (arithmetic, *arithmetic.int4.values())]
    assert {rule for row in rows for rule in (row.convolution, row.dense)} == RESCALES.keys()


@pytest.mark.slow
def test_batches_change_no_bit(monkeypatch, make_student):
    student, images = make_student(joined, LOW), pictures(7)
    expected = student.predict(images, ARITHMETICS["tflm"])[student.output]
    for num_images, sizes in ((0, [1] * 7), (2, [2, 2, 2, 1]), (100, [7])):
        monkeypatch.setattr(integer_graph, "BATCH_BYTES", num_images * 4 * student.largest_tensor)
        parts = list(IntegerGraph(student, ARITHMETICS["tflm"], 7).logits([images]))
        assert [len(part) for part in parts] == sizes
        np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("body", [kernels, joined])
def test_what_a_graph_holds_goes_with_it_and_needs_no_collector(monkeypatch, make_student, body):
    student, kept, exact = make_student(body, LOW), [], integer_graph._kept

    def kept_too(number):
        kept.append(weakref.ref(variable := exact(number)))
        return variable

    monkeypatch.setattr(integer_graph, "_kept", kept_too)
    gc.disable()
    try:
        list(IntegerGraph(student, ARITHMETICS["tflm"], 3).logits([pictures(3)]))
        assert kept and all(variable() is None for variable in kept)
    finally:
        gc.enable()
