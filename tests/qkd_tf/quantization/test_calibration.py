from unittest import mock

import numpy as np
import pytest
import tf_keras
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tf_keras import layers

from qkd_tf.contract.grid import IntegerGrid, activation_grid, signed_grid, unsigned_grid, weight_grid
from qkd_tf.experiment import INTERVAL_INITS, NetworkSpec, PixelNormalization, QuantizationSpec
from qkd_tf.models import zoo
from qkd_tf.process.portions import num_images, values_of_image
from qkd_tf.quantization import calibration
from qkd_tf.quantization.scheme import quantize_student

GRIDS = [make(b) for b in range(2, 9) for make in (weight_grid, unsigned_grid, signed_grid)]
SPEC = QuantizationSpec(weight_bits=3, activation_bits=4)
VALUES = arrays(np.float32, 20, elements=st.floats(-100, 100, width=32).map(lambda v: v if abs(v) > 2**-20 else 0.0))


def mean_square_error(x, interval, grid):
    x = x.astype(np.float64)
    return np.mean((np.clip(np.round(x / interval), grid.qmin, grid.qmax) * interval - x) ** 2)


def intervals(student):
    tensors = {f"{name}/kernel": q for name, q in student.weights.items()} | student.outputs
    return {name: float(q.interval.numpy()) for name, q in tensors.items()}


def float_tensor(student, name, images):
    watch = type(student.plain)(student.plain.inputs, student.plain.get_layer(name).output)
    return watch.predict_on_batch(images)


@pytest.mark.parametrize(
    "x, grid, interval",
    [
        ([-1.0, 0.5, 3.0], weight_grid(3), 1.0),
        ([-6.0, 1.0], weight_grid(3), 2.0),
        ([0.0, 7.5, 1.0], unsigned_grid(4), 0.5),
        ([-0.25], weight_grid(2), 0.25),
        ([63.5, -1.0], signed_grid(8), 0.5),
        ([13.0, -1.0], activation_grid(4, 1 / 7), 1.0),
        ([13.0, -4.0], activation_grid(4, 1 / 7), 2.0),
        ([-0.5], activation_grid(2, 0.1), 0.5),
    ],
)
def test_minmax_puts_the_largest_value_on_qmax(x, grid, interval):
    assert calibration.minmax_interval(np.array(x, np.float32), grid) == interval


@pytest.mark.parametrize(
    "x, grid, interval",
    [
        ([-1.0, 2.0, 3.0, -2.0], weight_grid(2), 4.0),  # 2 * 2 / sqrt(1)
        ([-1.0, 2.0, 3.0, -2.0], IntegerGrid(3, 0, 4), 2.0),  # 2 * 2 / sqrt(4)
        ([0.0, 0.0, 0.0, 3.0], IntegerGrid(5, -9, 9), 0.5),  # 2 * 0.75 / sqrt(9)
    ],
)
def test_lsq_is_twice_the_mean_over_the_root_of_qmax(x, grid, interval):
    assert calibration.lsq_interval(np.array(x, np.float32), grid) == interval


@pytest.mark.parametrize(
    "x, grid, interval",
    [
        ([1.0] * 9 + [2.0], weight_grid(2), 1.1),  # between 1 and the outlier: the mean, all on level 1
        ([1.0, -1.0, 1.0], weight_grid(2), 1.0),  # nothing to gain from clipping
        ([-1.0, 0.0, 1.0, 2.0, 3.0], weight_grid(3), 1.0),
    ],
)
def test_mse_trades_clipping_for_rounding(x, grid, interval):
    assert calibration.mse_interval(np.array(x, np.float32), grid) == pytest.approx(interval, rel=1e-6)


@given(x=VALUES, grid=st.sampled_from(GRIDS))
def test_mse_is_never_worse_than_minmax_in_mean_square(x, grid):
    assume(np.any(x))
    mse, minmax = calibration.mse_interval(x, grid), calibration.minmax_interval(x, grid)
    assert 0 < mse <= minmax * (1 + 1e-9)
    slack = 1e-12 * np.max(np.abs(x)) ** 2  # 100 * a / 100 may be a's neighbour
    assert mean_square_error(x, mse, grid) <= mean_square_error(x, minmax, grid) * (1 + 1e-6) + slack


@given(x=VALUES, grid=st.sampled_from(GRIDS), exponent=st.integers(-8, 8))
def test_intervals_scale_with_the_tensor(x, grid, exponent):
    assume(np.any(x))
    for choose in calibration.INITS.values():
        assert choose(x * np.float32(2.0**exponent), grid) == pytest.approx(choose(x, grid) * 2.0**exponent, rel=1e-5)


def test_every_init_of_the_flags_exists():
    assert tuple(calibration.INITS) == INTERVAL_INITS


