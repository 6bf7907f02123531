"""The entry for Keras 3 models, from a file or from memory."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import h5py
import tf_keras

from qkd_tf.console.counting import counted
from qkd_tf.models.copier import name_by_file, valid_name
from qkd_tf.models.keras3 import arrays
from qkd_tf.models.keras3.config import checked, in_double
from qkd_tf.models.keras3.conversion import convert
from qkd_tf.models.keras3.proof import AmplifiedError, double_of, keras3, prove, rebuilt
from qkd_tf.models.keras3.refusal import WIDTH, RefusalError
from qkd_tf.process.random_state import seeded
from qkd_tf.storage.archive import check_hdf5, check_zip, first_line

VERSION = "keras_version"


@dataclasses.dataclass(frozen=True)
class Keras3Model:
    """A model of Keras 3 whose configuration was understood.

    Attributes:
      config: as `config.checked` returns it.
      arrays: gives those of each layer.
      original: Keras 3's module -> the model with which the proof compares.
    """

    config: Mapping
    arrays: Callable[[], arrays.Arrays]
    original: Callable

    def converted(self) -> tf_keras.Model:
        """The same model in tf_keras, not yet proven.

        Raises:
          ValueError: as `in_tf_keras`.
        """
        with _one_line(), seeded(0, None):  # drawing first weights must not change a run's random numbers
            model = convert(self.config, self.arrays())
            num_inputs, num_outputs = len(model.inputs), len(model.outputs)
            if (num_inputs, num_outputs) != (1, 1):
                raise RefusalError(
                    f"with {counted(num_inputs, 'input')} and {counted(num_outputs, 'output')}; one of each is expected"
                )
            return model

    def in_tf_keras(self, input_shape: tuple[int, ...] | None = None) -> tuple[tf_keras.Model, list[str]]:
        """The same model in tf_keras, proven if Keras 3 can be imported, and notes for the user, one per line.

        Args:
          input_shape: shape of a picture, if the model takes any.

        Raises:
          ValueError: one line on why it cannot be converted.
        """
        model = self.converted()
        with _one_line(), seeded(0, None):
            keras = keras3()
            if keras is None:
                note = "Keras 3 cannot be imported here, so their outputs were not compared"
            else:
                note = self._proven(keras, model, input_shape)
        notes = [f"note: {model.name} is a model of Keras 3, rebuilt in tf_keras; {note}"]
        return model, notes + _renamed(self.config)

    def _proven(self, keras: ModuleType, model: tf_keras.Model, input_shape: tuple[int, ...] | None) -> str:
        """What the proof found, in words."""
        original, where = self.original(keras), ""
        try:
            difference = prove(original, model, input_shape)
        except AmplifiedError as amplified:
            if keras.backend.backend() != "tensorflow":  # others compute in float32 whatever they are told
                raise
            config, where = in_double(self.config), " in float64; in float32 the network amplifies rounding too much"
            try:
                copies = double_of(keras, config, original), convert(config, self.arrays())
            except Exception:  # whatever a layer makes of float64
                raise amplified from None
            difference = prove(*copies, input_shape)
        return f"outputs differ by at most {difference:.1g} of the largest one{where}"

    def with_weights(self, path: pathlib.Path) -> "Keras3Model":
        """The same layers with the arrays of a file that Keras 3 wrote."""
        return _filled(self.config, path, named=False)


def is_file(path: pathlib.Path) -> bool:
    """Whether a file is a whole model that Keras 3 saved."""
    try:
        return int(_version(path).split(".")[0]) >= 3
    except Exception:  # of a file that is damaged another reader tells more
        return False


def _version(path: pathlib.Path) -> str:
    if zipfile.is_zipfile(path):
        check_zip(path)
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("metadata.json"))[VERSION]
    check_hdf5(path)
    with h5py.File(path) as file:
        return arrays.text(file.attrs[VERSION]) if "model_config" in file.attrs else ""


def is_model(model: object) -> bool:
    """Whether it is a model of Keras 3."""
    keras = sys.modules.get("keras")  # a program that has such a model has imported it
    return keras is not None and hasattr(keras, "Model") and isinstance(model, keras.Model)


def of_file(path: pathlib.Path) -> Keras3Model:
    """A .keras or .h5 file that Keras 3 saved.

    Raises:
      ValueError: as `Keras3Model.in_tf_keras`.
    """
    with _one_line():
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = checked(json.loads(archive.read("config.json")))
        else:
            with h5py.File(path) as file:
                config = checked(json.loads(file.attrs["model_config"]))
        inner = config["config"]
        config = {**config, "config": {**inner, "name": name_by_file(inner["name"], path)}}
        return _filled(config, path, named=True)


def of_model(model) -> Keras3Model:
    """A Keras 3 model in memory, which is left unchanged."""
    with _one_line():
        config = checked(json.loads(model.to_json()))
        return Keras3Model(config, lambda: arrays.of_model(model), lambda keras: model)


def _renamed(config: Mapping) -> list[str]:
    """A note on layer names that tf_keras cannot have; it gives the first one as an example."""
    others = [name for name in _names(config) if valid_name(name) != name]
    more = f", and {len(others) - 1} more names change" if len(others) > 1 else ""
    return (
        [f"note: tf_keras cannot have the layer name {others[0]!r}; it becomes {valid_name(others[0])}{more}"]
        if others
        else []
    )


def _names(config: Mapping) -> Iterator[str]:
    yield config["config"]["name"]
    for part in config["config"].get("layers", ()):
        yield from _names(part)


def _filled(config: Mapping, path: pathlib.Path, named: bool) -> Keras3Model:
    return Keras3Model(config, lambda: _arrays(path, config, named), lambda keras: rebuilt(keras, config, path))


def _arrays(path: pathlib.Path, config: Mapping, named: bool) -> arrays.Arrays:
    if zipfile.is_zipfile(path):
        check_zip(path)
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
            check_hdf5(member)
            with h5py.File(member) as file:
                return arrays.of_weights_file(file, config, named)
    check_hdf5(path)
    with h5py.File(path) as file:
        if "layers" in file:
            return arrays.of_weights_file(file, config, named)
        return arrays.of_whole_file(file.get("model_weights", file), config)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """A context that turns any error in it into one line."""
    try:
        yield
    except RefusalError:
        raise
    except Exception as error:  # whatever a damaged file makes of its readers
        reason = f"{type(error).__name__}: {first_line(error, WIDTH)}"
        raise RefusalError(f"which cannot be read: {reason}; save it again") from error
