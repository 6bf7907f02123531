import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.framework import config
from tf_keras import layers

from qkd_tf.process import random_state


@pytest.fixture
def net(chain):
    return lambda: chain(layers.Dropout(0.5), layers.Conv2D(2, 3), layers.SpatialDropout2D(0.5), layers.Flatten())


def masks(model, images):
    return [model(images, training=True).numpy() for _ in range(3)]


def test_masks_of_random_layers_are_had_again_from_their_generators(net, images):
    random_state.seed_everything(1, deterministic=False)
    model = net()
    generators = random_state.generators(model)
    assert len(generators) == 2
    before = [generator.state.numpy() for generator in generators]
    first = masks(model, images)
    assert not np.array_equal(first[0], first[1])
    for generator, value in zip(generators, before, strict=True):
        generator.state.assign(value)
    np.testing.assert_array_equal(masks(model, images), first)


def test_equal_seeds_give_equal_weights_and_masks(net, images):
    def seen(seed):
        random_state.seed_everything(seed, deterministic=False)
        return masks(net(), images)

    np.testing.assert_array_equal(seen(1), seen(1))
    assert not np.array_equal(seen(1), seen(2))


def test_a_layer_that_two_models_share_counts_once(chain):
    random_state.seed_everything(1, deterministic=False)
    shared = layers.Dropout(0.5)
    models = chain(shared), chain(shared, layers.ReLU())
    assert len(random_state.generators(*models)) == 1
    assert random_state.generators(chain(layers.ReLU())) == []


@pytest.mark.parametrize(
    "asked, gpus, expected",
    [(None, [], True), (None, ["gpu"], False), (True, ["gpu"], True), (False, [], False)],
)
def test_deterministic_kernels_are_the_default_of_a_cpu(monkeypatch, asked, gpus, expected):
    calls = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append("on"))
    random_state.seed_everything(0, asked)
    assert bool(calls) == expected


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_determinism_is_that_which_was_asked_for_and_then_that_of_before(before, asked):
    (config.enable_op_determinism if before else config.disable_op_determinism)()
    try:
        with random_state.seeded(0, asked):
            assert config.is_op_determinism_enabled() == asked
            with random_state.seeded(1, not asked):
                assert config.is_op_determinism_enabled() != asked
            assert config.is_op_determinism_enabled() == asked
        assert config.is_op_determinism_enabled() == before
    finally:
        config.disable_op_determinism()


def test_seeds_of_a_user_go_on():
    def draw():
        return [float(tf.random.uniform(())), float(tf_keras.backend.random_uniform(())), np.random.rand()]

    tf_keras.utils.set_random_seed(3)
    expected = [draw() for _ in range(2)]
    tf_keras.utils.set_random_seed(3)
    seen = [draw()]
    with random_state.seeded(0, deterministic=True):
        inner = draw()
    assert [*seen, draw()] == expected and inner not in expected
