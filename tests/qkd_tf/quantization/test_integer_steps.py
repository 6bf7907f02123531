"""Folded biases, worked out anew from BatchNormalization's variables, and ratios of requantization."""

import itertools
import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from tf_keras import layers

from qkd_tf.contract.fixed_point import multiply_rounding_twice, quantize_multiplier
from qkd_tf.contract.grid import activation_params, pixel_grid, signed_grid, unsigned_grid
from qkd_tf.experiment import ExperimentError, QuantizationSpec
from qkd_tf.quantization import integer_steps
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.integer_steps import (
    TIE_SHADE,
    lift_by_rounding_twice,
    ratio_in_256ths,
    round_biases,
    round_requantizations,
    round_slopes,
)
from qkd_tf.quantization.scheme import quantize_student

SPEC = QuantizationSpec(weight_bits=3, activation_bits=3)
# Compute layer -> the tensor that it reads, and the BatchNormalization behind it.
RESIDUAL = {
    "stem": ("normalization", "stem_bn"),
    "depthwise": ("stem_relu_requantize", "depthwise_bn"),
    "linear": ("depthwise_relu", "linear_bn"),
    "logits": ("pool", None),
}
CHAIN = {
    "conv_bias_bn": ("normalization", "bn1"),
    "depthwise_bias": ("relu1", None),
    "conv_unscaled": ("relu2", "bn2"),
    "conv_bias_relu": ("relu3", None),
    "logits": ("conv_bias_relu", None),
}


@pytest.fixture(params=["residual", "chain"])
def student_and_graph(request, make_residual_student, chain, randomize, images):
    """A calibrated student, and its graph as in the tables above."""
    if request.param == "residual":
        model, graph = make_residual_student(), RESIDUAL
    else:
        graph = CHAIN
        model = randomize(
            chain(
                layers.Rescaling(1 / 64, -2.0, name="normalization"),
                layers.Conv2D(4, 3, name="conv_bias_bn"),
                layers.BatchNormalization(name="bn1"),
                layers.ReLU(name="relu1"),
                layers.ZeroPadding2D(1, name="padding"),
                layers.DepthwiseConv2D(3, name="depthwise_bias"),
                layers.ReLU(name="relu2"),
                layers.Conv2D(4, 1, use_bias=False, name="conv_unscaled"),
                layers.BatchNormalization(scale=False, name="bn2"),
                layers.ReLU(name="relu3"),
                layers.MaxPooling2D(name="max_pool"),
                layers.Conv2D(4, 1, activation="relu", name="conv_bias_relu"),
                layers.Flatten(name="flatten"),
                layers.Dense(3, name="logits"),
            )
        )
    student = quantize_student(model, SPEC)
    calibrate(student, [images], "minmax")
    return student, graph


def folded(student, layer, batch_norm):
    """(folded bias, |factor|) of each channel in float64: y = factor * (conv + bias - mean) + beta."""
    layer = student.plain.get_layer(layer)
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else 0.0
    if batch_norm is None:
        return bias, np.ones_like(bias)
    bn = student.plain.get_layer(batch_norm)
    variance = bn.moving_variance.numpy().astype(np.float64)
    factor = (bn.gamma.numpy().astype(np.float64) if bn.scale else 1.0) / np.sqrt(variance + bn.epsilon)
    return bn.beta.numpy() + factor * (bias - bn.moving_mean.numpy()), np.abs(factor)


def steps_of(student, layer, tensor, factor):
    """Size of one integer step of the folded bias: weights lie at the top of int4, or of int8, and sums are as fine."""
    scale = student.pixels[1].scale if tensor == student.pixels[0] else float(student.outputs[tensor].interval.numpy())
    finer = {2: 4, 3: 2, 4: 1, 5: 8, 6: 4, 7: 2, 8: 1}[student.weights[layer].grid.num_bits]
    return scale * float(student.weights[layer].interval.numpy()) * factor / finer


def biases(student, graph):
    return {layer: folded(student, layer, bn)[0] for layer, (_, bn) in graph.items()}


def test_the_tables_name_every_compute_layer(student_and_graph):
    student, graph = student_and_graph
    assert set(graph) == set(student.weights)


def test_every_folded_bias_is_a_whole_number_of_steps_at_most_half_a_step_away(student_and_graph):
    student, graph = student_and_graph
    before = biases(student, graph)
    moved = []
    round_biases(student)
    for layer, (tensor, bn) in graph.items():
        after, factor = folded(student, layer, bn)
        steps = after / steps_of(student, layer, tensor, factor)
        np.testing.assert_allclose(steps, np.round(steps), atol=2e-3, err_msg=layer)
        moved.append(np.abs(after - before[layer]) / steps_of(student, layer, tensor, factor))
        assert moved[-1].max() <= 0.5 + 2e-3, layer
    assert np.concatenate(moved).max() > 0.25  # there was something to round


