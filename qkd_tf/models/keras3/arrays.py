"""The arrays of a model of Keras 3, by layer: from its files, or from the model in memory."""

import collections
import itertools
import re
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from qkd_tf.models.keras3.refusal import RefusalError

Path = tuple[str, ...]  # names of models from the outermost one to a layer's own
Arrays = Mapping[Path, list[np.ndarray]]  # of each layer with arrays, in Keras' order


def of_weights_file(file: h5py.Group, config: Mapping, named: bool) -> Arrays:
    """Arrays of a `model.weights.h5`, whose groups are named by class and number among the layers of that class.

    Args:
      named: whether the file's layers must have the names in the configuration.

    Raises:
      RefusalError: a group names another layer than the configuration.
    """
    found = {}
    for path, group in _groups(file, config, (), ""):
        variables = group.get("vars", {})
        told = getattr(variables, "attrs", {}).get("name", path[-1])  # files written before Keras 3.6 have no names
        if named and told != path[-1]:
            raise RefusalError(f"whose arrays in {group.name} belong to {told}, where its configuration has {path[-1]}")
        found[path] = [variables[str(number)][()] for number in range(len(variables))]
    return found


def _groups(file: h5py.Group, config: Mapping, outer: Path, place: str) -> Iterator[tuple[Path, h5py.Group]]:
    used = collections.Counter()
    for part in config["config"]["layers"]:
        class_name, name = part["class_name"], part["config"]["name"]
        first_of_sequential = class_name == "InputLayer" and config["class_name"] == "Sequential"
        if part["module"].startswith("keras.src.ops.") or first_of_sequential:
            continue
        snake = _snake_case(class_name)
        number, used[snake] = used[snake], used[snake] + 1
        inner = f"{place}layers/{snake}{f'_{number}' if number else ''}"
        if inner not in file:
            continue  # a layer without arrays need not have a group
        if "layers" in part["config"]:
            yield from _groups(file, part, (*outer, name), f"{inner}/")
        else:
            yield (*outer, name), file[inner]


def _snake_case(class_name: str) -> str:
    """The name of a class as Keras 3 writes it in files: PReLU is p_re_lu, Conv2D conv2d."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def of_whole_file(root: h5py.Group, config: Mapping) -> Arrays:
    """Arrays of a whole model's .h5: a list for each outermost layer, with names that end in layer/variable.

    The list of an inner model begins with what is trained, so its arrays are sorted by layer.
    """
    found = {}
    for part in config["config"]["layers"]:
        name = part["config"]["name"]
        if name not in root:
            continue
        names = _weight_names(root[name])
        arrays = [root[name][one][()] for one in names]
        if "layers" not in part["config"]:
            found[name,] = arrays
            continue
        leaves = collections.defaultdict(list)
        for path in _leaves(part, (name,)):
            leaves[path[-1]].append(path)
        seen = collections.Counter()
        for array_name, array in zip(names, arrays, strict=True):
            *_, layer, variable = ("", *array_name.split("/"))
            number, seen[layer, variable] = seen[layer, variable], seen[layer, variable] + 1
            if number >= len(leaves[layer]):
                raise RefusalError(f"whose array {array_name} belongs to no layer of {name}")
            found.setdefault(leaves[layer][number], []).append(array)
    return found


def _weight_names(group: h5py.Group) -> list[str]:
    """Names of a group's arrays, in order; a long list is stored in several parts."""
    found = list(group.attrs.get("weight_names", ()))
    for number in itertools.takewhile(lambda number: f"weight_names{number}" in group.attrs, itertools.count()):
        found += list(group.attrs[f"weight_names{number}"])
    return [text(name) for name in found]


def _leaves(part: Mapping, path: Path) -> Iterator[Path]:
    for inner in part["config"]["layers"]:
        name = inner["config"]["name"]
        if "layers" in inner["config"]:
            yield from _leaves(inner, (*path, name))
        elif inner["class_name"] != "InputLayer":
            yield (*path, name)


def text(name) -> str:
    return name.decode() if isinstance(name, bytes) else name


def of_model(model, path: Path = ()) -> Arrays:
    """Arrays of a Keras 3 model in memory, which is left unchanged."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found |= of_model(layer, (*path, layer.name))
        else:
            found[*path, layer.name] = layer.get_weights()
    return found
