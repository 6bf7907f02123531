"""The student in integers: against the quantized Keras student, and against sums worked out by hand.

That a file computes the same integers is shown in tests/tflite_export/inference/test_integer_reference.py.
"""

import numpy as np
import pytest
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from tf_keras import layers

from qkd_tf.contract.grid import quantize, signed_grid
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS, LITERT_REFERENCE, TFLM, XNNPACK
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.integer_steps import put_on_integer_steps
from qkd_tf.quantization.integer_student import (
    FLOAT32_EXACT,
    IntegerStudent,
    _float_type,
    integer_sums,
    window_counts,
)
from qkd_tf.quantization.scheme import quantize_student


@pytest.fixture
def pixel_student(chain):
    """pixel_student(*layers, spec, outputs, weights): reads a pixel of one channel; intervals not given are 1.0.

    The first layer hands the pixel on as it is, so that `layers` are neither the first nor the last ones.
    """

    def make(*body, spec, outputs, weights=None):
        same = layers.Conv2D(1, 1, activation="relu", kernel_initializer="ones", name="same")
        student = quantize_student(chain(same, *body, layers.Conv2D(1, 1, name="last"), input_shape=(1, 1, 1)), spec)
        for name, interval in outputs.items():
            student.outputs[name].interval.assign(interval)
        for name, interval in (weights or {}).items():
            student.weights[name].interval.assign(interval)
        put_on_integer_steps(student)
        return IntegerStudent(student)

    return make


def pixels(*values):
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


def constant(*values):
    return tf_keras.initializers.Constant(values)


@pytest.mark.parametrize("seed", range(3))
def test_every_tensor_of_the_quantized_student_is_predicted(make_quantized_student, images, seed):
    student = make_quantized_student(seed)
    put_on_integer_steps(student)
    twin = student.model
    tensors = {name: student.tensor(name) for name in student.outputs}
    values = tf_keras.Model(twin.inputs, tensors)(images, training=False)
    predicted = IntegerStudent(student).predict(images.astype(np.uint8), XNNPACK)
    for name, quantized in student.outputs.items():
        np.testing.assert_array_equal(predicted[name], quantize(values[name].numpy(), quantized.params()), name)
    np.testing.assert_array_equal(predicted["normalization"], images - 128)
    np.testing.assert_array_equal(values["logits"], twin(images, training=False))


@pytest.mark.parametrize(
    "weight_bits, arithmetic, steps",
    [
        (8, XNNPACK, [0, 0, 1, 2]),
        (8, TFLM, [0, 1, 1, 3]),  # 7/2 rounds up to 4, and 4/8 up to 1
        (8, LITERT_REFERENCE, [0, 1, 1, 3]),
        (3, XNNPACK, [0, 0, 1, 2]),
        (3, TFLM, [0, 0, 1, 3]),  # sums are twice as fine: 14/2 is 7, and 7/16 rounds to 0
    ],
)
def test_a_convolution_by_hand_in_the_rounding_of_each_runtime(pixel_student, weight_bits, arithmetic, steps):
    conv = layers.Conv2D(1, 1, kernel_initializer=constant(1.5), bias_initializer=constant(-2.5), name="conv")
    spec = QuantizationSpec(weight_bits=weight_bits, activation_bits=8)
    student = pixel_student(conv, spec=spec, outputs={"conv": 8.0}, weights={"conv": 0.5})
    # Sums 3 * x - 5 in steps of 0.5 are -5, 7, 10 and 40, and 16 of them are a step of the output.
    assert student.predict(pixels(0, 4, 5, 15), arithmetic)["conv"].ravel().tolist() == steps


@pytest.mark.parametrize("runtime", ARITHMETICS)
@pytest.mark.parametrize(
    "make_layers",
    [
        lambda: [layers.Conv2D(4, 1, use_bias=False, kernel_initializer="ones")],
        lambda: [
            layers.Conv2D(2, 1, kernel_initializer="ones"),
            layers.Conv2D(4, 1, groups=2, use_bias=False, kernel_initializer="ones"),
        ],
        lambda: [
            layers.Conv2D(4, 1, kernel_initializer="ones"),
            layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones"),
        ],
        lambda: [
            layers.Conv2D(2, 1, kernel_initializer="ones"),
            layers.DepthwiseConv2D(1, depth_multiplier=2, use_bias=False, depthwise_initializer="ones"),
        ],
    ],
    ids=["Conv2D", "groups", "DepthwiseConv2D", "depth_multiplier"],
)
def test_gamma_of_0_leaves_the_constant_beta_and_a_negative_one_flips_the_sign(pixel_student, make_layers, runtime):
    gamma, beta = constant(0, 0, 1, -1), constant(2.3, -2.3, 1, 1)
    batch_norm = layers.BatchNormalization(epsilon=0.0, gamma_initializer=gamma, beta_initializer=beta, name="bn")
    student = pixel_student(*make_layers(), batch_norm, spec=QuantizationSpec(activation_bits=8), outputs={"bn": 0.5})
    steps = student.predict(pixels(0, 9, 200), ARITHMETICS[runtime])["bn"].reshape(3, 4)
    assert steps.tolist() == [[5, -5, 2, 2], [5, -5, 20, -16], [5, -5, 127, -128]]


