"""BatchNorm re-estimation, restated in NumPy: the mean of the batches' own means and variances."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.quantization.batch_norm import BatchNormEstimator, BatchNormShift


@pytest.fixture
def batches():
    """Three batches of four pictures."""
    return list(np.random.default_rng(1).integers(0, 256, (3, 4, 8, 8, 3)).astype(np.uint8))


def statistics(model):
    return {v.name: v.numpy() for v in model.variables if "moving" in v.name}


def others(model):
    return {v.name: v.numpy() for v in model.variables if "moving" not in v.name}


def assert_same_bits(got, expected):
    assert got.keys() == expected.keys()
    for name, value in got.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("shape, divisor", [((2, 1, 2, 1), 3), ((4, 1), 4)], ids=["pictures", "rows"])
def test_golden_statistics_of_two_small_batches(chain, shape, divisor):
    model = chain(layers.BatchNormalization(momentum=0.9, name="bn"), input_shape=shape[1:])
    model.get_layer("bn").moving_mean.assign([1e8])  # so large that a difference from it would lose all digits
    model.get_layer("bn").moving_variance.assign([1e8])
    pixels = np.array([[1, 3, 5, 7], [10, 10, 10, 14]], np.float32).reshape((2, *shape))
    BatchNormEstimator(model).estimate(pixels)
    # Means 4 and 11, sums of squares 9 + 1 + 1 + 9 and 1 + 1 + 1 + 9.
    assert model.get_layer("bn").moving_mean.numpy().tolist() == [7.5]
    np.testing.assert_allclose(model.get_layer("bn").moving_variance.numpy(), [16 / divisor], rtol=1e-6)


@pytest.mark.parametrize("flat", [False, True], ids=["convolution", "dense"])
def test_statistics_are_the_mean_of_those_of_the_batches(chain, randomize, batches, flat):
    """Both of Keras's BatchNormalizations, the fused one of pictures and the plain one behind a Dense layer."""
    first = [layers.Flatten(), layers.Dense(6, name="first")] if flat else [layers.Conv2D(6, 3, name="first")]
    model = randomize(chain(layers.Rescaling(1 / 64, -2.0), *first, layers.BatchNormalization(name="bn")))
    BatchNormEstimator(model).estimate(batches)
    inner = tf_keras.Model(model.inputs, model.get_layer("first").output)
    values = [inner(batch).numpy().astype(np.float64).reshape(-1, 6) for batch in batches]
    bn = model.get_layer("bn")
    np.testing.assert_allclose(bn.moving_mean, np.mean([v.mean(0) for v in values], axis=0), rtol=1e-5, atol=1e-6)
    variances = [v.var(0, ddof=0 if flat else 1) for v in values]
    np.testing.assert_allclose(bn.moving_variance, np.mean(variances, axis=0), rtol=1e-5)


def test_quantized_students_statistics_are_of_its_rounded_tensors(make_quantized_student, batches):
    """In the wrapped student the second BatchNormalization reads what rounded kernels make of rounded tensors."""
    student = make_quantized_student()
    estimator = BatchNormEstimator(student.model)
    estimator.estimate(batches)
    means = {"stem_bn": [], "depthwise_bn": []}

    def rounded(x, quantized):
        params = quantized.params()
        return np.clip(np.round(x / np.float32(params.scale)), params.grid.qmin, params.grid.qmax) * params.scale

    def kernel(name):
        return rounded(student.weights[name].kernel.numpy(), student.weights[name]).astype(np.float32)

    def normalized(x, name):
        layer = student.plain.get_layer(name)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        means[name].append(mean)
        return (x - mean) / np.sqrt(variance + layer.epsilon) * layer.gamma.numpy() + layer.beta.numpy()

    for batch in batches:
        x = batch.astype(np.float32) / 64 - 2
        x = normalized(tf.nn.conv2d(x, kernel("stem"), 1, "SAME").numpy(), "stem_bn")
        for name in ("stem_relu", "stem_relu_requantize"):
            x = rounded(x, student.outputs[name])
        x = tf.nn.depthwise_conv2d(x.astype(np.float32), kernel("depthwise"), [1, 1, 1, 1], "SAME").numpy()
        normalized(x, "depthwise_bn")
    student.copy_weights_to_plain()
    for name, expected in means.items():
        got = student.plain.get_layer(name).moving_mean
        np.testing.assert_allclose(got, np.mean(expected, axis=0), rtol=1e-4, atol=2e-3, err_msg=name)


