"""Rounding of the runtimes: golden values at break points, laws against exact fractions.

That each row is its runtime's is shown in tests/tflite_export/inference/test_integer_reference.py.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf.contract.fixed_point import (
    multiply_rounding_once,
    multiply_rounding_twice,
    multiply_rounding_up_twice,
    quantize_multiplier,
    round_half_away,
)
from qkd_tf.contract.kinds import GROUPED_CONVOLUTION, POINTWISE_CONVOLUTION
from qkd_tf.contract.runtime_arithmetic import (
    ARITHMETICS,
    LITERT_REFERENCE,
    TFLM,
    XNNPACK,
    average_of_stored,
)

int32 = st.integers(-(2**24), 2**24)
ratios = st.floats(2.0**-20, 0.999)
scales = st.floats(2.0**-12, 4.0, width=32)


def half_away(x: Fraction) -> int:
    """Nearest integer, halves away from zero."""
    magnitude = int(abs(x) + Fraction(1, 2))
    return magnitude if x >= 0 else -magnitude


def half_up(x: Fraction) -> int:
    return int((x + Fraction(1, 2)).__floor__())


@pytest.mark.parametrize(
    "real, fixed, shift",
    [
        (0.5, 2**30, 0),
        (1.0, 2**30, 1),
        (0.75, 3 * 2**29, 0),
        (0.1875, 3 * 2**29, -2),
        (np.nextafter(1.0, 0.0), 2**30, 1),  # rounds up to 2^31 and is carried
        (2.0**-32, 2**30, -31),
        (2.0**-33, 0, 0),  # too small to count
    ],
)
def test_multiplier_at_break_points(real, fixed, shift):
    assert [int(part) for part in quantize_multiplier(real)] == [fixed, shift]


@given(ratios)
def test_multiplier_is_31_bits_near(real):
    fixed, shift = (int(part) for part in quantize_multiplier(real))
    assert 2**30 <= fixed < 2**31
    assert abs(Fraction(fixed) * Fraction(2) ** (shift - 31) - Fraction(real)) <= Fraction(real) / 2**30


@pytest.mark.parametrize(
    "x, real, once, twice, up_twice",
    [
        (7, 1 / 16, 0, 1, 1),  # 7/2 rounds to 4, and 4/8 to 1
        (8, 1 / 16, 1, 1, 1),
        (-8, 1 / 16, 0, -1, 0),
        (-7, 1 / 16, 0, 0, 0),  # -7/2 rounds up to -3
        (-9, 1 / 16, -1, -1, 0),  # -9/2 rounds up to -4, and -4/8 away from zero or up
        (-10, 1 / 16, -1, -1, -1),
        (6, 1 / 16, 0, 0, 0),
        (3, 2.0, 6, 6, 6),
        (-3, 0.5, -1, -1, -1),
    ],
)
def test_products_at_break_points(x, real, once, twice, up_twice):
    fixed, shift = quantize_multiplier(real)
    assert multiply_rounding_once(np.array(x), fixed, shift) == once
    assert multiply_rounding_twice(np.array(x), fixed, shift) == twice
    assert multiply_rounding_up_twice(np.array(x), fixed, shift) == up_twice


@given(int32, ratios)
def test_rounding_twice_is_the_two_roundings_of_gemmlowp(x, real):
    fixed, shift = (int(part) for part in quantize_multiplier(real))
    high = half_up(Fraction(x * fixed, 2**31))
    assert multiply_rounding_twice(np.array(x), fixed, shift) == half_away(Fraction(high, 2**-shift))
    assert multiply_rounding_up_twice(np.array(x), fixed, shift) == half_up(Fraction(high, 2**-shift))


@pytest.mark.parametrize(
    "runtime, conv, single, others",
    [
        ("litert", -1, -1, -1),
        ("litert_int4", 0, 0, -1),
        ("litert_int4_arm64", -1, -1, -1),
        ("litert_reference", -1, -1, -1),
        ("litert_reference_pointwise", -1, -1, -1),
        ("tflm", -1, -1, -1),
    ],
)
def test_kernels_stored_as_int4_have_a_rounding_of_their_own(runtime, conv, single, others):
    def steps(kind, int4):  # -9 sixteenths of a step
        arithmetic = ARITHMETICS[runtime].of(kind, int4)
        rescale = arithmetic.dense if kind == "FULLY_CONNECTED" else arithmetic.convolution
        return int(rescale(np.array([-9]), np.float32(0.5), np.float32(0.125), np.float32(1.0))[0])

    kinds = (GROUPED_CONVOLUTION, "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # one channel, no block of them
    kinds = ("CONV_2D", POINTWISE_CONVOLUTION, *kinds)
    assert [steps(kind, int4=True) for kind in kinds] == [conv, single, *[others] * 3]
    assert [steps(kind, int4=False) for kind in kinds] == [-1] * 5


def test_single_pixels_written_as_a_dense_layer_are_rounded_once_by_the_reference_kernels():
    """7 sixteenths of a step, which the first of two roundings takes to a half."""
    scales = np.float32(0.5), np.float32(0.125), np.float32(1.0)

    def steps(runtime, kind):
        return int(ARITHMETICS[runtime].of(kind, int4=True).convolution(np.array([7]), *scales)[0])

    assert [steps("litert_reference_pointwise", kind) for kind in (POINTWISE_CONVOLUTION, "CONV_2D")] == [0, 1]
    found = {runtime: steps(runtime, POINTWISE_CONVOLUTION) for runtime in ARITHMETICS}
    once = {"litert", "litert_int4_arm64", "litert_reference_pointwise"}
    assert found == {runtime: int(runtime not in once) for runtime in ARITHMETICS}


def test_int4_convolutions_are_rounded_once_on_arm64_half_up():
    """-8 and -24 sixteenths of a step are ties, 7 is none; a fused limit is no kernel of XNNPACK's."""
    arithmetic = ARITHMETICS["litert_int4_arm64"]
    int4 = arithmetic.of("CONV_2D", int4=True)
    assert int4 is arithmetic.of(POINTWISE_CONVOLUTION, int4=True)
    scales = np.float32(0.5), np.float32(0.125), np.float32(1.0)
    assert int4.convolution(np.array([-8, 7, -24]), *scales).tolist() == [0, 0, -1]
    assert (int4.limit(6.0, np.float32(2.4)), arithmetic.limit(6.0, np.float32(2.4))) == (3, 2)
    for kind in (GROUPED_CONVOLUTION, "DEPTHWISE_CONV_2D"):
        assert arithmetic.of(kind, int4=True) is ARITHMETICS["litert_int4"].of(kind, int4=True)


