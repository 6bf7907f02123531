import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qkd_tf.contract import grid as g

BITS = range(g.MIN_BITS, g.MAX_BITS + 1)
FULL = [g.weight_grid(bits, narrow_range=False) for bits in BITS]
UNEVEN = [g.activation_grid(b, 1 / 7) for b in BITS]
GRIDS = [make(b) for b in BITS for make in (g.weight_grid, g.unsigned_grid, g.signed_grid)] + FULL + UNEVEN
VALUES = arrays(np.float32, 12, elements=st.floats(-1000, 1000, width=32))
INTERVALS = st.floats(2**-10, 16, width=32)


def params_of(grid, interval):
    return g.activation_params(grid, interval)


@pytest.mark.parametrize(
    "grid, qmin, qmax",
    [
        (g.weight_grid(2), -1, 1),
        (g.weight_grid(3), -3, 3),
        (g.weight_grid(4), -7, 7),
        (g.weight_grid(8), -127, 127),
        (g.weight_grid(2, narrow_range=False), -2, 1),
        (g.weight_grid(7, narrow_range=False), -64, 63),
        (g.weight_grid(8, narrow_range=False), -127, 127),
        (g.unsigned_grid(2), 0, 3),
        (g.unsigned_grid(4), 0, 15),
        (g.unsigned_grid(8), 0, 255),
        (g.signed_grid(2), -1, 1),
        (g.signed_grid(4), -7, 7),
        (g.signed_grid(7), -63, 63),
        (g.signed_grid(8), -128, 127),
        (g.activation_grid(4, 0.0), 0, 15),
        (g.activation_grid(4, 1.0), -7, 7),
        (g.activation_grid(2, 1 / 7), -1, 2),
        (g.activation_grid(3, 1 / 7), -1, 6),
        (g.activation_grid(4, 1 / 7), -2, 13),
        (g.activation_grid(7, 1 / 7), -16, 111),
        (g.activation_grid(8, 1 / 7), -128, 127),
        (g.activation_grid(4, 0.3), -3, 12),
        (g.activation_grid(4, 0.01), -1, 14),
        (g.activation_grid(4, 0.99), -7, 8),
        (g.pixel_grid(0), 0, 255),
        (g.pixel_grid(128), -128, 127),
        (g.pixel_grid(254), -254, 1),
    ],
)
def test_grid_has_the_range_of_the_method(grid, qmin, qmax):
    assert (grid.qmin, grid.qmax) == (qmin, qmax)
    assert grid.num_levels == qmax - qmin + 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: g.weight_grid(1), "bit width of 1"),
        (lambda: g.unsigned_grid(9), "bit width of 9"),
        (lambda: g.IntegerGrid(4, 1, 7), "must hold 0"),
        (lambda: g.IntegerGrid(4, -7, 0), "must hold 0"),
        (lambda: g.IntegerGrid(4, -8, 8), r"more than 2\^4 levels"),
        (lambda: g.pixel_grid(-1), "0..254, got -1"),
        (lambda: g.pixel_grid(255), "0..254, got 255"),
        (lambda: g.activation_params(g.unsigned_grid(4), 0.0), "positive and finite"),
        (lambda: g.activation_params(g.unsigned_grid(4), -0.5), "positive and finite"),
        (lambda: g.activation_params(g.unsigned_grid(4), float("inf")), "positive and finite"),
        (lambda: g.activation_params(g.unsigned_grid(4), float("nan")), "positive and finite"),
        (lambda: g.weight_params(g.unsigned_grid(8), 1.0), "does not fit int8"),
        (lambda: g.TensorQuantParams(g.signed_grid(8), 1.0, -1), "does not fit int8"),
    ],
)
def test_impossible_grid_or_params_are_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_full_grid_of_two_to_the_b_levels_is_allowed():
    assert g.IntegerGrid(4, -8, 7).num_levels == 16


@pytest.mark.parametrize("bits", BITS)
def test_activation_grids_end_at_the_top_of_int8(bits):
    for grid in (g.unsigned_grid(bits), g.signed_grid(bits), g.activation_grid(bits, 0.3)):
        params = g.activation_params(grid, 0.5)
        assert params.stored_max == 127
        assert params.stored_min >= -128
        assert g.dequantize(np.array([params.zero_point]), params) == 0.0


@pytest.mark.parametrize("slopes, scale", [([0.25, -0.5], 0.5 / 127), ([0.0], 1.0), ([1e-45], 1.0)])
def test_the_largest_slope_is_at_the_end_of_eight_bits(slopes, scale):
    params = g.slope_params(np.float32(slopes))
    assert (params.scale, params.stored_min, params.stored_max) == (np.float32(scale), -127, 127)
    assert np.abs(g.fake_quantize(np.float32(slopes), params) - slopes).max() <= scale / 2


def test_weights_are_stored_around_zero():
    params = g.weight_params(g.weight_grid(4), 0.5)
    assert (params.zero_point, params.stored_min, params.stored_max) == (0, -7, 7)