def test_nothing_but_the_statistics_moves_and_every_one_of_them_does(make_quantized_student, batches):
    student = make_quantized_student()
    before, kept = statistics(student.model), others(student.model)
    plain = [v.numpy() for v in student.plain.variables]
    momenta = [layer.momentum for layer in student.plain.layers if isinstance(layer, layers.BatchNormalization)]
    estimator = BatchNormEstimator(student.model)
    estimator.estimate(batches)
    assert_same_bits(others(student.model), kept)
    for value, expected in zip(student.plain.variables, plain, strict=True):
        np.testing.assert_array_equal(value, expected)
    after = statistics(student.model)
    assert len(after) == 6
    assert not any(np.array_equal(after[name], before[name]) for name in before)
    batch_norms = [m for m in student.model.submodules if isinstance(m, layers.BatchNormalization)]
    assert [layer.momentum for layer in batch_norms] == momenta and 0.0 not in momenta


def test_same_bits_again_whatever_the_statistics_were(make_quantized_student, batches):
    student = make_quantized_student()
    estimator = BatchNormEstimator(student.model)
    estimator.estimate(batches)
    first = statistics(student.model)
    for variable in student.model.variables:
        if "moving" in variable.name:
            variable.assign(tf.fill(variable.shape, 1234.5))
    estimator.estimate(batches)
    assert_same_bits(statistics(student.model), first)


def test_calls_share_one_trace_though_the_last_batch_is_short(make_quantized_student, batches):
    estimator = BatchNormEstimator(make_quantized_student().model)
    for _ in range(2):
        estimator.estimate([batches[0], batches[1].astype(np.float32), batches[2][:3]])
    assert estimator._traced.experimental_get_tracing_count() == 1


def test_dropout_is_out_and_random_numbers_go_on_as_they_would_have(chain, randomize, batches):
    def make():
        tf_keras.utils.set_random_seed(3)
        return randomize(
            chain(
                layers.Conv2D(4, 3, name="conv"),
                layers.Dropout(0.5, name="dropout"),
                layers.Conv2D(4, 3, name="second"),
                layers.BatchNormalization(name="bn"),
            )
        )

    model, untouched = make(), make()
    step, expected_step = (
        tf.function(lambda images, net=net: net(images, training=True)) for net in (model, untouched)
    )
    images = batches[0].astype(np.float32)
    np.testing.assert_array_equal(step(images), expected_step(images))
    BatchNormEstimator(model).estimate(batches)
    inner = tf_keras.Model(model.inputs, model.get_layer("second").output)
    values = [inner(batch, training=False).numpy().mean((0, 1, 2)) for batch in batches]
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, np.mean(values, axis=0), rtol=1e-4)
    dropped = step(images).numpy()
    np.testing.assert_array_equal(dropped, expected_step(images))
    assert not np.array_equal(dropped, step(images))  # Dropout is in again
    assert model.get_layer("dropout").rate == 0.5


def frozen_and_not(freeze):
    """Two BatchNormalizations, "kept" frozen as `freeze` does it."""
    inner = tf_keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="kept")],
        name="inner",
    )
    pixels = tf_keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="moves")(layers.Conv2D(4, 3, name="second")(inner(pixels)))
    freeze(inner)
    return tf_keras.Model(pixels, x), inner.get_layer("kept")