@given(st.integers(1, 20), int32, ratios)
def test_int4_depthwise_channels_round_half_up_twice_in_whole_blocks_of_eight(num_channels, x, real):
    """LiteRT's own kernel: vectors of eight channels, then a loop over those that are left, as TFLM."""
    arithmetic = ARITHMETICS["litert_int4"].of("DEPTHWISE_CONV_2D", int4=True)
    blocks = num_channels // 8 * 8
    for scales in (np.float32(real), np.full(num_channels, real, np.float32)):
        found = arithmetic.convolution(np.full((2, num_channels), x), np.float32(1), scales, np.float32(1))
        fixed, shift = quantize_multiplier(np.float64(np.float32(real)))
        assert np.all(found[:, :blocks] == multiply_rounding_up_twice(np.array(x), fixed, shift))
        assert np.all(found[:, blocks:] == multiply_rounding_twice(np.array(x), fixed, shift))
        assert found.shape == (2, num_channels)


@given(int32, ratios)
def test_rounding_once_is_nearest(x, real):
    fixed, shift = (int(part) for part in quantize_multiplier(real))
    assert multiply_rounding_once(np.array(x), fixed, shift) == half_up(Fraction(x * fixed, 2 ** (31 - shift)))


@pytest.mark.parametrize("x, rounded", [(0.5, 1), (-0.5, -1), (2.5, 3), (-2.4, -2), (0.0, 0)])
def test_half_away(x, rounded):
    assert round_half_away(x) == rounded


