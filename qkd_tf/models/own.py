"""A user's own network: a builder by "package.module:function", a model that Keras saved, or one in memory."""

import contextlib
import inspect
import itertools
import pathlib
from collections.abc import Iterator

import tf_keras

from qkd_tf.console.counting import counted, in_role
from qkd_tf.experiment import (
    ExperimentError,
    NetworkSpec,
    failure,
    imported,
    require,
    require_model,
    require_weights,
)
from qkd_tf.models import weights
from qkd_tf.models.copier import is_graph, name_by_file
from qkd_tf.models.keras3 import door
from qkd_tf.storage.archive import check_hdf5, first_line, non_finite
from qkd_tf.storage.saved_model import load_model


def build(
    spec: NetworkSpec,
    input_shape: tuple[int, ...],
    num_classes: int,
    given: tf_keras.Model | None = None,
    role: str = "model",
) -> tuple[tf_keras.Model, list[str]]:
    """The user's model as it is, with the weights of `spec.weights` if there are any; `given` is then copied.

    A Keras 3 model is rebuilt in tf_keras. Messages call `given` by its role, "student" or "teacher".

    A builder is called as builder(input_shape, num_classes), or, if it has the parameters `weights` and `classes` as
    those of tf_keras.applications do, as builder(input_shape=..., classes=..., weights=None).

    Raises:
      ExperimentError: nothing is there, the builder fails, or the result is not a functional or Sequential model, or
        has another shape of pixels or number of classes; weights do not fit or have NaN; a saved model has code of its
        own, unless `spec.trust_code`.
    """
    name, model = spec.name if given is None else in_role(role, given.name), given
    if model is None:
        model = _call(name, input_shape, num_classes) if spec.is_builder else _load(name, spec.trust_code)
    notes, is_filled = [], not spec.weights
    if door.is_model(model) or isinstance(model, pathlib.Path):
        is_filled = is_filled or spec.weights.endswith(".h5")
        model, notes = _in_tf_keras(name, model, spec.weights if is_filled else "", input_shape)
    shape, num_outputs = _shapes(name, model)
    _require_shape(name, shape, input_shape, spec.reads_signals)
    require_classes(name, num_outputs, num_classes)
    if given is None and not spec.is_builder:
        model._name = name_by_file(model.name, pathlib.Path(name))
    if not is_filled:
        model = _copy(given) if model is given else model
        notes += _load_weights(model, spec)
    broken = non_finite({weight.name: weight.numpy() for weight in model.weights})
    require(not broken, f"{spec.weights or name}: {broken}; give weights of a training that did not diverge")
    return model, notes


def saved_shapes(spec: NetworkSpec) -> tuple[tuple[int | None, ...], int]:
    """The input shape of a saved model, without the batch, with None for any size, and its number of outputs.

    Raises:
      ExperimentError: as `build`, as far as it concerns the model alone.
    """
    model = _load(spec.name, spec.trust_code)
    if isinstance(model, pathlib.Path):
        with _taking_over(spec.name):
            model = door.of_file(model).converted()
    return _shapes(spec.name, model)


def require_classes(name: str, num_outputs: int, num_classes: int) -> None:
    """Raises ExperimentError if the model has another number of classes than the data set; one output means two."""
    more_names = (
        "name the classes without examples, too: in a labels.txt in the folder of the data set, or by label_names in "
        "Python"
    )
    has = "1 output, which tells 2 classes apart" if num_outputs == 1 else counted(num_outputs, "class")
    remedy = more_names if num_outputs > num_classes else "leave the other classes out"
    require(
        num_outputs == num_classes or (num_outputs, num_classes) == (1, 2),
        f"{name} has {has}, the data set has {num_classes}; give a model with as many, or {remedy}",
    )


def _shapes(name: str, model: object) -> tuple[tuple[int | None, ...], int]:
    """Input shape without the batch, and size of the output's last axis, of a model that can be a classifier."""
    require(
        is_graph(model),
        f"{name} gives {type(model).__name__}; a functional or Sequential Keras model is expected, which begins "
        "with Input and has no call() of its own",
    )
    require(
        len(model.inputs) == len(model.outputs) == 1,
        f"{name} has {counted(len(model.inputs), 'input')} and {counted(len(model.outputs), 'output')}; "
        "one of each is expected",
    )
    require(
        not isinstance(model.input_shape, dict) and not isinstance(model.output_shape, dict),
        f"{name} takes or returns a dict; give tf_keras.Model(model.inputs[0], model.outputs[0])",
    )
    logits = model.outputs[0].shape
    require(
        len(logits) > 1 and logits[-1] is not None,
        f"{name} has an output of shape {tuple(logits)}; a classifier has (None, classes)",
    )
    return tuple(model.inputs[0].shape[1:]), logits[-1]


