import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.contract.grid import weight_grid
from qkd_tf.distillation.mixed_precision import LossScale, check_device, training_in
from qkd_tf.experiment import ExperimentError
from qkd_tf.quantization.fake_quant import fake_quantize


def test_float32_and_what_the_device_has_are_taken():
    check_device("float32")
    check_device("float16" if tf.config.list_physical_devices("GPU") else "bfloat16")


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="a machine with a GPU takes float16")
def test_float16_without_a_gpu_is_refused_with_the_way_out():
    with pytest.raises(ExperimentError, match="--mixed_precision=float16 needs a GPU.*use --mixed_precision=bfloat16"):
        check_device("float16")


def test_rewrite_holds_inside_and_ends_outside():
    option = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options()
    assert not before.get(option)
    with training_in("bfloat16"):
        assert tf.config.optimizer.get_experimental_options()[option]
    assert tf.config.optimizer.get_experimental_options() == before
    with pytest.raises(RuntimeError), training_in("bfloat16"):
        raise RuntimeError
    assert tf.config.optimizer.get_experimental_options() == before
    with training_in("float32"):
        assert tf.config.optimizer.get_experimental_options() == before


def test_gradients_are_divided_by_the_scale_that_the_loss_was_multiplied_by():
    loss_scale = LossScale(8.0)
    (gradient,), finite = loss_scale.unscale([tf.constant([16.0, -4.0])])
    assert gradient.numpy().tolist() == [2.0, -0.5]
    assert bool(finite)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_overflow_is_told_and_halves_the_scale(value):
    loss_scale = LossScale(8.0, growth_steps=2)
    loss_scale.unscale([tf.constant([1.0])])
    _, finite = loss_scale.unscale([tf.constant([1.0]), tf.constant([1.0, value])])
    assert not bool(finite)
    assert (float(loss_scale.scale), int(loss_scale.good_steps)) == (4.0, 0)


def test_scale_doubles_after_good_steps_and_never_falls_below_one():
    loss_scale = LossScale(2.0, growth_steps=3)
    scales = []
    for value in (1.0, 1.0, 1.0, 1.0, np.inf, np.inf, np.inf, np.inf):
        loss_scale.unscale([tf.constant([value])])
        scales.append(float(loss_scale.scale))
    assert scales == [2.0, 2.0, 4.0, 4.0, 2.0, 1.0, 1.0, 1.0]


def test_function_computes_in_half_precision_inside_and_to_the_same_bits_as_before_outside():
    x, kernel = (tf.random.stateless_normal(shape, (1, 2)) for shape in ((16, 16, 16, 16), (3, 3, 16, 16)))
    function = tf.function(lambda x: tf.nn.conv2d(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")), kernel, 1, "SAME"))
    before = function(x).numpy()
    with training_in("bfloat16"):
        inside = function(x).numpy()
    np.testing.assert_array_equal(function(x), before)
    np.testing.assert_allclose(inside, before, atol=0.02 * np.abs(before).max())  # exact on CPUs that have no bfloat16


@pytest.mark.parametrize("masked", [True, False])
def test_kernels_are_rounded_in_float32_inside(masked):
    """Just above a half, bfloat16's neighbours are the half and 0.5039: rounded in it, no kernel would reach 1."""
    x, interval = tf.random.stateless_uniform((16, 16, 16, 16), (1, 2)), tf.constant(0.25)
    kernels = [tf.Variable(tf.fill((3, 3, 16, 16), 0.501 * 0.25)) for _ in range(2)]

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(interval)
            for kernel in kernels:
                x = tf.nn.relu(tf.nn.conv2d(x, fake_quantize(kernel, interval, weight_grid(2), masked), 1, "SAME"))
            loss = tf.reduce_mean(x)
        return loss, tape.gradient(loss, [*kernels, interval])

    expected, _ = step(x)
    with training_in("bfloat16"):
        inside, _ = step(x)
    np.testing.assert_allclose(inside, expected, rtol=0.02)