@pytest.mark.slow
def test_minmax_fits_kernels_and_the_float_models_tensors_over_all_batches(make_residual_student):
    student = quantize_student(make_residual_student(), SPEC)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (2, 8, 8, 3)).astype(np.float32) for _ in range(3)]
    calibration.calibrate(student, iter(batches), "minmax")
    for tensor in student.weights.values():
        expected = np.abs(tensor.kernel.numpy()).max() / tensor.grid.qmax
        assert float(tensor.interval.numpy()) == pytest.approx(expected, rel=1e-6)
    for name, tensor in student.outputs.items():
        expected = max(np.abs(float_tensor(student, name, b)).max() for b in batches) / tensor.grid.qmax
        assert float(tensor.interval.numpy()) == pytest.approx(expected, rel=1e-5)


def test_requantized_tensor_has_the_same_range_in_coarser_steps(make_residual_student, images):
    student = quantize_student(make_residual_student(), SPEC)
    calibration.calibrate(student, [images], "minmax")
    fine, coarse = (student.outputs[n].interval.numpy() for n in ("stem_relu", "stem_relu_requantize"))
    assert coarse * 15 == pytest.approx(fine * 255, rel=1e-6)


@pytest.mark.parametrize("init", calibration.INITS)
def test_init_reaches_kernels_and_outputs(make_residual_student, images, init):
    student = quantize_student(make_residual_student(), SPEC)
    calibration.calibrate(student, [images], init)
    choose = calibration.INITS[init]
    linear, relu = student.weights["linear"], student.outputs["depthwise_relu"]
    activation = float_tensor(student, "depthwise_relu", images)
    assert float(linear.interval.numpy()) == pytest.approx(choose(linear.kernel.numpy(), linear.grid), rel=1e-5)
    assert float(relu.interval.numpy()) == pytest.approx(choose(activation, relu.grid), rel=1e-5)


def test_calibration_moves_nothing_but_intervals(make_residual_student, images):
    student = quantize_student(make_residual_student(), SPEC)
    before = [v.numpy() for v in student.plain.variables]
    calibration.calibrate(student, [images], "mse")
    student.copy_weights_to_plain()
    for old, variable in zip(before, student.plain.variables, strict=True):
        np.testing.assert_array_equal(variable, old)


@pytest.mark.parametrize("init", calibration.INITS)
def test_all_zero_tensors_get_a_positive_interval(chain, init):
    model = chain(
        layers.Conv2D(2, 3, use_bias=False, kernel_initializer="zeros", name="conv"),
        layers.Flatten(),
        layers.Dense(2, kernel_initializer="zeros", name="logits"),
    )
    student = quantize_student(model, QuantizationSpec(interval_init=init))
    for interval in student.weight_intervals + student.activation_intervals:
        interval.assign(123.0)
    with np.errstate(all="ignore"):
        calibration.calibrate(student, [np.zeros((2, 8, 8, 3), np.float32)], init)
    assert set(intervals(student).values()) == {1.0}


def test_branch_and_kernel_of_zeros_get_intervals_that_fit_beside_those_around_them(images):
    pixels = tf_keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(layers.Rescaling(1 / 255, name="scaled")(pixels))
    y = layers.Conv2D(4, 1, use_bias=False, name="branch")(x)
    y = layers.BatchNormalization(gamma_initializer="zeros", name="norm")(y)
    x = layers.Add(name="sum")([x, y])
    x = layers.Conv2D(4, 1, kernel_initializer="zeros", bias_initializer="ones", name="constant")(x)
    model = tf_keras.Model(pixels, layers.Dense(2, name="logits")(layers.Flatten()(x)))
    student = quantize_student(model, QuantizationSpec(weight_bits=8, activation_bits=8))
    calibration.calibrate(student, [images], "minmax")
    found = intervals(student)
    assert found["norm"] == found["sum"] < 1
    assert found["constant/kernel"] * found["sum"] == pytest.approx(found["constant"])


def large_tensor_student(chain):
    """A 1x1 convolution that hands on more values than SAMPLES_PER_BATCH."""
    conv = layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="conv")
    model = chain(conv, layers.GlobalAveragePooling2D(), layers.Dense(2, name="logits"), input_shape=(300, 300, 1))
    return quantize_student(model, SPEC)


def test_minmax_sees_the_one_spike_of_a_tensor_too_large_to_keep(chain):
    student = large_tensor_student(chain)
    images = np.zeros((1, 300, 300, 1), np.float32)
    for spike in (254.0, -254.0):
        images[0, 123, 45, 0] = spike
        calibration.calibrate(student, [images], "minmax")
        assert intervals(student)["conv"] == 2.0  # 254 / 127