@pytest.mark.parametrize("bits, shift", [(2, 2), (3, 1), (4, 0), (5, 3), (6, 2), (7, 1), (8, 0)])
def test_weights_are_shifted_to_the_top_of_int4_or_int8(bits, shift):
    assert g.weight_grid(bits).weight_shift == shift


@pytest.mark.parametrize("bits", BITS)
def test_shifted_weights_still_fit_and_no_more_shift_would(bits):
    grid, top = g.weight_grid(bits), 7 if bits <= 4 else 127
    assert grid.qmax << grid.weight_shift <= top < grid.qmax << grid.weight_shift + 1


@pytest.mark.parametrize("grid", FULL, ids=str)
def test_full_range_turned_round_still_fits_int8_and_one_more_shift_would_not(grid):
    turned = -grid.qmin << grid.weight_shift
    assert turned <= 127 < turned * 2


def test_scale_becomes_a_float32():
    assert g.activation_params(g.unsigned_grid(4), 0.1).scale == float(np.float32(0.1)) != 0.1
    assert g.weight_params(g.weight_grid(4), 0.1).scale == float(np.float32(0.1))


@pytest.mark.parametrize(
    "z, q",
    [(-4.0, -3), (-3.0625, -3), (-3.0, -3), (-2.9375, -3), (-2.5, -2), (-1.5, -2), (-0.5, 0), (0.0, 0)]
    + [(0.5, 0), (1.5, 2), (2.5, 2), (2.9375, 3), (3.0, 3), (3.0625, 3), (4.0, 3)],
)
def test_quantize_saturates_and_rounds_half_to_even(z, q):
    params = g.weight_params(g.weight_grid(3), 0.5)
    stored = g.quantize(np.array([z * 0.5]), params)
    assert stored.dtype == np.int8
    assert stored.tolist() == [q]
    assert g.fake_quantize(np.array([z * 0.5]), params).tolist() == [q * 0.5]


def test_quantize_adds_the_zero_point():
    params = g.activation_params(g.unsigned_grid(8), 0.5)
    assert g.quantize(np.array([-1.0, 0.0, 0.5, 127.5, 128.0]), params).tolist() == [-128, -128, -127, 127, 127]
    assert g.dequantize(np.array([-128, -127, 127], np.int8), params).tolist() == [0.0, 0.5, 127.5]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_integer_survives_dequantize_and_quantize(grid):
    params = params_of(grid, 0.3)
    stored = np.arange(params.stored_min, params.stored_max + 1).astype(np.int8)
    assert len(stored) == grid.num_levels
    np.testing.assert_array_equal(g.quantize(g.dequantize(stored, params), params), stored)


@given(x=VALUES, interval=INTERVALS, grid=st.sampled_from(GRIDS))
def test_fake_quantize_is_idempotent(x, interval, grid):
    once = g.fake_quantize(x, params_of(grid, interval))
    np.testing.assert_array_equal(g.fake_quantize(once, params_of(grid, interval)), once)


@given(x=VALUES, interval=INTERVALS, grid=st.sampled_from(GRIDS))
def test_fake_quantize_is_monotone(x, interval, grid):
    assert np.all(np.diff(g.fake_quantize(np.sort(x), params_of(grid, interval))) >= 0)


@given(interval=INTERVALS, grid=st.sampled_from(GRIDS))
def test_a_sweep_of_the_range_hits_each_level_once_and_no_other(interval, grid):
    sweep = np.linspace(grid.qmin - 3, grid.qmax + 3, 4 * (grid.num_levels + 6)) * interval
    levels = np.unique(g.fake_quantize(sweep, params_of(grid, interval)))
    assert len(levels) == grid.num_levels <= 2**grid.num_bits


@given(z=arrays(np.float64, 12, elements=st.floats(0, 1)), interval=INTERVALS, grid=st.sampled_from(GRIDS))
def test_error_inside_the_range_is_at_most_half_a_step(z, interval, grid):
    x = (grid.qmin + z * (grid.qmax - grid.qmin)) * interval
    error = np.abs(g.fake_quantize(x, params_of(grid, interval)) - x)
    # float32 holds q * interval to 2^-24 of the value, and z to as much.
    assert error.max() <= interval * (0.5 + 2**-22 * max(grid.qmax, -grid.qmin))


@given(scale=st.floats(2.0**-100, 2.0**100, width=32), grid=st.sampled_from(GRIDS))
def test_save_and_load_give_back_equal_params(tmp_path_factory, scale, grid):
    path = tmp_path_factory.mktemp("params") / "params.json"
    params = {"conv/kernel": g.weight_params(g.weight_grid(4), scale), "relu": params_of(grid, scale)}
    g.save_params(path, params)
    loaded = g.load_params(path)
    assert loaded == params
    assert list(loaded) == list(params)
    assert np.float32(loaded["relu"].scale) == np.float32(scale)
    assert isinstance(loaded["relu"].grid, g.IntegerGrid)


def test_grid_and_params_cannot_be_changed():
    params = g.activation_params(g.unsigned_grid(4), 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.scale = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.grid.qmax = 1