@pytest.mark.parametrize("runtime", ARITHMETICS)
@pytest.mark.parametrize(
    "interval, highest",
    [(0.7, 9), (0.9, 7), (0.3, 15), (2.4, {"litert": 2})],
    ids=["up", "down", "more than 4 bits hold", "half a step"],
)
def test_relu6_clips_at_0_and_at_the_step_nearest_to_6(pixel_student, interval, highest, runtime):
    conv = layers.Conv2D(1, 1, kernel_initializer="ones", bias_initializer=constant(-3))
    relu6 = layers.ReLU(6.0, name="relu6")
    spec = QuantizationSpec(activation_bits=4, last_layer_bits=4)
    student = pixel_student(conv, relu6, spec=spec, outputs={"relu6": interval})
    stored = student.predict(pixels(0, 3, 255), ARITHMETICS[runtime])["relu6"].ravel()
    assert (stored - student.params["relu6"].zero_point).tolist() == [
        0,
        0,
        highest if isinstance(highest, int) else highest.get(runtime, 3),
    ]


def test_layers_that_move_integers_keep_them_and_their_parameters(chain, randomize, images):
    body = [layers.Conv2D(4, 3, name="conv"), layers.MaxPooling2D(name="max"), layers.ZeroPadding2D(name="pad")]
    model = randomize(chain(*body, layers.Conv2D(2, 1, name="last")))
    student = quantize_student(model, QuantizationSpec())
    calibrate(student, [images], "minmax")
    put_on_integer_steps(student)
    student = IntegerStudent(student)
    params = student.params["conv"]
    assert student.params["max"] == student.params["pad"] == params and params.grid == signed_grid(8)
    predicted = student.predict(images.astype(np.uint8), XNNPACK)
    windows = predicted["conv"].reshape(4, 3, 2, 3, 2, 4).max(axis=(2, 4))
    np.testing.assert_array_equal(predicted["max"], windows)
    zeros = ((0, 0), (1, 1), (1, 1), (0, 0))
    np.testing.assert_array_equal(predicted["pad"], np.pad(windows, zeros, constant_values=params.zero_point))


@pytest.mark.parametrize("runtime", ARITHMETICS)
def test_integers_of_every_tensor_lie_on_its_grid_and_reach_an_end_of_it(make_residual_student, images, runtime):
    spec = QuantizationSpec(weight_bits=3, activation_bits=4, last_layer_bits=4, residual_bits=5)
    student = quantize_student(make_residual_student(), spec)
    calibrate(student, [images], "minmax")
    for quantized in student.outputs.values():
        quantized.interval.assign(quantized.interval / 4)  # most of each range is now beyond the ends
    put_on_integer_steps(student)
    student = IntegerStudent(student)
    predicted = student.predict(images.astype(np.uint8), ARITHMETICS[runtime])
    assert set(predicted) == set(student.params)
    for name, stored in predicted.items():
        params = student.params[name]
        assert params.stored_min <= stored.min() <= stored.max() <= params.stored_max, name
        assert stored.min() == params.stored_min or stored.max() == params.stored_max, name


@pytest.mark.parametrize("num_inputs", [500, 3000])
def test_sums_are_exact_on_either_side_of_what_float32_holds(num_inputs):
    rng = np.random.default_rng(0)
    x = rng.integers(200, 256, (50, num_inputs))
    codes = rng.integers(100, 128, (num_inputs, 4))
    sums = x @ codes
    assert (sums.max() > FLOAT32_EXACT) == (num_inputs == 3000)
    assert np.any(sums.astype(np.float32) != sums) == (num_inputs == 3000)
    exact = _float_type(255 * codes.sum(axis=0).max())
    assert (exact is np.float64) == (num_inputs == 3000)
    np.testing.assert_array_equal(integer_sums(layers.Dense(4), x.astype(exact), codes.astype(exact)), sums)


