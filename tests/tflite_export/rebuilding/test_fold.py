import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf.contract.batch_norm import BatchNorm
from tflite_export.export_error import ExportError
from tflite_export.rebuilding.fold import fold

INPUT_SCALE, OUTPUT_SCALE = 0.125, 0.5


def column(*codes) -> np.ndarray:
    """A 1x1 kernel of one input channel."""
    return np.array([codes], np.int8)


def batch_norm(gamma, beta=0.0, mean=0.0, variance=1.0, epsilon=0.0) -> BatchNorm:
    size = np.ones(len(gamma))
    return BatchNorm(np.array(gamma), beta * size, mean * size, variance * size, epsilon)


def fold_here(codes, scale, bias, norm=None, shift=0):
    return fold("conv7", codes, scale, shift, np.asarray(bias, np.float64), norm, INPUT_SCALE, OUTPUT_SCALE)


def test_without_batch_norm_integers_and_scale_stay_and_the_bias_is_in_steps():
    # step = 0.125 * 0.25 = 1/32
    folded = fold_here(column(3, -2, 0), 0.25, [1.0, -0.5, 1 / 32])
    np.testing.assert_array_equal(folded.codes, [[3, -2, 0]])
    assert folded.scales.tolist() == [0.25]
    assert folded.bias.tolist() == [32, -16, 1]
    assert (folded.codes.dtype, folded.scales.dtype, folded.bias.dtype) == (np.int8, np.float32, np.int32)
    assert folded.dead_channels == ()


def test_batch_norm_goes_into_scale_sign_and_bias():
    # a = gamma / sqrt(variance + epsilon) = [2, -4, 0.5] / sqrt(3 + 1) = [1, -2, 0.25]
    norm = batch_norm([2.0, -4.0, 0.5], beta=1.0, mean=3.0, variance=3.0, epsilon=1.0)
    folded = fold_here(column(3, -2, 1), 0.5, [5.0, 5.0, 5.0], norm)
    np.testing.assert_array_equal(folded.codes, [[3, 2, 1]])
    assert folded.scales.tolist() == [0.5, 1.0, 0.125]
    # bias = beta + a * (bias - mean) = 1 + a * 2 = [3, -3, 1.5], steps 0.125 * scale = [1/16, 1/8, 1/64]
    assert folded.bias.tolist() == [48, -24, 96]
    assert folded.dead_channels == ()


def test_integers_of_a_whole_kernel_are_untouched_but_for_the_sign_of_their_channel():
    codes = np.random.default_rng(0).integers(-127, 128, (3, 2, 5, 4)).astype(np.int8)
    kept = codes.copy()
    folded = fold_here(codes, 0.01, np.zeros(4), batch_norm([0.3, -0.3, 1e-3, -7.0]))
    np.testing.assert_array_equal(folded.codes, kept * np.array([1, -1, 1, -1], np.int8))
    np.testing.assert_array_equal(codes, kept)


@pytest.mark.parametrize(
    "steps, expected", [(1.49, 1), (1.5, 2), (2.5, 2), (2.51, 3), (-0.49, 0), (-0.51, -1), (123456.4, 123456)]
)
def test_bias_is_rounded_to_the_nearest_step_half_to_even(steps, expected):
    step = INPUT_SCALE * 0.25
    assert fold_here(column(1), 0.25, [steps * step]).bias.tolist() == [expected]


def test_shift_makes_integers_larger_and_their_steps_smaller():
    norm = batch_norm([2.0, -4.0], beta=1.0, variance=4.0)
    bias = 0.5 + 0.25 * INPUT_SCALE * 0.5  # a quarter of a step: whole behind the shift
    plain = fold_here(column(1, -1), 0.5, [bias, 0.5], norm)
    shifted = fold_here(column(1, -1), 0.5, [bias, 0.5], norm, shift=2)
    np.testing.assert_array_equal(shifted.codes, [[4, 4]])
    assert shifted.scales.tolist() == [0.125, 0.25]
    assert (plain.bias.tolist(), shifted.bias.tolist()) == ([24, 0], [97, 0])
    assert (shifted.codes.dtype, shifted.scales.dtype, shifted.bias.dtype) == (np.int8, np.float32, np.int32)


def test_bias_that_only_a_shift_takes_out_of_int32_is_refused():
    step = INPUT_SCALE * 0.25
    bias = [2**29 * step]
    assert fold_here(column(1), 0.25, bias).bias.tolist() == [2**29]
    with pytest.raises(ExportError, match=r"the bias of channels \[0\] does not fit int32"):
        fold_here(column(1), 0.25, bias, shift=2)