def test_sampling_is_repeatable_and_close_to_the_whole(chain):
    student = large_tensor_student(chain)
    images = np.random.default_rng(0).normal(size=(1, 300, 300, 1)).astype(np.float32)

    def calibrated(seed):
        calibration.calibrate(student, [images], "lsq", seed)
        return intervals(student)["conv"]

    first = calibrated(0)
    assert calibrated(0) == first != calibrated(1)
    # 65,536 draws tell the mean of |x| to about 0.3 %.
    assert first == pytest.approx(calibration.lsq_interval(images, student.outputs["conv"].grid), rel=0.02)


def integer_student(chain):
    """Small whole numbers in every tensor: sums are exact in any order, whatever the size of a batch."""
    kernel = tf_keras.initializers.Constant(np.arange(-13, 14).reshape(3, 3, 3, 1) % 4 - 1)
    model = chain(
        layers.Conv2D(1, 3, kernel_initializer=kernel, name="conv"),
        layers.ReLU(name="relu"),
        layers.Flatten(),
        layers.Dense(2, kernel_initializer="ones", name="logits"),
    )
    return quantize_student(model, SPEC)


@pytest.mark.slow
@given(
    init=st.sampled_from(sorted(calibration.INITS)),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    watched_bytes=st.integers(1, 5_000),
    num_samples=st.integers(1, 300),
    seed=st.integers(0, 9),
)
@settings(max_examples=25)
def test_calibration_in_parts_is_calibration_of_whole_batches(chain, init, sizes, watched_bytes, num_samples, seed):
    student = integer_student(chain)
    rng = np.random.default_rng(seed)
    batches = [rng.integers(0, 9, (size, 8, 8, 3)).astype(np.float32) for size in sizes]
    with mock.patch.object(calibration, "SAMPLES_PER_BATCH", num_samples):
        calibration.calibrate(student, batches, init, seed)
        whole = intervals(student)
        with mock.patch.object(calibration, "WATCHED_BYTES", watched_bytes):
            calibration.calibrate(student, batches, init, seed)
    assert intervals(student) == whole


@given(
    values=arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32)),
    num_kept=st.integers(0, 80),
    cuts=st.lists(st.integers(1, 20), max_size=8),
    seed=st.integers(0, 9),
)
def test_sample_is_the_choice_from_the_whole_tensor_and_its_extremes(values, num_kept, cuts, seed):
    sample = calibration.Sample(values.size, num_kept, np.random.default_rng(seed))
    parts = np.split(values, [cut for cut in np.cumsum(cuts, dtype=int) if cut < values.size])
    for part in parts:
        sample.add(part)
    drawn = np.append(np.random.default_rng(seed).choice(values, num_kept), [values.min(), values.max()])
    np.testing.assert_array_equal(sample.values(), values if values.size <= num_kept else drawn)


@pytest.mark.parametrize("place", [0, 250, 499])
def test_what_is_not_finite_is_seen_in_any_part_though_no_sample_falls_on_it(place):
    values = np.zeros(500, np.float32)
    values[place] = np.nan
    sample = calibration.Sample(500, 0, np.random.default_rng(0))
    for part in np.split(values, 5):
        sample.add(part)
    assert np.isnan(sample.values()).all()


@pytest.mark.parametrize("of_image, parts", [(1, [7]), (2, [5, 2]), (9, [1] * 7), (10**6, [1] * 7)])
def test_images_are_computed_within_the_bound_and_one_at_a_time_where_it_holds_none(
    chain, monkeypatch, of_image, parts
):
    student = integer_student(chain)
    watched = 4 * (6 * 6 + 2)  # float32 of ReLU and logits
    monkeypatch.setattr(calibration, "WATCHED_BYTES", 10 * watched // of_image)
    seen, function = [], calibration.tf.function

    def spied(model, **options):
        run = function(model, **options)
        return lambda part, **arguments: seen.append(len(part)) or run(part, **arguments)

    monkeypatch.setattr(calibration.tf, "function", spied)
    calibration.calibrate(student, [np.ones((7, 8, 8, 3), np.float32)], "minmax")
    assert seen == parts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2_1.0_cifar"])
def test_batches_of_128_of_cifar_are_computed_whole(name):
    """Intervals of results that were published stay what they are."""
    model = zoo.build(NetworkSpec(name, PixelNormalization((128.0,), (64.0,))), (32, 32, 3), 10)
    student = quantize_student(model, QuantizationSpec())
    watched = [student.plain.get_layer(name) for name, q in student.outputs.items() if q.interval.trainable]
    assert num_images(calibration.WATCHED_BYTES, 4 * values_of_image(watched)) >= 128


def test_student_with_one_quantized_tensor_is_calibrated(chain):
    student = quantize_student(chain(layers.Flatten(), layers.Dense(2, name="logits")), SPEC)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.float32)
    calibration.calibrate(student, [images], "minmax")
    logits = student.plain.predict_on_batch(images)
    assert intervals(student)["logits"] == pytest.approx(np.abs(logits).max() / 127, rel=1e-5)