def _require_shape(name: str, shape: tuple[int | None, ...], input_shape: tuple[int, ...], reads_signals: bool) -> None:
    """Raises ExperimentError if the model reads examples of another shape than the data set's."""
    if len(shape) == len(input_shape) and all(a in (None, b) for a, b in zip(shape, input_shape, strict=True)):
        return
    if reads_signals:
        raise ExperimentError(
            f"{name} reads signals of shape {shape}, the data set has {input_shape}; {_reshaping(shape, input_shape)}"
        )
    require(len(shape) == 3, f"{name} reads inputs of shape {shape}; pictures are expected: height, width, channels")
    flag = "another --dataset, or a network of its channels"
    if None not in shape[:2] and shape[:2] != input_shape[:2]:
        flag = f"--image_size={shape[0]}" + (f"x{shape[1]}" if shape[0] != shape[1] else "")
        flag += " (and --resize=squash, if it was trained on whole pictures, Keras' default, and not on their middle)"
        if shape[:2] == input_shape[1::-1]:
            flag += ", or if height and width are exchanged in the data, exchange them there"
    elif shape[2] in (1, 3):
        flag = f"--image_channels={shape[2]}"
    raise ExperimentError(
        f"{name} reads pictures of {shape} (height, width, channels), the data set has {input_shape}; give {flag}"
    )


def _reshaping(shape: tuple[int | None, ...], given: tuple[int, ...]) -> str:
    """How features of shape `given` become ones of `shape`.

    A reshape is right only where axes of length one come or go: it would mix steps with channels that are in another
    order.
    """
    if [side for side in shape if side != 1] == [side for side in given if side != 1]:
        return f"features.reshape(-1, {', '.join(map(str, shape))}) has that shape"
    for axes in itertools.permutations(range(len(given))):
        if shape == tuple(given[axis] for axis in axes):
            order = ", ".join(str(1 + axis) for axis in axes)
            return f"if only the order of axes differs, features.transpose(0, {order}) has that shape"
    if shape[:-1] == given[:-1] and (shape[-1], given[-1]) in ((3, 1), (1, 3)):
        return f"if these are pictures: --nosignals --image_channels={shape[-1]}"
    return "give a network that reads that shape"


def _call(name: str, input_shape, num_classes: int):
    builder = imported(name)
    try:
        signature = inspect.signature(builder)
        by_name = {"weights", "classes"} <= signature.parameters.keys()
        given = {"input_shape": input_shape, "classes": num_classes, "weights": None} if by_name else {}
        call = signature.bind(**given) if by_name else signature.bind(input_shape, num_classes)
    except (TypeError, ValueError) as error:  # of what can be called in this way; not of what it does
        raise ExperimentError(f"{name} cannot be called as builder(input_shape, num_classes): {error}") from error
    try:
        return builder(*call.args, **call.kwargs)
    except (Exception, SystemExit) as error:  # of a user's own code
        module, _, function = name.partition(":")
        keywords = [f"{key}={value!r}" for key, value in call.kwargs.items()]
        arguments = ", ".join([*map(repr, call.args), *keywords])
        raise ExperimentError(
            f"{name} fails as builder({arguments}): {failure(error)}; fix that; "
            f"python -c 'import {module}; {module}.{function}({arguments})' shows the whole traceback"
        ) from error


def _load(name: str, trust_code: bool) -> tf_keras.Model | pathlib.Path:
    """The model, or the path itself if Keras 3 saved it."""
    path = pathlib.Path(name)
    require_model(name)
    try:
        return path if door.is_file(path) else load_model(path, trust_code)
    except ValueError as error:
        raise ExperimentError(f"{name} cannot be loaded by tf_keras: {error}") from error


def _in_tf_keras(
    name: str, model: object | pathlib.Path, weights_file: str, input_shape: tuple[int, ...]
) -> tuple[tf_keras.Model, list[str]]:
    """A Keras 3 model in tf_keras, with the arrays of a file if one is named, and notes, one per line."""
    if weights_file:
        require_weights(weights_file)
    with _taking_over(weights_file or name):
        brought = door.of_file(model) if isinstance(model, pathlib.Path) else door.of_model(model)
        brought = brought.with_weights(pathlib.Path(weights_file)) if weights_file else brought
        return brought.in_tf_keras(input_shape)


@contextlib.contextmanager
def _taking_over(name: str) -> Iterator[None]:
    """A context that says in one line why a Keras 3 model cannot be converted."""
    try:
        yield
    except ValueError as error:
        raise ExperimentError(f"{name} cannot be used: {error}") from error


def _copy(model: tf_keras.Model) -> tf_keras.Model:
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _load_weights(model: tf_keras.Model, spec: NetworkSpec) -> list[str]:
    """Loads weights, by Keras itself where it can; returns notes, one per line."""
    path = spec.weights
    require_weights(path)
    if not path.endswith(".h5"):
        return weights.load(model, spec)
    try:
        check_hdf5(path)
        model.load_weights(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ExperimentError(f"weights {path} do not fit {model.name}: {first_line(error)}") from error
    return []