@pytest.mark.parametrize("beta", [3.0, -3.0, 1e-3, 0.0])
def test_gamma_of_zero_makes_a_constant_channel_of_the_right_value(beta):
    folded = fold_here(column(5, 5), 0.25, [2.0, 2.0], batch_norm([0.0, 1.0], beta=beta, mean=0.5))
    assert folded.dead_channels == (0,)
    np.testing.assert_array_equal(folded.codes, [[0, 5]])
    assert folded.scales[0] > 0
    assert folded.bias[0] * INPUT_SCALE * float(folded.scales[0]) == pytest.approx(beta, abs=1e-6)
    assert folded.scales[1] == 0.25  # the living channel is left alone


def test_channel_too_small_to_matter_is_dropped_where_its_bias_would_not_fit():
    # 5 * 255 * step = 1275 * 0.125 * 0.25 * 1e-10 is nothing beside an output step of 0.5; 3 / step is 1e12.
    folded = fold_here(column(5), 0.25, [0.0], batch_norm([1e-10], beta=3.0))
    assert folded.dead_channels == (0,)
    assert folded.codes.item() == 0
    assert folded.bias.item() * INPUT_SCALE * float(folded.scales[0]) == pytest.approx(3.0, abs=1e-6)


def test_tiny_channel_whose_bias_fits_is_kept():
    folded = fold_here(column(5), 0.25, [0.0], batch_norm([1e-6], beta=3.0))
    assert folded.dead_channels == ()
    assert folded.codes.item() == 5


def test_bias_that_leaves_int32_is_refused_with_layer_and_channel():
    # step = 0.125 * 0.25: int32 ends at 2^31 / 32 = 6.7e7
    with pytest.raises(ExportError, match=r"layer conv7: the bias of channels \[1\] does not fit int32") as caught:
        fold_here(column(127, 127), 0.25, [0.0, 7e7])
    assert "\n" not in str(caught.value)


def test_room_for_the_sum_is_kept_beside_the_bias():
    # The bias alone fits int32, the bias and 4 * 127 * 255 more do not: the accumulator would wrap.
    step = INPUT_SCALE * 0.25
    codes = np.full((4, 1), 127, np.int8)
    with pytest.raises(ExportError, match="conv7"):
        fold_here(codes, 0.25, [(2**31 - 1000) * step])
    largest = 2**31 - 1 - 4 * 127 * 255
    assert fold_here(codes, 0.25, [largest * step]).bias.tolist() == [largest]


finite = {"allow_nan": False, "allow_infinity": False}


@given(
    codes=st.lists(st.integers(-127, 127), min_size=1, max_size=12),
    inputs=st.lists(st.integers(0, 255), min_size=12, max_size=12),
    gamma=st.floats(-4, 4, **finite).filter(lambda g: abs(g) > 1e-3),
    beta=st.floats(-10, 10, **finite),
    bias=st.floats(-10, 10, **finite),
    mean=st.floats(-10, 10, **finite),
    variance=st.floats(1e-3, 100, **finite),
    scale=st.floats(1e-3, 1, **finite),
    shift=st.integers(0, 2),
)
def test_integer_sum_is_the_float_network_to_half_a_step(
    codes, inputs, gamma, beta, bias, mean, variance, scale, shift
):
    x = np.array(inputs[: len(codes)])
    norm = batch_norm([gamma], beta, mean, variance, 1e-3)
    kernel = (np.array(codes) / 2**shift).astype(np.int8)[:, np.newaxis]  # shifted, it is -127..127 again
    codes = kernel[:, 0].tolist()
    folded = fold_here(kernel, scale, [bias], norm, shift)

    convolution = sum(INPUT_SCALE * int(q) * scale * c for q, c in zip(x, codes, strict=True)) + bias
    expected = gamma * (convolution - mean) / np.sqrt(variance + 1e-3) + beta

    step = INPUT_SCALE * float(folded.scales[0])
    accumulator = int(x @ folded.codes[:, 0].astype(int)) + int(folded.bias[0])
    # half a step for the bias; scale is held in float32, 2^-24 of the whole
    tolerance = 0.5 * step * (1 + 1e-6) + 2.0**-23 * step * (abs(accumulator) + abs(int(folded.bias[0])) + 1)
    assert abs(accumulator * step - expected) <= tolerance


def test_folding_twice_gives_the_same_values():
    arguments = column(3, -2), 0.25, [1.0, 2.0], batch_norm([2.0, -1.0], 0.5)
    first, second = (dataclasses.asdict(fold_here(*arguments)) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
