"""A user's own network: a builder by "package.module:function", a model that tf_keras saved, or one in memory."""

import importlib
import inspect
import pathlib

import tf_keras
from tf_keras import layers

from qkd_tf.archive import check_hdf5, first_line, non_finite
from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization, require
from qkd_tf.models.grouped import without_xla
from qkd_tf.models.layers import scale_and_offset
from qkd_tf.saved_model import load_model


def build(
    spec: NetworkSpec, input_shape: tuple[int, int, int], num_classes: int, given: tf_keras.Model | None = None
) -> tf_keras.Model:
    """The user's model as it is, `given` as a copy, with the weights of `spec.weights` where there are any.

    A builder is called as builder(input_shape, num_classes); one with the parameters `weights` and `classes`, as
    those of tf_keras.applications have, as builder(input_shape=..., classes=..., weights=None).

    Raises:
      ExperimentError: nothing there, something that is no functional or Sequential tf_keras model, or one of other
        pixels or classes; weights that do not fit, or have NaN; a saved model with code of its own, unless
        `spec.trust_code`.
    """
    name, model = spec.name if given is None else f"the model {given.name}", given
    if model is None:
        model = _call(name, input_shape, num_classes) if spec.is_builder else _load(name, spec.trust_code)
    require(
        isinstance(model, tf_keras.Model) and hasattr(model, "_nodes_by_depth"),
        f"{name} gives a {type(model).__name__}; a functional or Sequential model of tf_keras is expected "
        "(import tf_keras, not keras)",
    )
    require(
        len(model.inputs) == len(model.outputs) == 1,
        f"{name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is expected",
    )
    shape, logits = model.input_shape[1:], model.output_shape
    require(
        len(shape) == 3 and all(side in (None, wanted) for side, wanted in zip(shape, input_shape, strict=True)),
        f"{name} reads pictures of {shape}, the data set gives {input_shape}, height, width and channels; "
        "see --image_size",
    )
    require(
        logits[-1] == num_classes,
        f"{name} tells {logits[-1]} classes apart, the data set has {num_classes}; "
        "a folder of pictures may name classes that it has no picture of in its labels.txt",
    )
    if given is not None:
        model = _copy(given)
    if spec.weights:
        _load_weights(model, spec.weights)
    broken = non_finite({weight.name: weight.numpy() for weight in model.weights})
    require(not broken, f"{spec.weights or name}: {broken}; give weights of a training that did not diverge")
    return without_xla(model)


def with_logits(model: tf_keras.Model, normalization: PixelNormalization) -> tf_keras.Model:
    """A model of pixels, 0..255, to logits: normalised unless it does so itself, without a softmax at its end."""
    last = model.outputs[0]._keras_history.layer
    output = model.outputs[0]
    if isinstance(last, layers.Softmax):
        output = last.input
    elif getattr(last, "activation", None) is tf_keras.activations.softmax:
        last.activation = tf_keras.activations.linear
    inner = tf_keras.Model(model.inputs, output)
    readers = [node.layer for node in model.layers[0].outbound_nodes]
    pixels = tf_keras.Input(model.input_shape[1:], name="pixels")
    x = pixels
    if not any(isinstance(layer, (layers.Rescaling, layers.Normalization)) for layer in readers):
        scale, offset = scale_and_offset(normalization)
        x = layers.Rescaling(scale, offset, name="pixel_normalization")(x)
    return tf_keras.Model(pixels, inner(x), name=model.name)


def _copy(model: tf_keras.Model) -> tf_keras.Model:
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _call(name: str, input_shape, num_classes: int):
    module_name, _, function = name.partition(":")
    try:
        builder = importlib.import_module(module_name)
        for part in function.split("."):
            builder = getattr(builder, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ExperimentError(f"{name} cannot be imported: {error}; give package.module:function") from error
    try:
        signature = inspect.signature(builder)
        by_name = {"weights", "classes"} <= signature.parameters.keys()
        given = {"input_shape": input_shape, "classes": num_classes, "weights": None} if by_name else {}
        call = signature.bind(**given) if by_name else signature.bind(input_shape, num_classes)
    except (TypeError, ValueError) as error:  # of what can be called in this way; not of what it does
        raise ExperimentError(f"{name} cannot be called as builder(input_shape, num_classes): {error}") from error
    return builder(*call.args, **call.kwargs)


def _load(name: str, trust_code: bool) -> tf_keras.Model:
    path = pathlib.Path(name)
    require(path.exists(), f"no model at {name}; give a .keras or .h5 file, or the folder of a SavedModel")
    try:
        return load_model(path, trust_code)
    except ValueError as error:
        raise ExperimentError(f"{name} cannot be loaded by tf_keras: {error}") from error


def _load_weights(model: tf_keras.Model, weights: str) -> None:
    require(pathlib.Path(weights).is_file(), f"weights file {weights} does not exist")
    require(
        weights.endswith(".h5"),
        f"weights {weights} of a model of your own must be .h5 or .weights.h5, as Keras saves them",
    )
    try:
        check_hdf5(weights)
        model.load_weights(weights)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ExperimentError(f"weights {weights} do not fit {model.name}: {first_line(error)}") from error
