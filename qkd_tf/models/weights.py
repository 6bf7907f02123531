"""Pretrained weights from files, matched by name or by position; either all are loaded or none."""

import dataclasses
import pathlib
import re

import h5py
import numpy as np
import tf_keras

from qkd_tf.experiment import ExperimentError, NetworkSpec, require_weights
from qkd_tf.models.copier import leaves
from qkd_tf.models.keras3 import door
from qkd_tf.process.random_state import seeded
from qkd_tf.storage.archive import check_hdf5, first_line, load_npz, non_finite
from qkd_tf.storage.saved_model import load_model

# The words that files use for the variables of a layer, and ours. A BatchNormalization is recognised by its statistics.
_STATISTICS = {
    "moving_mean": "moving_mean",
    "running_mean": "moving_mean",
    "moving_variance": "moving_variance",
    "running_var": "moving_variance",
}
_BATCH_NORM = {"gamma": "gamma", "weight": "gamma", "beta": "beta", "bias": "beta", **_STATISTICS}
_OTHER = {"kernel": "kernel", "weight": "kernel", "depthwise_kernel": "depthwise_kernel", "bias": "bias"}
_IGNORED = ("num_batches_tracked",)
# Order of variables where a file has numbers for names (Keras' V3 format).
_V3_ORDER = {
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
}


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """One layer's variables: its name in the file, {our word: array}, and the layer itself if it is a network's."""

    name: str
    variables: dict[str, np.ndarray]
    layer: tf_keras.layers.Layer | None = None

    @property
    def kind(self) -> str:
        """The kind of layer; layers are matched by position among those of their kind."""
        if "moving_mean" in self.variables:
            return "batch norm"
        kernel = self.variables.get("kernel")
        if kernel is None:
            return "depthwise conv" if "depthwise_kernel" in self.variables else "other"
        return "conv" if kernel.ndim == 4 else "dense"


def load(model: tf_keras.Model, spec: NetworkSpec) -> list[str]:
    """Loads `spec.weights` into `model`.

    Layers, including those of inner models, are matched by name if all names agree, otherwise by position among layers
    of their kind. Every shape is checked before the first value is set.

    Returns:
      Notes, one per line: a match by position.

    Raises:
      ExperimentError: no such file, an unknown ending, names and shapes that do not fit (it lists all), or an array
        with NaN or infinity.
    """
    require_weights(spec.weights)
    path = pathlib.Path(spec.weights)
    source = read(path, spec.trust_code)
    target = [_layer_weights(layer) for layer in leaves(model) if layer.weights]
    pairs, problems = _match(source, target)
    for given, expected in pairs:
        for role, value in expected.variables.items():
            if role not in given.variables:
                problems.append(f"{given.name} has no {role} for {expected.name}")
            elif given.variables[role].shape != value.shape:
                problems.append(
                    f"{given.name}/{role} has shape {given.variables[role].shape}, "
                    f"{expected.name}/{role} expects {value.shape}"
                )
        problems += [
            f"{given.name}/{role} has no place in {expected.name}"
            for role in given.variables
            if role not in expected.variables
        ]
    if problems:
        raise ExperimentError(f"weights {path} do not fit {spec.name}: " + "; ".join(problems))
    if broken := non_finite({f"{layer.name}/{role}": v for layer in source for role, v in layer.variables.items()}):
        raise ExperimentError(f"weights {path}: {broken}; give weights of a training that did not diverge")
    for given, expected in pairs:
        expected.layer.set_weights([given.variables[role] for role in expected.variables])
    if any(given.name != expected.name for given, expected in pairs):
        return [f"{path}: names differ from {spec.name}'s; layers were matched by position and shape"]
    return []


def read(path: pathlib.Path, trust_code: bool = False) -> list[LayerWeights]:
    """Layers with variables in a weights file, in the file's order.

    Args:
      path: one that `require_weights` has passed.
      trust_code: read a .keras file even though its model brings code.

    Raises:
      ExperimentError: a file that cannot be read as what its ending says.
    """
    ending = next(ending for ending in READERS if path.name.endswith(ending))
    try:
        return READERS[ending](path, trust_code)
    except Exception as error:  # whatever zip, HDF5 and NumPy make of a stranger's file
        raise ExperimentError(f"{path} cannot be read as {ending}: {first_line(error)}") from error