@pytest.mark.parametrize("runtime", ARITHMETICS)
@given(st.lists(int32, min_size=3, max_size=3), st.lists(scales, min_size=5, max_size=5))
def test_every_arithmetic_is_within_a_step_of_the_real_result(runtime, sums, s):
    arithmetic = ARITHMETICS[runtime]
    sums = np.array(sums)
    kernel_scales, output_scale = np.float32(s[:3]), np.float32(s[3] * 64)
    real = sums * (np.float64(np.float32(s[4])) * kernel_scales / output_scale)
    inside = np.abs(real) < 2**20  # where float32 still tells neighbours apart
    for rescale in (arithmetic.convolution, arithmetic.dense):
        result = rescale(sums, np.float32(s[4]), kernel_scales, output_scale)
        assert np.all(np.abs(result - real)[inside] <= 1.01)


@pytest.mark.parametrize("runtime", ARITHMETICS)
@given(st.integers(-255, 255), st.integers(-255, 255), scales, scales, scales)
def test_addition_is_nearest_to_within_a_few_millionths(runtime, a, b, a_scale, b_scale, output_scale):
    a_scale, b_scale, output_scale = (np.float32(scale) for scale in (a_scale, b_scale, output_scale))
    result = ARITHMETICS[runtime].add(np.array([a]), np.array([b]), a_scale, b_scale, output_scale)
    real = (a * np.float64(a_scale) + b * np.float64(b_scale)) / output_scale
    if abs(real) < 512:  # beyond that int8 saturates
        assert abs(result[0] - real) <= 0.5 + 2e-3


@pytest.mark.parametrize("runtime", ARITHMETICS)
@given(st.integers(1, 256), st.integers(0, 255), scales, st.tuples(*[st.integers(-128, 127)] * 2))
def test_mean_of_equal_numbers_is_that_number(runtime, count, q, scale, zero_points):
    scale = np.float32(scale)
    found = ARITHMETICS[runtime].mean(np.array([q * count]), count, scale, scale, *zero_points)
    assert abs(int(found[0]) - q) <= 1


@pytest.mark.parametrize("input_zero_point, ulps_to_the_next_step", [(-128, -1), (-64, 0), (0, 1)])
def test_xnnpacks_mean_of_what_is_nearly_a_tie_depends_on_the_zero_point(input_zero_point, ulps_to_the_next_step):
    """1271 / 64 steps of 0.11420043 are 153.4999994 of 0.014774914; the float32s from which LiteRT says 154."""
    first = _neighbour(np.float32(0.11420043), ulps_to_the_next_step)
    for scale, expected in ((_neighbour(first, -1), 153), (first, 154)):
        found = XNNPACK.mean(np.array([1271]), 64, scale, np.float32(0.014774914), input_zero_point, -128)
        assert found.tolist() == [expected]


def _neighbour(x: np.float32, ulps: int) -> np.float32:
    return (x.view(np.int32) + np.int32(ulps)).view(np.float32)


@given(st.integers(0, 255), st.integers(8, 256))
def test_xnnpack_requantizes_in_256ths_half_up(x, m):
    result = XNNPACK.requantize(np.array([x]), np.float32(m / 256), np.float32(1.0))
    assert result[0] == half_up(Fraction(x * m, 256))


def test_xnnpack_rounds_ties_to_even_and_tflm_away():
    sums, one = np.array([1, 3, 5, -1, -3]), np.float32(1.0)
    assert XNNPACK.convolution(sums, np.float32(0.5), one, one).tolist() == [0, 2, 2, 0, -2]
    assert TFLM.convolution(sums, np.float32(0.5), one, one).tolist() == [1, 2, 3, 0, -1]  # one rounding: half up


