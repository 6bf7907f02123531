"""Random state: how it is seeded, and how it is restored."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.eager import context
from tensorflow.python.framework import config
from tf_keras.src import backend

ABSENT = object()


@contextlib.contextmanager
def seeded(seed: int, deterministic: bool | None) -> Iterator[None]:
    """`seed_everything` for a context; after it random numbers resume where they were, and kernels are as before.

    Python's, NumPy's and TensorFlow's global seeds belong to the process: no other thread should draw meanwhile.
    """
    python, numpy, determinism = random.getstate(), np.random.get_state(), config.is_op_determinism_enabled()
    # None of these can be read in public.
    places = (
        (context.context(), ("_seed", "_rng")),
        (backend._SEED_GENERATOR, ("generator",)),
        (backend, ("_USE_GENERATOR_FOR_RNG",)),
    )
    before = [(owner, name, vars(owner).get(name, ABSENT)) for owner, names in places for name in names]
    try:
        seed_everything(seed, deterministic)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for owner, name, value in before:
            vars(owner).pop(name, None)
            if value is not ABSENT:
                vars(owner)[name] = value
        _set_determinism(determinism)
        context.context().clear_kernel_cache()  # kernels keep the determinism that they were made under


def seed_everything(seed: int, deterministic: bool | None) -> None:
    """Call it before a network is built: from then on, random layers keep their state in variables.

    Args:
      deterministic: whether TensorFlow must use kernels that give equal bits for equal input. None: if it runs on the
        CPU, or already does so.
    """
    tf_keras.utils.set_random_seed(seed)
    tf_keras.backend.experimental.enable_tf_random_generator()
    _set_determinism(is_deterministic(deterministic))


def is_deterministic(asked: bool | None) -> bool:
    """Whether kernels give equal bits for equal input; None: on a CPU, or if it is so already."""
    if asked is None:
        return config.is_op_determinism_enabled() or not tf.config.list_physical_devices("GPU")
    return asked


def _set_determinism(wanted: bool) -> None:
    if wanted:
        tf.config.experimental.enable_op_determinism()
    else:
        config.disable_op_determinism()


def generators(*models: tf_keras.Model) -> list[tf.random.Generator]:
    """Generators of the models' random layers, such as Dropout, in order; Keras puts them into no checkpoint.

    A layer that calls `tf.random` itself has none.
    """
    found = []
    for model in models:
        for layer in model.submodules:
            random_generator = getattr(layer, "_random_generator", None)  # of Keras' BaseRandomLayer
            generator = getattr(random_generator, "_generator", None)
            if generator is not None and all(generator is not other for other in found):
                found.append(generator)
    return found