def _read_npz(path: pathlib.Path, trust_code: bool) -> list[LayerWeights]:
    return _group(load_npz(path))


def _read_h5(path: pathlib.Path, trust_code: bool) -> list[LayerWeights]:
    """A model or its weights, in the older format or in Keras' V3, whatever the file's name.

    Only arrays are read, so a model's code does not matter. For a Keras 3 model its layers are read, too, because
    arrays of several kinds share one name there.
    """
    if door.is_file(path):
        return _read_keras(path, trust_code)
    check_hdf5(path)
    with h5py.File(path) as file:
        for name in ("layers", "_layer_checkpoint_dependencies"):
            if name in file and "layer_names" not in file.attrs:
                return _v3_layers(file[name])
        return _legacy_layers(file["model_weights"] if "model_weights" in file else file)


def _legacy_layers(root) -> list[LayerWeights]:
    """Layers and variables by name, as Keras 1 and 2 wrote them."""
    if "layer_names" not in root.attrs:
        raise ValueError("no Keras weights in it")
    arrays = {}
    for layer in map(_text, root.attrs["layer_names"]):
        for weight in map(_text, root[layer].attrs["weight_names"]):
            arrays[f"{layer}/{weight.split('/')[-1]}"] = root[layer][weight][()]
    return _group(arrays)


def _v3_layers(root) -> list[LayerWeights]:
    """Layers by class and number, variables by number."""
    found = []
    for name in sorted(root, key=_natural):
        order = _V3_ORDER.get(re.sub(r"_\d+$", "", name))
        variables = root[name].get("vars", {})
        if order and len(variables):
            found.append(LayerWeights(name, {order[i]: variables[str(i)][()] for i in range(len(variables))}))
    return found


def _read_keras(path: pathlib.Path, trust_code: bool) -> list[LayerWeights]:
    with seeded(0, None):  # the model is made, and what it draws shall change nothing of the network's own chance
        model = door.of_file(path).in_tf_keras()[0] if door.is_file(path) else load_model(path, trust_code)
    return [_layer_weights(layer) for layer in leaves(model) if layer.weights]


READERS = {".weights.h5": _read_h5, ".h5": _read_h5, ".keras": _read_keras, ".npz": _read_npz}


def _group(arrays: dict[str, np.ndarray]) -> list[LayerWeights]:
    """{"conv1/kernel:0" or "conv1.weight": array} to layers."""
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for name, value in arrays.items():
        layer, _, variable = name.split(":")[0].replace("/", ".").rpartition(".")
        if variable not in _IGNORED:
            grouped.setdefault(layer, {})[variable] = value
    found = []
    for layer, variables in grouped.items():
        words = _BATCH_NORM if variables.keys() & _STATISTICS.keys() else _OTHER
        found.append(LayerWeights(layer, {words.get(word, word): value for word, value in variables.items()}))
    return found


def _layer_weights(layer) -> LayerWeights:
    values = zip(layer.variables, layer.get_weights(), strict=True)
    return LayerWeights(layer.name, {v.name.split(":")[0].split("/")[-1]: value for v, value in values}, layer)


def _match(source: list[LayerWeights], target: list[LayerWeights]):
    """Pairs (source, target) of layers, and a line for each that has no counterpart."""
    by_name = {layer.name: layer for layer in source}
    names = {layer.name for layer in target}
    if by_name.keys() == names and len(names) == len(source) == len(target):
        return [(by_name[layer.name], layer) for layer in target], []
    pairs, problems = [], []
    for kind in dict.fromkeys(layer.kind for layer in source + target):
        given = [layer for layer in source if layer.kind == kind]
        expected = [layer for layer in target if layer.kind == kind]
        pairs += zip(given, expected, strict=False)
        problems += [f"{layer.name} ({kind}) has no place in the network" for layer in given[len(expected) :]]
        problems += [f"nothing in the file for {layer.name} ({kind})" for layer in expected[len(given) :]]
    return pairs, problems


def _natural(name: str) -> tuple:
    """conv2d before conv2d_2 before conv2d_10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)$", name))


def _text(name) -> str:
    return name.decode() if isinstance(name, bytes) else name