@pytest.mark.parametrize(
    "freeze",
    [
        lambda inner: setattr(inner, "trainable", False),
        lambda inner: setattr(inner.get_layer("kept"), "trainable", False),
    ],
    ids=["base", "layer"],
)
def test_frozen_layers_keep_their_statistics_and_others_get_what_reads_them(freeze, randomize, batches):
    """As every transfer-learning guide freezes a base. At 6352718 frozen statistics became 0: 100 % fell to 24.5 %."""
    model, kept = frozen_and_not(freeze)
    randomize(model)
    before = [weight.copy() for weight in kept.get_weights()]
    BatchNormEstimator(model).estimate(batches)
    for old, now in zip(before, kept.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    inner = tf_keras.Model(model.inputs, model.get_layer("second").output)
    values = [inner(batch, training=False).numpy().astype(np.float64).reshape(-1, 4) for batch in batches]
    moves = model.get_layer("moves")
    np.testing.assert_allclose(moves.moving_mean, np.mean([v.mean(0) for v in values], axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moves.moving_variance, np.mean([v.var(0, ddof=1) for v in values], axis=0), rtol=1e-4)


def test_network_whose_statistics_are_all_frozen_keeps_every_bit(randomize, batches):
    model, _ = frozen_and_not(lambda inner: None)
    randomize(model).trainable = False
    before = [weight.copy() for weight in model.get_weights()]
    BatchNormEstimator(model).estimate(batches)
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_no_batch_is_refused(make_quantized_student):
    with pytest.raises(ValueError, match="no batch"):
        BatchNormEstimator(make_quantized_student().model).estimate([])


def means_and_variances(model):
    """[(mean, variance)] by name of each BatchNormalization."""
    found = [m for m in model.submodules if isinstance(m, layers.BatchNormalization)]
    return {layer.name: (layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in found}


def test_measuring_a_batch_moves_nothing(make_quantized_student, batches):
    student = make_quantized_student()
    before = statistics(student.model) | others(student.model)
    BatchNormEstimator(student.model).measure(batches[0])
    assert_same_bits(statistics(student.model) | others(student.model), before)


def test_shift_is_that_between_both_students_on_the_same_batches(make_quantized_student, batches):
    """By the equations, from three estimates that are had one after the other."""
    student = make_quantized_student()
    own = means_and_variances(student.plain)
    BatchNormEstimator(student.model).estimate(batches)
    quantized = means_and_variances(student.model)
    BatchNormShift(student.plain, student.model).estimate(batches)
    got = means_and_variances(student.model)
    assert means_and_variances(student.plain).keys() == own.keys()
    for name, values in means_and_variances(student.plain).items():
        np.testing.assert_array_equal(values, own[name])  # the float student is as it was
    BatchNormEstimator(student.plain).estimate(batches)
    full_precision = means_and_variances(student.plain)
    for name, (mean, variance) in got.items():
        epsilon = student.plain.get_layer(name).epsilon
        (m, v), (m2, v2) = full_precision[name], quantized[name]
        np.testing.assert_allclose(mean, own[name][0] + m2 - m, rtol=1e-4, atol=1e-4)
        expected = (own[name][1] + epsilon) * (v2 + epsilon) / (v + epsilon) - epsilon
        np.testing.assert_allclose(variance, expected, rtol=1e-4, atol=1e-5)


def test_a_student_that_quantization_leaves_alone_keeps_its_statistics_whatever_the_pictures(
    make_quantized_student, batches
):
    """Pictures that are unlike those of the training have no say: nothing moved."""
    student = make_quantized_student(bits=(8, 8))
    own = means_and_variances(student.plain)
    BatchNormShift(student.plain, student.model).estimate([np.full_like(batches[0], 255), batches[1] // 8])
    BatchNormEstimator(student.plain).estimate([np.full_like(batches[0], 255), batches[1] // 8])
    for name, (mean, _) in means_and_variances(student.model).items():
        far = np.abs(means_and_variances(student.plain)[name][0] - own[name][0]).max()
        assert np.abs(mean - own[name][0]).max() < 0.1 * far


def test_a_channel_of_zeros_and_frozen_layers_stay_sound(make_quantized_student, batches):
    student = make_quantized_student()
    layer = student.plain.get_layer("stem")
    kernel, *rest = layer.get_weights()
    kernel[..., 0] = 0.0
    layer.set_weights([kernel, *rest])
    student.plain.get_layer("stem_bn").moving_variance.assign(tf.zeros_like(layer.get_weights()[0][0, 0, 0]))
    student.copy_weights_from_plain()
    BatchNormShift(student.plain, student.model).estimate(batches)
    for mean, variance in means_and_variances(student.model).values():
        assert np.all(np.isfinite(mean)) and np.all(variance >= 0) and np.all(np.isfinite(variance))


def test_shift_needs_a_batch(make_quantized_student):
    student = make_quantized_student()
    with pytest.raises(ValueError, match="no batch"):
        BatchNormShift(student.plain, student.model).estimate([])
