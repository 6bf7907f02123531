"""The proof that a model of Keras 3 and what was made of it in tf_keras are one function."""

import importlib
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType

import numpy as np
import tf_keras

from qkd_tf.archive import first_line
from qkd_tf.keras3.refusal import RefusalError

# Largest difference of outputs as a share of the largest one, where both compute by TensorFlow's kernels; and where
# Keras 3 has another backend, whose sums have another order, or the model is of fewer bits.
TOLERANCE, OTHER_TOLERANCES = 1e-5, {"bfloat16": 0.15, "float16": 0.02, "backend": 1e-3}
RANGES = ((0, 255), (0, 1), (-1, 1))  # of pixels: what one range saturates is seen in another
NUM_PICTURES = 2  # of each range
SIDE = 96  # of pictures of a model that takes any; the deepest of keras.applications need 75


def keras3() -> ModuleType | None:
    """Keras 3, or None where it cannot be imported."""
    try:
        keras = importlib.import_module("keras")
    except ImportError:
        return None
    return keras if int(keras.__version__.split(".")[0]) >= 3 else None


def rebuilt(keras: ModuleType, config: Mapping, path: pathlib.Path):
    """The model of Keras 3 of a checked configuration, with the arrays that Keras 3 itself reads from a file.

    The file's own configuration is never given to Keras 3, so that its safe mode is not relied upon.

    Raises:
      RefusalError: Keras 3 cannot read it, in its own words.
    """
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        model.load_weights(path)
    except Exception as error:  # whatever Keras makes of a stranger's file
        reason = first_line(error, 160)
        raise RefusalError(f"Keras {keras.__version__} itself cannot read it: {reason}; save it anew") from error
    return model


def prove(model, converted: tf_keras.Model, input_shape: tuple[int, ...] | None = None) -> float:
    """Largest difference of outputs on random pixels, as a share of the largest output.

    Args:
      model: of Keras 3; it is left as it is.
      input_shape: of a picture, where a model takes any.

    Raises:
      RefusalError: they differ, or Keras 3 cannot call the model.
    """
    pictures = _pictures(converted, input_shape)
    keras = keras3()
    try:
        expected = keras.ops.convert_to_numpy(keras.ops.cast(_called(model, pictures), "float32"))
    except Exception as error:  # whatever the model makes of itself
        raise RefusalError(f"Keras 3 cannot call it on pictures of {pictures.shape[1:]}: {first_line(error, 160)}") from error
    got = np.asarray(_called(converted, pictures), np.float32)
    differences = [_difference(*pair) for pair in zip(*(np.split(v, len(RANGES)) for v in (got, expected)), strict=True)]
    difference = float(np.max(differences))
    tolerance = _tolerance(keras.backend.backend(), converted)
    if not difference <= tolerance:
        raise RefusalError(
            f"it is a model of Keras 3 and is not what was made of it in tf_keras: outputs differ by {difference:.2g} of "
            f"the largest one, {tolerance:g} is rounding; build it with tf_keras, and please report it"
        )
    return difference


def _pictures(model: tf_keras.Model, input_shape: tuple[int, ...] | None) -> np.ndarray:
    """[len(RANGES) * NUM_PICTURES, H, W, C] in order of RANGES."""
    shape = [given or side or SIDE for given, side in zip(model.input_shape[1:], input_shape or [None] * 9, strict=False)]
    rng = np.random.default_rng(0)
    pictures = np.concatenate([rng.uniform(*ends, (NUM_PICTURES, *shape)) for ends in RANGES])
    dtype = model.inputs[0].dtype
    return pictures.astype(dtype.as_numpy_dtype) if dtype.is_floating else np.abs(pictures).astype(dtype.as_numpy_dtype)


def _called(model: Callable, pictures: np.ndarray):
    output = model(pictures, training=False)
    return output[0] if isinstance(output, list | tuple) else output


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape or not np.array_equal(np.isfinite(got), np.isfinite(expected)):
        return np.inf
    finite = np.isfinite(expected)
    largest = np.max(np.abs(expected), initial=0.0, where=finite)
    return float(np.max(np.abs(got - expected), initial=0.0, where=finite) / (largest or 1.0))


def _tolerance(backend: str, model: tf_keras.Model) -> float:
    found = {getattr(layer, "compute_dtype", "float32") for layer in model._flatten_layers()}
    found |= {"backend"} if backend != "tensorflow" else set()
    return max([TOLERANCE, *(value for key, value in OTHER_TOLERANCES.items() if key in found)])
