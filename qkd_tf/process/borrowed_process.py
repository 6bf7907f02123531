"""The settings of a user's process during a call: as in a command, and restored at the end."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras
from absl import flags
from tf_keras import backend, mixed_precision

from qkd_tf.process import call_depth, random_state

# What a user may have set for all of Keras or TensorFlow: how it is read, how it is set, and its value in a command.
SETTINGS = (
    (backend.floatx, backend.set_floatx, "float32"),
    (backend.image_data_format, backend.set_image_data_format, "channels_last"),
    (backend.epsilon, backend.set_epsilon, 1e-7),
    (mixed_precision.global_policy, mixed_precision.set_global_policy, mixed_precision.Policy("float32")),
    (tf.config.functions_run_eagerly, tf.config.run_functions_eagerly, False),
    (tf.config.optimizer.get_jit, tf.config.optimizer.set_jit, ""),
    # A GPU's accuracy in TF32 would be that of other numbers than the CPU's, and integers would not be whole.
    (
        tf.config.experimental.tensor_float_32_execution_enabled,
        tf.config.experimental.enable_tensor_float_32_execution,
        False,
    ),
)
NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
LOGGERS = ("absl", "tensorflow")
_ONE_AT_A_TIME = threading.RLock()  # what is set and put back is the process's, not the thread's


@contextlib.contextmanager
def borrowed(seed: int = 0, deterministic: bool | None = False) -> Iterator[None]:
    """A context in which a call does what a command does in a process of its own.

    Afterwards, even after an error, seeds, determinism, Keras' and TensorFlow's settings and log levels are as they
    were. A second thread waits until the first one has left.

    Args:
      seed, deterministic: as in `random_state.seed_everything`.
    """
    with _ONE_AT_A_TIME, _set_as_at_start(), np.errstate(**NUMPY_ERRORS), _errors_logged_alone():
        with call_depth.for_deep_networks(), random_state.seeded(seed, deterministic):
            yield


@contextlib.contextmanager
def _set_as_at_start() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for read, write, start in SETTINGS:
            before = read()
            if _name(before) != _name(start):
                stack.callback(write, before)
                write(start)
        rewrites = tf.config.optimizer.get_experimental_options()
        if any(rewrites.values()):
            stack.callback(tf.config.optimizer.set_experimental_options, rewrites)
            tf.config.optimizer.set_experimental_options(dict.fromkeys(rewrites))
        yield


def _name(value: object) -> object:
    return value.name if isinstance(value, tf_keras.mixed_precision.Policy) else value


@contextlib.contextmanager
def _errors_logged_alone() -> Iterator[None]:
    """A context in which TensorFlow's Python side logs only errors, unless --verbosity asked for more."""
    chosen = not flags.FLAGS["verbosity"].using_default_value
    loggers = [] if chosen else [logging.getLogger(name) for name in LOGGERS]
    with contextlib.ExitStack() as stack:
        if not logging.root.handlers:  # absl would put one there for good
            handler = logging.StreamHandler()
            logging.root.addHandler(handler)
            stack.callback(logging.root.removeHandler, handler)
        for logger in loggers:
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield
