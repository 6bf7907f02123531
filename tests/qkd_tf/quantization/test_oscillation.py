"""Dampening and freezing: hand-made sequences, and both restated in NumPy."""

import types

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qkd_tf.contract import grid as grids
from qkd_tf.quantization.oscillation import (
    MOMENTUM,
    Freezing,
    Oscillation,
    at_rest,
    cosine,
    dampening_loss,
    latent_value,
    observe,
    to_integers,
)

GRIDS = [grids.weight_grid(b) for b in range(grids.MIN_BITS, grids.MAX_BITS + 1)]
VALUES = arrays(np.float32, (3, 4), elements=st.floats(-20, 20, width=32).map(lambda v: v if abs(v) > 2**-20 else 0.0))
INTERVALS = st.floats(2**-6, 4, width=32)


def loss_and_gradients(kernel, interval, grid):
    kernel, interval = tf.constant(kernel, tf.float32), tf.constant(interval, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([kernel, interval])
        loss = dampening_loss(kernel, interval, grid)
    return loss.numpy(), *tape.gradient(loss, [kernel, interval])


# w / I, what is lost, dL/dw; I = 0.5 and integers -3..3
DAMPENING_GOLDEN = [
    (-4.0, 0.0, 0.0),
    (-3.0625, 0.0, 0.0),
    (-3.0, 0.0, 0.0),
    (-2.75, 0.015625, 0.25),
    (-2.5, 0.0625, -0.5),  # half to even: -2
    (0.0, 0.0, 0.0),
    (0.25, 0.015625, 0.25),
    (0.5, 0.0625, 0.5),
    (0.75, 0.015625, -0.25),
    (1.5, 0.0625, -0.5),
    (2.75, 0.015625, -0.25),
    (3.0, 0.0, 0.0),
    (3.0625, 0.0, 0.0),
    (4.0, 0.0, 0.0),
]


@pytest.mark.parametrize("z, expected, gradient", DAMPENING_GOLDEN)
def test_dampening_golden_values(z, expected, gradient):
    loss, dw, dinterval = loss_and_gradients([z * 0.5], 0.5, grids.weight_grid(3))
    assert (loss, dw.numpy().tolist()) == (expected, [gradient])
    assert dinterval is None


@given(kernel=VALUES, interval=INTERVALS, grid=st.sampled_from(GRIDS))
def test_dampening_is_the_squared_way_to_the_integers(kernel, interval, grid):
    loss, dw, _ = loss_and_gradients(kernel, interval, grid)
    w, low, high = kernel.astype(np.float64), interval * grid.qmin, interval * grid.qmax
    way = w - interval * np.clip(np.round(w / interval), grid.qmin, grid.qmax)
    inside = (w >= low) & (w <= high)
    # At a half either integer is as near, and float32 may take the other.
    tie = np.abs(np.abs(way) - interval / 2) < 1e-5 * interval * grid.qmax
    np.testing.assert_allclose(loss, np.sum(way[inside] ** 2), rtol=1e-4, atol=1e-4 * interval**2)
    expected = np.where(inside, 2 * way, 0.0)
    np.testing.assert_allclose(dw.numpy()[~tie], expected[~tie], atol=1e-5 * interval * grid.qmax)


@pytest.mark.parametrize(
    "share, expected", [(0.0, 0.1), (0.25, 0.0868198), (0.5, 0.055), (0.75, 0.0231802), (1.0, 0.01)]
)
def test_cosine_goes_from_start_to_end(share, expected):
    np.testing.assert_allclose(cosine(0.1, 0.01, tf.constant(share)), expected, rtol=1e-5)
    np.testing.assert_allclose(cosine(0.0, 0.1, tf.constant(share)), 0.1 / 0.09 * (0.1 - expected), atol=1e-8)


def watch(integers, threshold):
    """States of one weight, a step each, from at_rest at the first integer."""
    states = [at_rest(tf.constant([float(integers[0])]))]
    for integer in integers[1:]:
        states.append(observe(states[-1], tf.constant([float(integer)]), tf.constant(threshold)))
    return states


def test_weight_that_turns_is_frozen_when_its_frequency_passes_the_threshold():
    """1, 2, 1, 2, 1: the first change has no direction to turn from, then every step is a turn."""
    states = watch([1, 2, 1, 2, 1], threshold=0.025)
    frequencies = [float(s.frequency[0]) for s in states]
    np.testing.assert_allclose(frequencies, [0, 0, 0.01, 0.0199, 0.029701], rtol=1e-6)
    assert [bool(s.frozen[0]) for s in states] == [False, False, False, False, True]
    assert [float(s.direction[0]) for s in states] == [0, 1, -1, 1, -1]
    means = [1, 1.01, 1.0099, 1.019801, 1.01960299]
    np.testing.assert_allclose([float(s.mean[0]) for s in states], means, rtol=1e-6)


@pytest.mark.parametrize(
    "integers, turns",
    [
        ([0, 1, 2, 3, 3], 0),  # always upward
        ([0, 1, 1, 1, 0], 1),  # a pause does not hide a turn
        ([0, 2, 2, 1, 1], 1),  # nor does the size of a change count
        ([0, 0, 0, 0, 0], 0),
        ([0, 1, 0, -1, 0], 2),
    ],
)
def test_turns_are_changes_against_the_last_change(integers, turns):
    last = watch(integers, threshold=1.0)[-1]
    low, high = turns * MOMENTUM * (1 - MOMENTUM) ** 4, turns * MOMENTUM
    assert low * 0.999 <= float(last.frequency[0]) <= high * 1.001
    assert not bool(last.frozen[0])


def test_frequency_at_the_threshold_does_not_freeze():
    assert not bool(watch([0, 1, 0], threshold=float(np.float32(MOMENTUM)))[-1].frozen[0])
    assert bool(watch([0, 1, 0], threshold=0.0099)[-1].frozen[0])


def test_frozen_weight_stays_frozen_and_keeps_its_mean():
    states = watch([1, 2, 1, 2, 1, 1, 1, 3, 3, 3], threshold=0.025)
    assert all(bool(s.frozen[0]) for s in states[4:])
    assert {float(s.mean[0]) for s in states[4:]} == {float(states[4].mean[0])}


def reference_walk(walk, thresholds):
    """Nagel et al. weight by weight, in Python's own arithmetic: integers [T, n] -> frequencies, means, frozen."""
    frequencies, means, frozen = [], [], []
    for track in walk.T:
        f, mean, last_change, is_frozen = 0.0, float(track[0]), 0, False
        for before, now, threshold in zip(track[:-1], track[1:], thresholds, strict=True):
            change = int(now) - int(before)
            f = (1 - MOMENTUM) * f + (MOMENTUM if change * last_change < 0 else 0.0)
            last_change = change or last_change
            if not is_frozen:
                mean += MOMENTUM * (now - mean)
            is_frozen = is_frozen or f > threshold
        frequencies.append(f)
        means.append(mean)
        frozen.append(is_frozen)
    return np.array(frequencies), np.array(means), np.array(frozen)


@pytest.mark.parametrize("seed", range(3))
def test_random_walks_end_as_in_the_restatement(seed):
    rng = np.random.default_rng(seed)
    steps = rng.choice([-1, 0, 0, 1], (60, 50)) * (rng.random(50) < 0.7)
    walk = np.clip(np.cumsum(steps, axis=0), -3, 3).astype(np.float32)
    thresholds = np.linspace(0.1, 0.0333, 59)
    step = tf.function(observe)
    state = at_rest(tf.constant(walk[0]))
    for integers, threshold in zip(walk[1:], thresholds, strict=True):
        state = Oscillation(*step(state, tf.constant(integers), tf.constant(threshold, tf.float32)))
    frequency, mean, frozen = reference_walk(walk, thresholds)
    np.testing.assert_allclose(state.frequency, frequency, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(state.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state.frozen, frozen)
    assert 0 < frozen.sum() < frozen.size


@given(interval=st.floats(2**-20, 16, width=32), grid=st.sampled_from(GRIDS))
def test_latent_value_is_inside_the_range_and_rounds_to_its_integer(interval, grid):
    integers = np.arange(grid.qmin, grid.qmax + 1, dtype=np.float32)
    interval = tf.constant(interval, tf.float32)
    value = latent_value(tf.constant(integers), interval)
    np.testing.assert_allclose(value, integers * interval.numpy(), rtol=1.2e-7, atol=0)
    assert np.all(np.abs((value / interval).numpy()) <= np.abs(integers))
    np.testing.assert_array_equal(to_integers(value, interval, grid), integers)


def test_product_alone_would_leave_the_range():
    """Why `latent_value` looks: there are intervals at which 3 * I / I is not 3."""
    intervals = np.random.default_rng(0).uniform(0.01, 1.0, 1000).astype(np.float32)
    beyond = np.float32(3) * intervals / intervals > 3
    assert beyond.any()


@pytest.fixture
def weights():
    """Two kernels of three weights, at integers 0, 1, 2 of an interval of 0.5."""
    return {
        name: types.SimpleNamespace(
            kernel=(kernel := tf.Variable([0.05, 0.52, 1.1])),
            values=kernel.read_value,
            interval=tf.Variable(0.5),
            grid=grids.weight_grid(3),
        )
        for name in ("block/one", "two")
    }


def test_frozen_weight_follows_its_interval_and_nothing_else(weights):
    freezing, weight = Freezing(weights), weights["two"]
    freezing.reset(weights)
    update = tf.function(lambda: freezing.update(weights, 0.005))
    for middle in (0.8, 0.6, 0.9):  # integers 2, 1, 2: the second of them is a turn
        weight.kernel.assign([0.07, middle, 1.2])
        update()
    # Its integers had a mean of 1.02; its neighbours are left as they are.
    np.testing.assert_array_equal(weight.kernel, np.float32([0.07, 0.5, 1.2]))
    assert freezing.share() == pytest.approx(100 / 6)
    np.testing.assert_array_equal(weights["block/one"].kernel, np.float32([0.05, 0.52, 1.1]))
    weight.kernel.assign([0.01, -1.3, 1.3])
    weight.interval.assign(0.75)
    update()
    np.testing.assert_array_equal(weight.kernel, np.float32([0.01, 0.75, 1.3]))


def test_reset_forgets_what_was_frozen(weights):
    freezing, weight = Freezing(weights), weights["two"]
    freezing.reset(weights)
    for middle in (0.8, 0.6):
        weight.kernel.assign([0.07, middle, 1.2])
        freezing.update(weights, 0.005)
    assert freezing.share() > 0
    weight.kernel.assign([0.07, -0.6, 1.2])
    freezing.reset(weights)
    assert freezing.share() == 0.0
    freezing.update(weights, 0.005)
    np.testing.assert_array_equal(weight.kernel, np.float32([0.07, -0.6, 1.2]))


def test_state_is_restored_from_a_checkpoint(weights, tmp_path):
    first, other = Freezing(weights), Freezing(weights)
    first.reset(weights)
    for middle in (0.8, 0.6):
        weights["two"].kernel.assign([0.07, middle, 1.2])
        first.update(weights, 0.005)
    path = tf.train.Checkpoint(freezing=first).write(str(tmp_path / "state"))
    tf.train.Checkpoint(freezing=other).read(path).assert_consumed()
    assert len(first.variables) == 2 * len(Oscillation._fields)
    for ours, expected in zip(other.variables, first.variables, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert not any(v.trainable for v in first.variables)


def test_xla_computes_the_same(weights):
    plain, compiled = Freezing(weights), Freezing(weights)
    kernels = [[0.07, 0.8, 1.2], [0.3, 0.6, 1.6], [0.1, 0.8, 1.2]]
    seen = []
    for freezing, jit in ((plain, False), (compiled, True)):
        weights["two"].kernel.assign([0.05, 0.52, 1.1])
        freezing.reset(weights)
        update = tf.function(lambda freezing=freezing: freezing.update(weights, 0.005), jit_compile=jit)
        for kernel in kernels:
            weights["two"].kernel.assign(kernel)
            update()
        seen.append([weights["two"].kernel.numpy(), *(v.numpy() for v in freezing.variables)])
    for ours, expected in zip(*seen, strict=True):
        np.testing.assert_allclose(np.float32(ours), np.float32(expected), rtol=1e-6)
    assert plain.share() > 0
