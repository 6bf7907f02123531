import json
import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from qkd_tf.contract.grid import signed_grid, unsigned_grid, weight_grid
from qkd_tf.quantization.quantizers import (
    SMALLEST_INTERVAL,
    ActivationQuantizer,
    KernelQuantizer,
    LearnedIntervalQuantizer,
    PositiveInterval,
)


def built(quantizer, shape=(None, 4)):
    layer = tf_keras.layers.Layer(name="layer")
    return layer, quantizer.build(tf.TensorShape(shape), "output", layer)


def interval_after_one_step(optimizer, gradient, start=0.5):
    _, weights = built(LearnedIntervalQuantizer(weight_grid(4)))
    interval = weights["interval"]
    interval.assign(start)
    optimizer.apply_gradients([(tf.constant(gradient), interval)])
    return float(interval.numpy())


def interval_gradient(quantizer, shape, x):
    _, weights = built(quantizer, shape)
    with tf.GradientTape() as tape:
        x_hat = quantizer(tf.constant(x), training=True, weights=weights)
    return float(tape.gradient(x_hat, weights["interval"]))


def test_interval_is_one_trained_positive_scalar_of_the_layer():
    quantizer = LearnedIntervalQuantizer(weight_grid(4))
    layer, weights = built(quantizer)
    assert list(weights) == ["interval"]
    assert weights["interval"] is quantizer.interval
    assert [id(v) for v in layer.trainable_weights] == [id(quantizer.interval)]
    assert quantizer.interval.shape == ()
    assert "output_interval" in quantizer.interval.name
    assert float(quantizer.interval.numpy()) == 1.0
    assert isinstance(quantizer.interval.constraint, PositiveInterval)


@pytest.mark.parametrize("training", [True, False])
def test_call_rounds_to_the_grid_in_both_modes(training):
    quantizer = LearnedIntervalQuantizer(unsigned_grid(2))
    _, weights = built(quantizer)
    weights["interval"].assign(0.5)
    x_hat = quantizer(tf.constant([-1.0, 0.2, 0.3, 1.5, 9.0]), training=training, weights=weights)
    assert x_hat.numpy().tolist() == [0.0, 0.0, 0.5, 1.5, 1.5]


def test_mask_gradient_is_handed_on():
    for mask_gradient, expected in ((True, [0.0, 1.0]), (False, [1.0, 1.0])):
        quantizer = LearnedIntervalQuantizer(weight_grid(2), mask_gradient=mask_gradient)
        _, weights = built(quantizer)
        x = tf.constant([5.0, 0.25])
        with tf.GradientTape() as tape:
            tape.watch(x)
            x_hat = quantizer(x, training=True, weights=weights)
        assert tape.gradient(x_hat, x).numpy().tolist() == expected


@pytest.mark.parametrize(
    "optimizer",
    [
        tf_keras.optimizers.SGD(1e6),
        tf_keras.optimizers.SGD(1e6, momentum=0.9),
        tf_keras.optimizers.Adam(1e6),
        tf_keras.optimizers.legacy.SGD(1e6),
    ],
    ids=["sgd", "momentum", "adam", "legacy_sgd"],
)
def test_interval_stays_positive_under_an_absurd_step(optimizer):
    assert interval_after_one_step(optimizer, 1e6) == np.float32(SMALLEST_INTERVAL) > 0


def test_interval_takes_an_ordinary_step_unchanged():
    assert interval_after_one_step(tf_keras.optimizers.SGD(0.25), 1.0) == 0.25
    assert interval_after_one_step(tf_keras.optimizers.SGD(0.25), -1.0) == 0.75


@pytest.mark.parametrize("value", [-1.0, 0.0, SMALLEST_INTERVAL / 2])
def test_constraint_lifts_what_is_too_small(value):
    assert PositiveInterval()(tf.constant(value)).numpy() == np.float32(SMALLEST_INTERVAL)


def test_constraint_survives_serialization():
    packed = tf_keras.constraints.serialize(PositiveInterval())
    json.dumps(packed)
    assert isinstance(tf_keras.constraints.deserialize(packed), PositiveInterval)


@pytest.mark.parametrize(
    "shape, grid, num_elements",
    [
        ((3, 3, 2, 4), weight_grid(4), 72),
        ((None, 4, 4, 2), unsigned_grid(4), 32),
        ((None, 10), signed_grid(8), 10),
    ],
)
def test_lsq_scale_divides_by_the_root_of_elements_times_qmax(shape, grid, num_elements):
    x = np.full([2 if d is None else d for d in shape], 0.25, np.float32)
    plain = interval_gradient(LearnedIntervalQuantizer(grid), shape, x)
    scaled = interval_gradient(LearnedIntervalQuantizer(grid, interval_gradient_scale="lsq"), shape, x)
    assert plain == -0.25 * x.size  # round(z) - z of each element: the unscaled gradient is the formula's own
    assert scaled == pytest.approx(plain / math.sqrt(num_elements * grid.qmax), rel=1e-6)


def test_unknown_gradient_scale_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'lsg'.*none, lsq"):
        LearnedIntervalQuantizer(weight_grid(4), interval_gradient_scale="lsg")


@pytest.mark.parametrize("grid", [weight_grid(2), unsigned_grid(4), signed_grid(8)])
@pytest.mark.parametrize("mask_gradient", [True, False])
@pytest.mark.parametrize("scale", ["none", "lsq"])
def test_config_round_trips_through_json(grid, mask_gradient, scale):
    config = LearnedIntervalQuantizer(grid, mask_gradient, scale).get_config()
    copy = LearnedIntervalQuantizer.from_config(json.loads(json.dumps(config)))
    assert (copy.grid, copy.mask_gradient, copy.interval_gradient_scale) == (grid, mask_gradient, scale)
    assert copy.get_config() == config


@pytest.mark.parametrize("kind", [LearnedIntervalQuantizer, KernelQuantizer])
def test_ewgs_scale_is_handed_on_and_survives_its_config(kind):
    quantizer = kind.from_config(json.loads(json.dumps(kind(weight_grid(3), ewgs_scale=0.5).get_config())))
    _, weights = built(quantizer)
    x = tf.constant([0.375])  # of a range of 6
    with tf.GradientTape() as tape:
        tape.watch(x)
        x_hat = quantizer(x, training=True, weights=weights)
    assert tape.gradient(x_hat, x).numpy().tolist() == [1.03125]


def test_fused_form_refuses_what_it_does_not_have():
    with pytest.raises(ValueError, match="ewgs_scale is 0.001"):
        ActivationQuantizer(weight_grid(3), ewgs_scale=1e-3)
