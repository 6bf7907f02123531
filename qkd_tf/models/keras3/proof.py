"""The proof that a Keras 3 model and its copy in tf_keras compute the same function."""

import contextlib
import copy
import importlib
import itertools
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.models.keras3.refusal import WIDTH, RefusalError
from qkd_tf.models.nudges import NUDGES, nudged
from qkd_tf.storage.archive import first_line

# Largest difference of outputs, as a share of the largest one: where both compute by TensorFlow's kernels, where Keras
# 3 has another backend, whose sums have another order, and of models of fewer bits.
TOLERANCES = {"float32": 1e-5, "backend": 1e-3, "float16": 0.02, "bfloat16": 0.15}
CHAOS = 0.1  # a range of pixels on which a network amplifies rounding to more than this is not compared
RANGES = ((0, 255), (0, 1), (-1, 1))  # of pixels: what one range saturates is seen in another
NUM_PICTURES = 2  # of each range
PROBABILITIES = ("softmax", "sigmoid")  # names of functions
SIDE = 96  # of pictures of a model that takes any; the deepest of keras.applications need 75


class AmplifiedError(RefusalError):
    """A network amplifies rounding so much that its outputs in this precision cannot be compared."""


def keras3() -> ModuleType | None:
    """Keras 3, or None if it cannot be imported."""
    try:
        keras = importlib.import_module("keras")
    except (ImportError, ValueError):  # it is not there, or its backend is not
        return None
    return keras if int(keras.__version__.split(".")[0]) >= 3 else None


def rebuilt(keras: ModuleType, config: Mapping, path: pathlib.Path):
    """The Keras 3 model of a checked configuration, with the arrays that Keras 3 itself reads from a file.

    Keras 3 never gets the file's own configuration, so we do not rely on its safe mode.

    Raises:
      RefusalError: Keras 3 cannot read it, in its own words.
    """
    try:
        model = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)  # which changes it
        model.load_weights(path)
    except Exception as error:  # whatever Keras makes of a stranger's file
        reason = first_line(error, WIDTH)
        raise RefusalError(f"which Keras {keras.__version__} itself cannot read: {reason}; save it again") from error
    return model


def double_of(keras: ModuleType, config: Mapping, model):
    """A copy of a Keras 3 model that computes in float64.

    Args:
      config: of the model, as `config.in_double` returns it.
    """
    copied = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)  # which changes it
    copied.set_weights(model.get_weights())
    for layer in copied._flatten_layers():
        if hasattr(layer, "finalize_state"):  # a Normalization keeps what it computes of its weights
            layer.finalize_state()
    return copied


def prove(model, converted: tf_keras.Model, input_shape: tuple[int, ...] | None = None) -> float:
    """The largest difference of outputs on random pixels, as a share of the largest output.

    A softmax or sigmoid at the end is compared separately: after large logits it hides differences, or turns their
      rounding into one.

    Args:
      model: a Keras 3 model; it is left unchanged.
      input_shape: shape of a picture, if the model takes any.

    Raises:
      AmplifiedError: rounding alone would explain any difference.
      RefusalError: they differ, or Keras 3 cannot call the model.
    """
    pictures, keras = _pictures(converted, input_shape), keras3()

    def array(outputs) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")))

    try:
        with _open_ended(model, keras.activations.linear) as theirs:
            expected = array(_called(model, pictures))
    except Exception as error:  # whatever the model makes of itself
        reason = first_line(error, WIDTH)
        raise RefusalError(f"which Keras 3 cannot call on pictures of {pictures.shape[1:]}: {reason}") from error
    with _open_ended(converted, tf_keras.activations.linear) as ours:
        got = np.asarray(_called(converted, pictures), np.float32)
        by_nudge = [np.asarray(_called(converted, one), np.float32) for one in nudged(pictures)]
    tolerance = _tolerance(keras.backend.backend(), converted)
    ending = np.asarray(ours(tf.constant(expected))), array(theirs(keras.ops.convert_to_tensor(expected)))
    rows = [(_difference(*ending), tolerance)]
    for copied, original, *moved in zip(
        *(np.split(one, len(RANGES)) for one in (got, expected, *by_nudge)), strict=True
    ):
        own = NUDGES * max(_difference(one, copied) for one in moved)
        if own <= CHAOS or tolerance > CHAOS:
            rows.append((_difference(copied, original), max(tolerance, own)))
    if len(rows) == 1:
        raise AmplifiedError(
            "which amplifies rounding so much that outputs cannot be compared; give it trained weights"
        )
    for difference, allowed in rows:
        if not difference <= allowed:
            raise RefusalError(
                f"and its copy in tf_keras computes something else: outputs differ by {difference:.2g} of the largest "
                f"one, and rounding explains {allowed:.2g}; build it with tf_keras, and please report it"
            )
    return max(difference for difference, _ in rows)


@contextlib.contextmanager
def _open_ended(model, linear: Callable) -> Iterator[Callable]:
    """A context in which the last layer of a model, of either library, does not apply its softmax or sigmoid.

    Yields the function that it otherwise applies.
    """
    last = model
    while hasattr(last, "layers"):
        last = last.outputs[0]._keras_history[0]
    function = getattr(last, "activation", None)
    if getattr(function, "__name__", None) not in PROBABILITIES:
        yield linear
        return
    last.activation = linear
    try:
        yield function
    finally:
        last.activation = function


def _pictures(model: tf_keras.Model, input_shape: tuple[int, ...] | None) -> np.ndarray:
    """[len(RANGES) * NUM_PICTURES, H, W, C] in order of RANGES."""
    sides = model.input_shape[1:]
    shape = [side or data or SIDE for side, data in itertools.zip_longest(sides, (input_shape or ())[: len(sides)])]
    rng = np.random.default_rng(0)
    pictures = np.concatenate([rng.uniform(*ends, (NUM_PICTURES, *shape)) for ends in RANGES])
    dtype = model.inputs[0].dtype
    return pictures.astype(dtype.as_numpy_dtype) if dtype.is_floating else np.abs(pictures).astype(dtype.as_numpy_dtype)


def _called(model: Callable, pictures: np.ndarray):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns where a batch stands for a list of one
        output = model(pictures, training=False)
    return output[0] if isinstance(output, list | tuple) else output


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape or not np.array_equal(np.isfinite(got), np.isfinite(expected)):
        return np.inf
    finite = np.isfinite(expected)
    largest = np.max(np.abs(expected), initial=0.0, where=finite)
    return float(np.max(np.abs(got - expected), initial=0.0, where=finite) / (largest or 1.0))


def _tolerance(backend: str, model: tf_keras.Model) -> float:
    found = {getattr(layer, "compute_dtype", "float32") for layer in model.submodules}
    found |= {"float32" if backend == "tensorflow" else "backend"}
    return max(value for key, value in TOLERANCES.items() if key in found)