@hypothesis.given(st.integers(0, 2**20), st.floats(2.0**-20, 0.99))
def test_two_roundings_are_one_of_a_sum_that_is_larger_by_the_lift(total, ratio):
    """Of what is not negative, and not only on average: floors of floors are floors."""
    fixed, shift = quantize_multiplier(ratio)
    exact = Fraction(int(fixed), 2**31) * Fraction(2) ** int(shift)  # the ratio that the runtime has
    lift = Fraction(float(lift_by_rounding_twice(np.array(float(exact)), 1.0)))
    twice = multiply_rounding_twice(np.array([total]), fixed, shift)
    assert twice[0] == math.floor(total * exact + lift + Fraction(1, 2))


@pytest.mark.parametrize(
    "step, lift",
    [
        (1.0, 0.0),
        (0.5, 0.0),
        (0.499, 0.25),
        (0.25, 0.25),
        (0.249, 0.125),
        (0.13, 0.125),
        (0.125, 0.125),
        (0.01, 0.5**7),
    ],
)
def test_lift_is_half_of_what_the_second_rounding_divides_by(step, lift):
    np.testing.assert_allclose(lift_by_rounding_twice(np.array([2.0 * step]), 2.0), [2.0 * lift])


def test_biases_take_the_lift_off_where_the_output_has_no_sign(student_and_graph):
    student, graph = student_and_graph
    before, signed = biases(student, graph), []
    round_biases(student, rounds_twice=True)
    for layer, (tensor, bn) in graph.items():
        after, factor = folded(student, layer, bn)
        step = steps_of(student, layer, tensor, factor)
        output = integer_steps._output(student, student.plain.get_layer(layer)).params()
        signed.append(output.grid.qmin < 0)
        lift = 0.0 if signed[-1] else lift_by_rounding_twice(step, output.scale)
        assert np.all(np.abs(after - (before[layer] - lift)) <= (0.5 + 2e-3) * step), layer
        np.testing.assert_allclose(after / step, np.round(after / step), atol=2e-3, err_msg=layer)
    assert set(signed) == {False, True}


def test_nothing_but_biases_and_betas_moves(student_and_graph):
    student, _ = student_and_graph
    student.copy_weights_to_plain()
    before = {v.name: v.numpy() for v in student.plain.variables}
    intervals = [v.numpy() for v in student.weight_intervals + student.activation_intervals]
    round_biases(student)
    moved = {v.name for v in student.plain.variables if not np.array_equal(v.numpy(), before[v.name])}
    assert moved and all("bias" in name or "beta" in name for name in moved)
    assert [v.numpy() for v in student.weight_intervals + student.activation_intervals] == intervals


def test_float_and_quantized_student_get_the_same_biases(student_and_graph):
    student, _ = student_and_graph
    round_biases(student)
    plain = [v.numpy() for v in student.plain.variables]
    student.copy_weights_to_plain()  # from the quantized one
    for variable, value in zip(student.plain.variables, plain, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_latent_weights_of_the_quantized_student_are_the_ones_that_count(make_residual_student, images):
    student = quantize_student(make_residual_student(), SPEC)
    calibrate(student, [images], "minmax")
    kernel = student.weights["linear"].kernel
    kernel.assign(kernel + 1.0)
    expected = kernel.numpy()
    round_biases(student)
    np.testing.assert_array_equal(kernel.numpy(), expected)
    np.testing.assert_array_equal(student.plain.get_layer("linear").kernel.numpy(), expected)


def test_rounding_twice_changes_nothing_more(student_and_graph):
    student, graph = student_and_graph
    round_biases(student)
    first = biases(student, graph)
    round_biases(student)
    for layer, (tensor, bn) in graph.items():
        step = steps_of(student, layer, tensor, folded(student, layer, bn)[1])
        np.testing.assert_allclose((biases(student, graph)[layer] - first[layer]) / step, 0.0, atol=1e-3, err_msg=layer)


def test_a_bias_that_does_not_fit_int32_is_left_alone(chain, randomize, images):
    student = quantize_student(randomize(chain(layers.Flatten(), layers.Dense(3, name="logits"))), SPEC)
    calibrate(student, [images], "minmax")
    student.weights["logits"].interval.assign(1e-6)
    bias = student.plain.get_layer("logits").bias
    twin = next(v for v in student.model.variables if v.name.endswith("bias:0"))
    step = 1e-6 * student.pixels[1].scale
    twin.assign([2.0**32 * step, 0.3, -(2.0**32) * step])
    before = twin.numpy()
    round_biases(student)
    np.testing.assert_array_equal(bias.numpy()[[0, 2]], before[[0, 2]])


def test_a_dead_channel_is_no_trouble(make_residual_student, images):
    model = make_residual_student()
    gamma = model.get_layer("linear_bn").gamma
    gamma.assign(np.array([0.0, 1.0, -1.0, 1.0]))  # none of the channel, and one that is mirrored
    student = quantize_student(model, SPEC)
    calibrate(student, [images], "minmax")
    beta = student.plain.get_layer("linear_bn").beta.numpy()
    round_biases(student)
    after, factor = folded(student, "linear", "linear_bn")
    assert student.plain.get_layer("linear_bn").beta.numpy()[0] == beta[0]
    steps = after[1:] / steps_of(student, "linear", "depthwise_relu", factor[1:])
    np.testing.assert_allclose(steps, np.round(steps), atol=2e-3)


@pytest.mark.parametrize(
    "middle",
    [
        lambda: [layers.Activation("linear"), layers.BatchNormalization(name="bad")],
        lambda: [layers.BatchNormalization(), layers.BatchNormalization(name="bad")],
        lambda: [layers.BatchNormalization(center=False, name="bad")],
    ],
    ids=["identity_between", "two_batch_norms", "batch_norm_without_beta"],
)
def test_batch_norm_whose_bias_cannot_be_rounded_is_refused(chain, middle):
    model = chain(layers.Conv2D(4, 3), *middle(), layers.Flatten(), layers.Dense(2))
    with pytest.raises(ExperimentError, match="layer bad"):
        quantize_student(model, SPEC)


def xnnpack_requantize(q, ratio):
    """What XNNPACK's int8 QUANTIZE computes: a multiplier of 8 fractional bits, half up."""
    return (q * round(256 * ratio) + 128) >> 8


@hypothesis.given(
    source_bits=st.integers(5, 8),
    ratio=st.floats(1 / 300, 0.9),
    signed=st.booleans(),
    direction=st.sampled_from([np.ceil, np.floor]),
)
def test_training_and_xnnpack_requantize_every_integer_alike(source_bits, ratio, signed, direction):
    grid = (signed_grid if signed else unsigned_grid)(source_bits)
    source, target = activation_params(grid, 0.0371), activation_params(grid, 0.0371 / ratio)
    whole = ratio_in_256ths(source, target, direction)
    q = np.arange(grid.qmin, grid.qmax + 1)
    interval = np.float32(0.5)  # of the target; the source's follows, as in the student
    z = (np.float32(np.float64(interval) * whole) * q.astype(np.float32)) / interval
    np.testing.assert_array_equal(np.round(z).astype(int), xnnpack_requantize(q, whole))
    if direction is np.ceil:
        assert whole >= ratio * (1 - 1e-5)
    elif ratio > 3 / 256:
        assert whole <= ratio * (1 + 1e-5)
    assert abs(whole - ratio) * 256 <= 2 + 1e-3


@pytest.mark.parametrize(
    "grid, m, shade",
    [
        (signed_grid(8), 1, 0.0),
        (signed_grid(8), 3, -TIE_SHADE),
        (pixel_grid(200), 3, -TIE_SHADE),
        (pixel_grid(100), 3, TIE_SHADE),
        (unsigned_grid(8), 1, TIE_SHADE),
        (signed_grid(7), 1, TIE_SHADE),
    ],
)
@pytest.mark.parametrize("direction", [np.ceil, np.floor])
def test_ratio_has_the_shade_that_decides_its_ties_and_none_at_the_smallest(grid, m, shade, direction):
    source, target = activation_params(grid, m * 2.0**-10), activation_params(unsigned_grid(4), 0.25)
    assert ratio_in_256ths(source, target, direction) == m / 256 * (1 + shade)


def test_a_requantized_tensor_keeps_its_interval_and_the_finer_one_gives_way(make_residual_student, images):
    student = quantize_student(make_residual_student(), SPEC)
    calibrate(student, [images], "minmax")
    fine, coarse = (student.outputs[name].interval for name in ("stem_relu", "stem_relu_requantize"))
    before = fine.numpy(), coarse.numpy()
    round_requantizations(student)
    assert coarse.numpy() == before[1]
    assert before[0] <= fine.numpy() <= before[0] + 1.001 * coarse.numpy() / 256
    assert (256 * fine.numpy() / coarse.numpy()) % 1 == pytest.approx(0, abs=1e-3)
    once = fine.numpy()
    round_requantizations(student)
    assert fine.numpy() == pytest.approx(once, rel=1e-6)


def test_pixels_stay_and_their_requantized_copy_gives_way(chain, randomize, images):
    model = randomize(chain(layers.Conv2D(3, 3, name="conv"), layers.Flatten(), layers.Dense(2)))
    student = quantize_student(model, QuantizationSpec(first_layer_bits=4))
    calibrate(student, [images], "minmax")
    copy = student.outputs["pixels_requantize"].interval
    before = copy.numpy()
    round_requantizations(student)
    assert copy.numpy() >= before
    assert (256 / copy.numpy()) % 1 == pytest.approx(0, abs=1e-3)


RELUS = {
    "after pooling": lambda: [layers.ReLU(name="relu")],
    "that ends at 6": lambda: [layers.ReLU(6.0, name="relu")],
    "one after another": lambda: [layers.ReLU(name="first"), layers.ReLU(6.0, name="relu")],
    "read by a convolution": lambda: [layers.ReLU(name="relu"), layers.Conv2D(3, 1)],
}


@pytest.mark.parametrize("case", RELUS)
@pytest.mark.parametrize("factor", [1.0, 3.7])
def test_relu_of_its_own_is_a_whole_ratio_and_ends_at_6_at_the_latest(case, factor, chain, randomize, images):
    front = [layers.Rescaling(1 / 64, -2.0), layers.Conv2D(3, 3, name="conv"), layers.MaxPooling2D()]
    model = randomize(chain(*front, *RELUS[case](), layers.Flatten(), layers.Dense(2)))
    student = quantize_student(model, SPEC)
    calibrate(student, [images], "minmax")
    tensors = [student.outputs[name] for name in ("conv", "first", "relu") if name in student.outputs]
    tensors[0].interval.assign(tensors[0].interval * factor)
    round_requantizations(student)
    once = [tensor.params().scale for tensor in tensors]
    for source, target in itertools.pairwise(once):
        assert 256 * source / target == pytest.approx(round(256 * source / target), abs=1e-2)
    ends = [(tensor.params(), tensor.quantizer.largest_value) for tensor in tensors]
    assert all(largest is None or params.scale * params.grid.qmax <= largest * (1 + 1e-6) for params, largest in ends)
    round_requantizations(student)
    assert [tensor.params().scale for tensor in tensors] == pytest.approx(once, rel=1e-6)


@pytest.fixture(params=[0.3, 0.01, -0.2])
def sloped(request, chain, randomize, images):
    student = quantize_student(
        randomize(
            chain(
                layers.Rescaling(1 / 64, -2.0, name="normalization"),
                layers.Conv2D(4, 3, name="conv"),
                layers.LeakyReLU(request.param, name="leaky"),
                layers.Conv2D(4, 3, name="inner"),
                layers.PReLU(shared_axes=[1, 2], name="learned"),
                layers.Flatten(),
                layers.Dense(3, name="logits"),
            )
        ),
        SPEC,
    )
    calibrate(student, [images], "minmax")
    round_requantizations(student)
    return student


def test_a_slope_is_a_whole_number_of_256ths_of_the_output_of_which_the_ratio_is_one(sloped):
    before = float(sloped.plain.get_layer("leaky").alpha)
    round_slopes(sloped)
    ratio = float(sloped.outputs["conv"].interval) / float(sloped.outputs["leaky"].interval)
    slope = np.float32(sloped.plain.get_layer("leaky").alpha)
    assert 256 * ratio == pytest.approx(round(256 * ratio), rel=1e-5)
    steps = 256 * ratio * float(slope)
    assert round(steps) != 0 and steps == pytest.approx(round(steps), rel=1e-5)
    assert abs(slope - before) * 256 * ratio <= 0.5 + 1e-3
    assert abs(np.float32(ratio) * slope) >= np.float32(1 / 256)  # or XNNPACK would leave it to other kernels
    assert sloped.twin("leaky").alpha == slope


def test_slopes_that_are_trained_have_eight_bits_in_both_students(sloped):
    before = sloped.plain.get_layer("learned").alpha.numpy()
    round_slopes(sloped)
    slopes = sloped.plain.get_layer("learned").alpha.numpy()
    steps = slopes / np.abs(slopes).max() * 127
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    np.testing.assert_allclose(slopes, before, atol=np.abs(before).max() / 250)
    assert np.any(slopes != before)
    np.testing.assert_array_equal(sloped.twin("learned").alpha.numpy(), slopes)
    round_slopes(sloped)
    np.testing.assert_allclose(sloped.plain.get_layer("learned").alpha.numpy(), slopes, rtol=1e-6)


def test_a_student_that_has_predicted_predicts_by_the_slopes_that_were_rounded(sloped, images):
    before = sloped.model.predict_on_batch(images)
    sloped.plain.get_layer("leaky").alpha = sloped.twin("leaky").alpha = np.float32(0.9)
    round_slopes(sloped)
    assert not np.array_equal(sloped.model.predict_on_batch(images), before)
