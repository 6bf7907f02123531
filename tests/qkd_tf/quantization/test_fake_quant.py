import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qkd_tf.contract import grid as grids
from qkd_tf.contract.runtime_arithmetic import average_of_stored
from qkd_tf.quantization.fake_quant import fake_quantize, fake_quantize_fused, round_average, with_interval_gradient

BITS = range(grids.MIN_BITS, grids.MAX_BITS + 1)
GRIDS = [make(b) for b in BITS for make in (grids.weight_grid, grids.unsigned_grid, grids.signed_grid)]
GRIDS += [grids.weight_grid(b, narrow_range=False) for b in BITS]
UNEVEN = [grids.activation_grid(bits, share) for bits, share in ((2, 1 / 7), (3, 0.3), (4, 1 / 7), (6, 0.1))]
GRIDS += UNEVEN


def floats(bound):
    """TensorFlow's kernels flush subnormal numbers to zero, NumPy does not: numbers that small are left out."""
    return st.floats(-bound, bound, width=32).map(lambda value: value if abs(value) > 2**-20 else 0.0)


VALUES = arrays(np.float32, (3, 4), elements=floats(100))
INTERVALS = st.floats(2**-6, 16, width=32)
INTERVAL = 0.5

# z = x / interval, integer, d x_hat / dx, d x_hat / d interval = round(z) - z inside, else the integer
SIGNED_3_BITS = [
    (-4.0, -3, 0, -3.0),
    (-3.0625, -3, 0, -3.0),
    (-3.0, -3, 1, 0.0),
    (-2.9375, -3, 1, -0.0625),
    (-2.5, -2, 1, 0.5),
    (-1.5, -2, 1, -0.5),
    (-0.5, 0, 1, 0.5),
    (0.0, 0, 1, 0.0),
    (0.5, 0, 1, -0.5),
    (1.5, 2, 1, 0.5),
    (2.5, 2, 1, -0.5),
    (2.9375, 3, 1, 0.0625),
    (3.0, 3, 1, 0.0),
    (3.0625, 3, 0, 3.0),
    (4.0, 3, 0, 3.0),
]
UNSIGNED_2_BITS = [
    (-1.0, 0, 0, 0.0),
    (-0.0625, 0, 0, 0.0),
    (0.0, 0, 1, 0.0),
    (0.0625, 0, 1, -0.0625),
    (0.5, 0, 1, -0.5),
    (1.5, 2, 1, 0.5),
    (2.5, 2, 1, -0.5),
    (2.9375, 3, 1, 0.0625),
    (3.0, 3, 1, 0.0),
    (3.0625, 3, 0, 3.0),
    (4.0, 3, 0, 3.0),
]
MINUS_ONE_TO_TWO = [
    (-1.5, -1, 0, -1.0),
    (-1.0625, -1, 0, -1.0),
    (-1.0, -1, 1, 0.0),
    (-0.75, -1, 1, -0.25),
    (-0.5, 0, 1, 0.5),
    (0.0, 0, 1, 0.0),
    (1.5, 2, 1, 0.5),
    (2.0, 2, 1, 0.0),
    (2.0625, 2, 0, 2.0),
    (9.0, 2, 0, 2.0),
]
GOLDEN = [(grids.weight_grid(3), *row) for row in SIGNED_3_BITS] + [
    (grids.unsigned_grid(2), *row) for row in UNSIGNED_2_BITS
]
GOLDEN += [(grids.IntegerGrid(2, -1, 2), *row) for row in MINUS_ONE_TO_TWO]


