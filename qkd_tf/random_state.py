"""Where chance comes from, and how it is had again."""

import tensorflow as tf
import tf_keras


def seed_everything(seed: int, deterministic: bool | None) -> None:
    """To be called before a network is built: random layers keep their state in variables from then on.

    Args:
      deterministic: let TensorFlow take kernels that give equal bits for equal input, or none; None for: where
        it runs on the CPU. It holds as long as the process.
    """
    tf_keras.utils.set_random_seed(seed)
    tf_keras.backend.experimental.enable_tf_random_generator()
    if deterministic if deterministic is not None else not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def generators(*models: tf_keras.Model) -> list[tf.random.Generator]:
    """Those of the models' random layers, Dropout and its like, in order; Keras puts them into no checkpoint.

    A layer that asks `tf.random` itself has none.
    """
    found = []
    for model in models:
        for layer in model.submodules:
            random_generator = getattr(layer, "_random_generator", None)  # of Keras' BaseRandomLayer
            generator = getattr(random_generator, "_generator", None)
            if generator is not None and all(generator is not other for other in found):
                found.append(generator)
    return found