def test_litert_reference_is_tflm_but_for_dense():
    sums, scale, one = np.array([7, -8]), np.float32(1 / 16), np.float32(1.0)
    assert TFLM.dense(sums, scale, one, one).tolist() == [1, -1]
    assert LITERT_REFERENCE.dense(sums, scale, one, one).tolist() == [0, 0]
    assert LITERT_REFERENCE.convolution(sums, scale, one, one).tolist() == [1, -1]


@given(st.lists(st.integers(-255, 255), min_size=1, max_size=20), st.floats(2.0**-13, 4.0, width=32))
def test_logistic_is_within_a_step_of_the_exact_one(x, scale):
    x = np.array(x)
    real = 256 / (1 + np.exp(np.minimum(-x * np.float64(scale), 700.0)))
    exact = np.minimum(np.round(real), 255)
    is_tie = np.abs(real - np.floor(real) - 0.5) < 1e-4
    for tabled in (XNNPACK, LITERT_REFERENCE):
        steps = np.abs(tabled.logistic(x, scale) - exact)
        assert steps[~is_tie].max(initial=0) == 0 and steps.max() <= 1
    assert np.abs(TFLM.logistic(x, scale) - exact).max() <= 1


@pytest.mark.parametrize(
    "scale, x, exact, xnnpack, reference",  # as LiteRT gave it, with and without XNNPACK
    [
        (0.13497217, 22, 243.4999937, 244, 243),
        (0.13497217, -22, 12.5000063, 13, 13),
        (0.021377042, -81, 38.5000055, 38, 39),
        (0.1329273, 6, 176.5000050, 176, 177),
        (0.014871585, 103, 210.5000045, 210, 211),
    ],
)
def test_tables_of_the_logistic_differ_by_a_float_beside_ties(scale, x, exact, xnnpack, reference):
    assert 256 / (1 + np.exp(-x * np.float64(np.float32(scale)))) == pytest.approx(exact, abs=2e-5)
    assert XNNPACK.logistic(np.array([x]), np.float32(scale)) == [xnnpack]
    assert LITERT_REFERENCE.logistic(np.array([x]), np.float32(scale)) == [reference]


@pytest.mark.parametrize(
    "arithmetic, expected",
    [(XNNPACK, 1), (LITERT_REFERENCE, 1), (TFLM, 0)],  # as the three runtimes gave it; exactly 0.606
    ids=["litert", "litert_reference", "tflm"],
)
def test_logistic_where_the_runtimes_differ(arithmetic, expected):
    assert arithmetic.logistic(np.array([-3]), np.float32(2.0146303)) == [expected]


@pytest.mark.parametrize("arithmetic", [XNNPACK, TFLM], ids=["litert", "tflm"])
def test_logistic_of_nothing_is_a_half_and_ends_are_held(arithmetic):
    assert arithmetic.logistic(np.array([-250, 0, 250]), np.float32(0.25)).tolist() == [0, 128, 255]


def test_product_is_rounded_once_or_twice():
    a, b = np.array([3, -3, 5]), np.array([1, 1, 1])
    assert XNNPACK.multiply(a, b, 0.5, 0.5, 0.5).tolist() == [2, -2, 2]  # 1.5, -1.5 and 2.5, half to even
    assert TFLM.multiply(a, b, 0.5, 0.5, 0.5).tolist() == [2, -1, 3]  # half up, as its one shift rounds


def test_reference_kernels_take_the_ratio_of_a_product_in_float32():
    """Of 11.4961 one rounding makes 12, the other 11, since the first of two falls on either side of 1471.5."""
    scales = np.float32([0.13962110877037048, 0.00390625, 0.11371790617704391])
    products = [row.multiply(np.array([47]), np.array([51]), *scales).tolist() for row in (TFLM, LITERT_REFERENCE)]
    assert products == [[11], [12]]