def value_and_gradients(x, interval, grid, upstream=None, **options):
    """x_hat, dL/dx, dL/dI for L = sum(upstream * x_hat)."""
    x, interval = tf.constant(x, tf.float32), tf.constant(interval, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([x, interval])
        x_hat = fake_quantize(x, interval, grid, **options)
    gradients = tape.gradient(
        x_hat, [x, interval], output_gradients=None if upstream is None else tf.constant(upstream)
    )
    return [t.numpy() for t in (x_hat, *gradients)]


def reference(x, interval, grid, upstream, mask_gradient, gradient_scale):
    """The formulas of method.md section 1, element by element, in Python's own arithmetic."""
    x_gradient, interval_gradient = [], 0.0
    for value, g in zip(x.ravel(), upstream.ravel(), strict=True):
        z = float(value / np.float32(interval))
        if z > grid.qmax:
            inside, slope = False, grid.qmax
        elif z < grid.qmin:
            inside, slope = False, grid.qmin
        else:
            inside, slope = True, round(z) - z
        x_gradient.append(float(g) if inside or not mask_gradient else 0.0)
        interval_gradient += float(g) * slope * gradient_scale
    return np.reshape(x_gradient, x.shape), interval_gradient


@pytest.mark.parametrize("grid, z, q, x_gradient, interval_gradient", GOLDEN)
def test_value_and_gradients_at_the_break_points(grid, z, q, x_gradient, interval_gradient):
    x_hat, dx, dinterval = value_and_gradients([z * INTERVAL], INTERVAL, grid)
    assert x_hat.tolist() == [q * INTERVAL]
    assert dx.tolist() == [x_gradient]
    assert dinterval == interval_gradient


@pytest.mark.parametrize("grid, z, q, x_gradient, interval_gradient", GOLDEN)
def test_unmasked_gradient_reaches_x_everywhere_and_the_interval_as_before(grid, z, q, x_gradient, interval_gradient):
    x_hat, dx, dinterval = value_and_gradients([z * INTERVAL], INTERVAL, grid, mask_gradient=False)
    assert x_hat.tolist() == [q * INTERVAL]
    assert dx.tolist() == [1.0]
    assert dinterval == interval_gradient


@pytest.mark.parametrize("towards, inside", [(np.inf, 0.0), (-np.inf, 1.0)])
def test_range_ends_exactly_at_qmax(towards, inside):
    edge = np.nextafter(np.float32(3 * INTERVAL), np.float32(towards))
    _, dx, _ = value_and_gradients([edge], INTERVAL, grids.weight_grid(3))
    assert dx.tolist() == [inside]


def test_interval_gradient_is_the_sum_over_the_elements():
    rows = np.array(SIGNED_3_BITS)
    _, _, dinterval = value_and_gradients(rows[:, 0] * INTERVAL, INTERVAL, grids.weight_grid(3))
    assert dinterval.shape == ()
    assert dinterval == rows[:, 3].sum()


def test_gradient_scale_touches_the_interval_alone():
    x, upstream = np.array([-9.0, 0.3, 0.7, 9.0], np.float32), np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    plain = value_and_gradients(x, INTERVAL, grids.weight_grid(3), upstream)
    scaled = value_and_gradients(x, INTERVAL, grids.weight_grid(3), upstream, gradient_scale=0.125)
    np.testing.assert_array_equal(scaled[0], plain[0])
    np.testing.assert_array_equal(scaled[1], plain[1])
    assert scaled[2] == plain[2] * 0.125 != 0.0


@given(
    x=VALUES,
    upstream=arrays(np.float32, (3, 4), elements=floats(4)),
    interval=INTERVALS,
    grid=st.sampled_from(GRIDS),
    mask_gradient=st.booleans(),
    gradient_scale=st.sampled_from([1.0, 0.25, 0.01]),
)
def test_gradients_agree_with_the_formulas_of_the_method(x, upstream, interval, grid, mask_gradient, gradient_scale):
    _, dx, dinterval = value_and_gradients(
        x, interval, grid, upstream, mask_gradient=mask_gradient, gradient_scale=gradient_scale
    )
    expected_dx, expected_dinterval = reference(x, interval, grid, upstream, mask_gradient, gradient_scale)
    np.testing.assert_array_equal(dx, expected_dx)
    # The sum is of float32 terms as large as 4 * 255 each, 12 of them.
    np.testing.assert_allclose(dinterval, expected_dinterval, rtol=1e-5, atol=12 * 1020 * 2e-7 * gradient_scale)


@given(x=VALUES, interval=INTERVALS, grid=st.sampled_from(GRIDS))
def test_training_and_export_round_alike_to_the_last_bit(x, interval, grid):
    ours = fake_quantize(tf.constant(x), tf.constant(interval, tf.float32), grid).numpy()
    np.testing.assert_array_equal(ours, grids.fake_quantize(x, grids.activation_params(grid, interval)))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_training_and_export_agree_on_each_half_step_of_each_grid(grid):
    interval = 0.25
    x = np.arange(2 * grid.qmin - 5, 2 * grid.qmax + 6).astype(np.float32) * interval / 2
    ours = fake_quantize(tf.constant(x), tf.constant(interval), grid).numpy()
    np.testing.assert_array_equal(ours, grids.fake_quantize(x, grids.activation_params(grid, interval)))
    assert len(np.unique(ours)) == grid.num_levels


@given(x=VALUES, interval=INTERVALS, grid=st.sampled_from(GRIDS))
def test_laws_of_a_uniform_quantizer(x, interval, grid):
    interval = tf.constant(interval, tf.float32)
    once = fake_quantize(tf.constant(x), interval, grid)
    np.testing.assert_array_equal(fake_quantize(once, interval, grid), once)  # idempotent
    ordered = fake_quantize(tf.sort(tf.reshape(tf.constant(x), [-1])), interval, grid).numpy()
    assert np.all(np.diff(ordered) >= 0)  # monotone
    assert np.all((ordered >= grid.qmin * interval) & (ordered <= grid.qmax * interval))  # saturates


@pytest.mark.parametrize("shape", [(), (7,), (3, 3, 2, 4)])
def test_shape_is_kept_in_a_traced_function_too(shape):
    x = tf.random.stateless_normal(shape, seed=(1, 2))
    interval = tf.constant(0.1)
    traced = tf.function(lambda x: fake_quantize(x, interval, grids.weight_grid(4)))
    assert traced(x).shape == shape
    np.testing.assert_array_equal(traced(x), fake_quantize(x, interval, grids.weight_grid(4)))


# z, g, dL/dx at delta 0.5; the grid of 3 signed bits has a range of 6, so the factor is 1 + sign(g) * (z - q) / 12
EWGS_GOLDEN = [
    (-3.0625, 1.0, 0.0),
    (-3.0, 1.0, 1.0),
    (-2.625, 1.0, 1.03125),
    (-2.625, -1.0, -0.96875),
    (-2.5, 1.0, 1 - 1 / 24),  # half to even: -2
    (0.0, 2.0, 2.0),
    (0.375, 2.0, 2.0625),
    (0.375, -2.0, -1.9375),
    (0.375, 0.0, 0.0),
    (0.5, 1.0, 1 + 1 / 24),
    (1.5, 1.0, 1 - 1 / 24),
    (2.625, 1.0, 0.96875),
    (3.0, -1.0, -1.0),
    (3.0625, -1.0, 0.0),
]


@pytest.mark.parametrize("z, g, x_gradient", EWGS_GOLDEN)
def test_ewgs_golden_values(z, g, x_gradient):
    options = {"grid": grids.weight_grid(3), "upstream": [g], "ewgs_scale": 0.5}
    x_hat, dx, dinterval = value_and_gradients([z * INTERVAL], INTERVAL, **options)
    np.testing.assert_allclose(dx, [x_gradient], rtol=1e-6)
    plain = value_and_gradients([z * INTERVAL], INTERVAL, grids.weight_grid(3), [g])
    assert (x_hat, dinterval) == (plain[0], plain[2])  # neither value nor dL/dI knows of it


def test_ewgs_of_an_unmasked_gradient_is_plain_outside_the_range():
    x = [-9.0, -3.0625, 0.375, 3.0625, 9.0]
    _, dx, _ = value_and_gradients(x, 1.0, grids.weight_grid(3), [1.0] * 5, mask_gradient=False, ewgs_scale=0.5)
    assert dx.tolist() == [1.0, 1.0, 1.03125, 1.0, 1.0]


@given(
    x=VALUES,
    upstream=arrays(np.float32, (3, 4), elements=floats(4)),
    interval=INTERVALS,
    grid=st.sampled_from(GRIDS),
    delta=st.floats(2**-10, 0.9375, width=32),
)
def test_ewgs_laws(x, upstream, interval, grid, delta):
    """Sign of the plain gradient, beside it by delta / 2 steps of the range at most; and the paper in NumPy."""
    plain = value_and_gradients(x, interval, grid, upstream)
    zero = value_and_gradients(x, interval, grid, upstream, ewgs_scale=0.0)
    for ours, expected in zip(zero, plain, strict=True):
        np.testing.assert_array_equal(ours, expected)
    scaled = value_and_gradients(x, interval, grid, upstream, ewgs_scale=delta)
    np.testing.assert_array_equal(np.sign(scaled[1]), np.sign(plain[1]))
    bound = delta / 2 / (grid.qmax - grid.qmin)
    assert np.all(np.abs(scaled[1] - plain[1]) <= np.abs(plain[1]) * (bound * 1.001 + 1e-6))
    # Lee et al.: x_n in [0, 1] is the place in the range, x_q that of the rounded value.
    width = interval * (grid.qmax - grid.qmin)
    x_n, x_q = ((np.float64(v) - interval * grid.qmin) / width for v in (x, scaled[0]))
    near_edge = np.minimum(np.abs(x_n), np.abs(1 - x_n)) < 1e-6
    expected = np.where((x_n >= 0) & (x_n <= 1), upstream * (1 + delta * np.sign(upstream) * (x_n - x_q)), 0.0)
    np.testing.assert_allclose(scaled[1][~near_edge], expected[~near_edge], rtol=1e-5, atol=1e-6)


def fused_value_and_gradients(x, interval, grid, upstream, **options):
    x, interval = tf.constant(x, tf.float32), tf.constant(interval, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([x, interval])
        x_hat = fake_quantize_fused(x, interval, grid, **options)
    return [t.numpy() for t in (x_hat, *tape.gradient(x_hat, [x, interval], output_gradients=tf.constant(upstream)))]


@pytest.mark.parametrize("grid, z, q, x_gradient, interval_gradient", GOLDEN)
def test_fused_form_has_the_golden_values_too(grid, z, q, x_gradient, interval_gradient):
    x_hat, dx, dinterval = fused_value_and_gradients([z * INTERVAL], INTERVAL, grid, [1.0])
    assert x_hat.tolist() == [q * INTERVAL]
    assert dx.tolist() == [x_gradient]
    assert dinterval == pytest.approx(interval_gradient, abs=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_fused_form_equals_the_definition_at_every_bit_width(grid):
    """Values to a unit in the last place, dL/dx to the bit, dL/dI to the rounding of two sums; ties are left out."""
    rng = np.random.default_rng(grid.num_bits)
    interval = np.float32(0.0371)
    x = rng.uniform(1.3 * grid.qmin - 2, 1.3 * grid.qmax, (64, 5, 7)).astype(np.float32) * interval
    z = x / interval
    ties = np.abs(z - np.floor(z) - 0.5) < 1e-4 * np.maximum(1, np.abs(z))
    edges = np.minimum(np.abs(z - grid.qmin), np.abs(z - grid.qmax)) < 1e-4 * grid.qmax
    x = np.where(ties | edges, np.float32(0.1) * interval, x)
    upstream = rng.normal(size=x.shape).astype(np.float32)
    fused = fused_value_and_gradients(x, interval, grid, upstream, gradient_scale=0.25)
    defined = value_and_gradients(x, interval, grid, upstream, gradient_scale=0.25)
    np.testing.assert_array_max_ulp(fused[0], defined[0], 2)
    np.testing.assert_array_equal(fused[1], defined[1])
    tolerance = 1e-6 * np.sum(np.abs(upstream * z)) * 0.25
    np.testing.assert_allclose(fused[2], defined[2], atol=tolerance)


@given(
    x=VALUES, upstream=arrays(np.float32, (3, 4), elements=floats(4)), interval=INTERVALS, grid=st.sampled_from(GRIDS)
)
def test_fused_form_follows_the_definition_for_any_input(x, upstream, interval, grid):
    fused = fused_value_and_gradients(x, interval, grid, upstream)
    defined = value_and_gradients(x, interval, grid, upstream)
    z = x.astype(np.float64) / interval
    near_half = np.abs(z - np.floor(z) - 0.5) < 1e-6 * np.maximum(1, np.abs(z))
    near_edge = np.minimum(np.abs(z - grid.qmin), np.abs(z - grid.qmax)) < 1e-6 * grid.qmax
    steps = np.abs(fused[0] - defined[0]) / interval
    assert np.all(steps <= np.where(near_half, 1.001, 1e-4))
    assert np.all((fused[1] == defined[1]) | near_edge)
    if not np.any(near_half | near_edge):
        np.testing.assert_allclose(fused[2], defined[2], atol=1e-5 * (1 + np.sum(np.abs(upstream) * 256)))


def test_share_of_the_examples_is_the_definition_over_those_scaled_up():
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(2, 16, 3, 2)).astype(np.float32)
    grid = grids.signed_grid(4)
    values = fused_value_and_gradients(x, 0.2, grid, upstream, gradient_share=0.25, gradient_scale=0.5)
    whole = value_and_gradients(x, 0.2, grid, upstream)
    first = value_and_gradients(x[:4], 0.2, grid, upstream[:4])
    np.testing.assert_array_equal(values[1], whole[1])
    np.testing.assert_allclose(values[2], 4 * 0.5 * first[2], rtol=1e-4)
    one = fused_value_and_gradients(x, 0.2, grid, upstream, gradient_share=1e-6)
    np.testing.assert_allclose(one[2], 16 * value_and_gradients(x[:1], 0.2, grid, upstream[:1])[2], rtol=1e-4)


def test_interval_whose_gradient_neighbors_give_has_no_gradient_of_its_own():
    values = fused_value_and_gradients(
        [[0.3, 9.0]], 0.2, grids.unsigned_grid(4), [[1.0, 2.0]], gradient_from_neighbors=True
    )
    assert values[1].tolist() == [[1.0, 0.0]]
    assert values[2] == 0.0


@pytest.mark.parametrize(
    "grid", [make(b) for b in BITS for make in (grids.unsigned_grid, grids.signed_grid)] + UNEVEN, ids=str
)
def test_neighbors_give_the_gradient_that_the_sums_over_the_tensor_give(grid):
    """Conv - BatchNormalization - quantizer - conv: dL/dI from gamma, beta and the next kernel."""
    rng = np.random.default_rng(grid.num_bits)
    c, kernel = (tf.constant(rng.normal(size=s), tf.float32) for s in ((8, 6, 6, 5), (3, 3, 5, 4)))
    gamma, beta = (tf.constant(rng.normal(size=5), tf.float32) for _ in range(2))
    interval, scale = tf.constant(1.5 / grid.qmax), 0.125

    def loss(gradient_from_neighbors):
        with tf.GradientTape() as tape:
            tape.watch([c, gamma, beta, kernel, interval])
            g, b, k = gamma, beta, kernel
            if gradient_from_neighbors:
                g, b = (with_interval_gradient(v, interval, -scale) for v in (gamma, beta))
                k = with_interval_gradient(kernel, interval, scale)
            x, *_ = tf.compat.v1.nn.fused_batch_norm(c, g, b, epsilon=1e-3)
            x_hat = fake_quantize_fused(x, interval, grid, scale, gradient_from_neighbors=gradient_from_neighbors)
            y = tf.reduce_sum(tf.sin(tf.nn.conv2d(x_hat, k, 2, "SAME")))
        return tape.gradient(y, [c, gamma, beta, kernel, interval])

    for ours, expected in zip(loss(gradient_from_neighbors=True), loss(gradient_from_neighbors=False), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("zero_point", [-128, 0, 112, -7])
@pytest.mark.parametrize("window", [(2, 2), (3, 3), (4, 5)])
def test_averages_are_rounded_in_float_as_integers_are(zero_point, window):
    """Of each sum that a window may have, summed in float32 as TensorFlow's average does."""
    rng, interval = np.random.default_rng(0), np.float32(0.0731)
    stored = rng.integers(-128, 128, (4000, *window, 1))
    x = tf.constant(((stored - zero_point) * interval).astype(np.float32))
    averages = tf.nn.avg_pool2d(x, window, 1, "VALID")
    rounded = round_average(averages, tf.constant(interval), zero_point)
    expected = average_of_stored(stored.sum((1, 2)), window[0] * window[1]) - zero_point
    np.testing.assert_array_equal(np.round(rounded.numpy().reshape(-1, 1) / interval), expected)


def test_gradients_of_a_rounded_average_pass_as_they_are():
    x, interval = tf.constant([0.3, -0.7]), tf.Variable(0.5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(round_average(x, tf.stop_gradient(interval), 0) * tf.constant([2.0, 3.0]))
    of_x, of_interval = tape.gradient(y, [x, interval])
    np.testing.assert_array_equal(of_x, [2.0, 3.0])
    assert of_interval is None
