import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import pytest


@pytest.fixture(scope="session")
def keras():
    return pytest.importorskip("keras", "3")


@pytest.fixture(scope="session")
def randomized():
    """randomized(model): the model of Keras 3 with vectors of chance; kernels are drawn already."""

    def randomize(model, seed=0):
        rng = np.random.default_rng(seed)
        for weight in model.weights:
            positive = "variance" in weight.name or "gamma" in weight.name
            if positive or len(weight.shape) == 1:
                weight.assign(rng.uniform(0.9, 1.1, weight.shape) if positive else rng.normal(0, 0.05, weight.shape))
        for layer in model.layers:
            if hasattr(layer, "finalize_state"):  # a Normalization keeps what it computes of its weights
                layer.finalize_state()
        return model

    return randomize


@pytest.fixture(scope="session")
def alike():
    """alike(model): largest difference of a model of Keras 3 and what is made of it, and the latter."""
    from qkd_tf.models.keras3 import arrays, door, proof
    from qkd_tf.models.keras3.conversion import convert

    def compare(model):
        converted = convert(door.of_model(model).config, arrays.of_model(model))
        return proof.prove(model, converted), converted

    return compare


@pytest.fixture(scope="session")
def network(keras, randomized):
    """network(): one of all that differs between the two: nested, shared, operations, activations, frozen parts."""

    def make(name="mine"):
        layers = keras.layers
        inner = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(trainable=False),
                layers.Dropout(0.2),
                layers.LeakyReLU(),
                layers.BatchNormalization(),
            ],
            name="base",
        )
        small = keras.Input((4, 4, 3))
        shared = keras.Model(small, layers.Conv2D(3, 3, padding="same", name="conv")(small), name="shared")
        pixels = keras.Input((8, 8, 3))
        x = layers.RandomFlip()(layers.Rescaling(1 / 255)(pixels))
        x = inner(x, training=False)
        y = layers.Conv2D(4, 3, padding="same", activation="hard_silu")(x)
        x = 1.0 - (x + y) * 2.0
        x = keras.ops.relu(x / 3.0 + y)
        x = layers.SeparableConv2D(3, 3)(layers.PReLU(shared_axes=[1, 2])(x))
        x = layers.Concatenate()([shared(x), shared(shared(x))])
        x = layers.GlobalAveragePooling2D()(layers.Dropout(0.3)(x))
        x = layers.Dense(6, activation=layers.LeakyReLU())(x)
        return randomized(keras.Model(pixels, layers.Dense(5, activation="softmax")(x), name=name))

    return make