@pytest.mark.parametrize("kind", ["leaky_relu", "prelu"])
@pytest.mark.parametrize("runtime", ARITHMETICS)
@given(
    st.integers(-255, 255), st.sampled_from([0.3, 0.1, 0.01, 2.0, -0.5]), scales, st.floats(0.5, 2.0), st.integers(1, 9)
)
def test_slopes_are_exact_to_a_step(runtime, kind, x, slope, input_scale, ratio, integer):
    """Half a step of rounding, a little of rounding twice, and in 256ths a quarter of a step for every 128."""
    output_scale = np.float32(input_scale) / np.float32(ratio)
    integer = 1 if kind == "leaky_relu" else integer
    found = getattr(ARITHMETICS[runtime], kind)(
        np.array([x]), integer, np.float32(slope / integer), np.float32(input_scale), output_scale
    )
    assert abs(found[0] - x * np.float64(input_scale) / output_scale * (slope if x < 0 else 1)) <= 1.01


@pytest.mark.parametrize(
    "runtime, expected",
    [
        ("litert", [4, 0, -1, 0]),  # 205/256 and 31/256: -4 make 124/256
        ("litert_reference", [4, 0, -1, -1]),  # -0.48 rounds to -4/8, and that to -1
        ("tflm", [4, 0, -1, -1]),
    ],
)
def test_leaky_relu_has_these_values(runtime, expected):
    one = np.float32(1)
    found = ARITHMETICS[runtime].leaky_relu(np.array([5, 0, -8, -4]), 1, np.float32(0.15), np.float32(0.8), one)
    assert found.tolist() == expected


def test_leaky_relu_rounds_a_half_up_in_256ths_and_away_from_zero_in_fixed_point():
    found = [
        row.leaky_relu(np.array([1, 3, -1, -2, -3, -6]), 1, np.float32(0.5), np.float32(0.5), np.float32(1)).tolist()
        for row in (XNNPACK, TFLM, LITERT_REFERENCE)
    ]
    assert found[0] == [1, 2, 0, 0, -1, -1]  # 1/2, 3/2, then -1/4, -1/2, -3/4, -3/2
    assert found[1] == found[2] == [1, 2, 0, -1, -1, -2]


def test_a_slope_in_256ths_is_the_nearest():
    x, one = np.array([-256]), np.float32(1)
    assert XNNPACK.leaky_relu(x, 1, np.float32(0.01), one, one) == [-3]  # 2.56
    assert TFLM.leaky_relu(x, 1, np.float32(0.01), one, one) == [-3]
    assert XNNPACK.leaky_relu(x * 100, 1, np.float32(0.01), one, one) == [-300]
    assert TFLM.leaky_relu(x * 100, 1, np.float32(0.01), one, one) == [-256]


def test_each_channel_has_its_slope():
    x, one = np.array([[4, -4, -4, -4]]), np.float32(1)
    for row in (XNNPACK, TFLM, LITERT_REFERENCE):
        assert row.prelu(x, np.array([7, 1, 2, -3]), np.float32(0.5), one, one).tolist() == [[4, -2, -4, 6]]


def test_addition_far_out_of_proportion_is_still_computed():
    """A student that has not learned yet may ask for it; the exporter refuses such scales by name."""
    assert XNNPACK.add(np.array([1]), np.array([0]), 2.0**22, 1.0, 1.0) > 255


@pytest.mark.parametrize(
    "total, count, expected",
    [
        (3, 2, 2),
        (-3, 2, -2),
        (1, 2, 1),
        (-1, 2, -1),
        (4, 9, 0),
        (5, 9, 1),
        (-5, 9, -1),
        (-4, 9, 0),
        (0, 4, 0),
        (-512, 4, -128),
    ],
)
def test_an_average_of_stored_integers_rounds_a_half_away_from_zero(total, count, expected):
    assert average_of_stored(np.array([total]), count) == [expected]


@given(total=st.integers(-128 * 400, 127 * 400), count=st.integers(1, 400))
def test_an_average_of_stored_integers_is_that_of_fractions(total, count):
    assert average_of_stored(np.array(total), count) == half_away(Fraction(total, count))