@given(st.data())
def test_sums_of_groups_and_of_depth_multipliers_by_their_definition(data):
    """A filter of a group reads that group's channels; channel c of a depthwise kernel makes c * m to c * m + m - 1."""
    groups, per_group, filters = (data.draw(st.integers(1, 3), label=n) for n in ("groups", "per_group", "filters"))
    stride, window = data.draw(st.integers(1, 2), label="stride"), data.draw(st.integers(1, 3), label="window")
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    x = rng.integers(-255, 256, (2, 5, 5, groups * per_group))
    if data.draw(st.booleans(), label="depthwise"):
        per_group = x.shape[-1] // (groups := x.shape[-1])
        layer = layers.DepthwiseConv2D(window, stride, depth_multiplier=filters)
        codes = rng.integers(-7, 8, (window, window, groups, filters))
        kernels = codes.reshape(window, window, 1, -1)
    else:
        layer = layers.Conv2D(groups * filters, window, stride, groups=groups)
        codes = kernels = rng.integers(-7, 8, (window, window, per_group, groups * filters))
    expected = np.empty((2, *[(5 - window) // stride + 1] * 2, groups * filters), int)
    for row, column, channel in np.ndindex(expected.shape[1:]):
        first = channel // filters * per_group
        patch = x[:, row * stride :, column * stride :, first : first + per_group][:, :window, :window]
        expected[:, row, column, channel] = (patch * kernels[..., channel]).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(integer_sums(layer, x.astype(np.float32), codes.astype(np.float32)), expected)


def test_arithmetics_together_give_what_each_gives_alone_and_share_what_they_agree_on(make_quantized_student, images):
    student = make_quantized_student()
    put_on_integer_steps(student)
    student, pixels = IntegerStudent(student), images.astype(np.uint8)
    together = dict(zip(ARITHMETICS, student.predict_each(pixels, ARITHMETICS.values()), strict=True))
    for runtime, arithmetic in ARITHMETICS.items():
        alone = student.predict(pixels, arithmetic)
        assert alone.keys() == together[runtime].keys()
        for name, stored in alone.items():
            np.testing.assert_array_equal(together[runtime][name], stored, f"{runtime}/{name}")
    reference, tflm = together["litert_reference"], together["tflm"]  # of these layers only Dense rounds differently
    assert {name for name in tflm if tflm[name] is not reference[name]} == {"logits"}
    assert np.any(together["litert"]["add"] != tflm["add"])


@pytest.mark.parametrize("inputs, options, is_single", [(4, {}, True), (3, {}, False), (4, {"strides": 2}, False)])
def test_single_pixels_of_an_even_number_of_inputs_are_written_as_a_dense_layer(
    pixel_student, inputs, options, is_single
):
    rows = [ARITHMETICS["litert_reference"], ARITHMETICS["litert_reference_pointwise"]]
    for bits in (4, 8):
        body = layers.Conv2D(inputs, 1), layers.Conv2D(3, 1, name="single", **options)
        spec = QuantizationSpec(weight_bits=bits)
        student = pixel_student(*body, spec=spec, outputs={}, weights={"single": 0.001})
        rounded = [[rounding for rounding, _ in student.rules(row)] for row in rows]
        *_, single, last = [plain != pointwise for plain, pointwise in zip(*rounded, strict=True)]
        assert (single, last) == (is_single and bits == 4, False)


@pytest.mark.parametrize(
    "size, window, strides, expected",
    [
        ((3, 3), 3, 1, [[4, 6, 4], [6, 9, 6], [4, 6, 4]]),
        ((3, 3), 2, 1, [[4, 4, 2], [4, 4, 2], [2, 2, 1]]),  # "same" pads after, where it cannot do so on both sides
        ((4, 5), (3, 2), (2, 2), [[6, 6, 3], [4, 4, 2]]),
        ((2, 2), 5, 2, [[4]]),
    ],
)
def test_a_window_counts_the_pixels_that_are_there(size, window, strides, expected):
    layer = layers.AveragePooling2D(window, strides, "same")
    layer(tf_keras.Input((*size, 3)))
    np.testing.assert_array_equal(window_counts(layer)[0, :, :, 0], expected)


def test_an_average_of_what_is_there_rounds_twice_as_worked_out_by_hand(chain):
    """2 x 2 pixels under a window of 2 x 2: averages of 4, 2, 2 and 1 of them, in steps of 1; then in steps of 2."""
    same = layers.Conv2D(1, 1, activation="relu", kernel_initializer="ones", name="same")
    pool = layers.AveragePooling2D(2, 1, "same", name="pool")
    body = (same, pool, layers.Conv2D(1, 1, name="last"))
    student = quantize_student(chain(*body, input_shape=(2, 2, 1)), QuantizationSpec(last_layer_bits=8))
    for name, interval in {"same": 1.0, "pool": 2.0}.items():
        student.outputs[name].interval.assign(interval)
    put_on_integer_steps(student)
    assert (float(student.outputs["same"].interval), float(student.outputs["pool"].interval)) == pytest.approx((1, 2))
    images = np.array([[3, 4], [6, 13]], np.uint8).reshape(1, 2, 2, 1)
    # 26 / 4 = 6.5, 17 / 2 = 8.5, 19 / 2 = 9.5. As they are stored, 128 less, they are negative, and a half goes down,
    # away from zero: 6, 8, 9, 13; in halves 3, 4, 4.5 and 6.5, and XNNPACK rounds these up.
    predicted = IntegerStudent(student).predict(images, XNNPACK)["pool"]
    np.testing.assert_array_equal(predicted.reshape(2, 2).astype(int) + 128, [[3, 4], [5, 7]])
