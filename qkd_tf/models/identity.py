"""Digests of what an experiment is made of; networks count by what they compute, not by their names."""

import hashlib
import itertools
import json
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf import __version__
from qkd_tf.models.copier import is_symbolic, walk

# What identity.json has -> how a person calls it.
WORDS: Mapping[str, str] = {
    "version": "the version of qkd_tf",
    "pictures": "the pictures or their labels",
    "augmentation": "what --augment makes of pictures",
    "student_layers": "the student's layers or their wiring",
    "student_weights": "the student's first weights",
    "teacher_layers": "the teacher's layers or their wiring",
    "teacher_weights": "the teacher's first weights",
}


def contents(
    student: tf_keras.Model, teacher: tf_keras.Model | None, pictures: Mapping, unnamed: frozenset[str]
) -> dict[str, str]:
    """What `RunFolder.claim` compares, by row of WORDS.

    Args:
      pictures: `Splits.fingerprint`.
      unnamed: which of "student" and "teacher" begin with random weights, which another run of the same program need
        not repeat.
    """
    found = {"version": __version__, "pictures": _digest(json.dumps(pictures, sort_keys=True))}
    for role, model in (("student", student), ("teacher", teacher)):
        if model is not None:
            found[f"{role}_layers"] = of_layers(model)
            if role not in unnamed:
                found[f"{role}_weights"] = of_weights(model)
    return found


def of_layers(model: tf_keras.Model) -> str:
    """Digest of a graph's layers and wiring; names do not count, because Keras numbers them as it likes."""
    rows, counter, numbers = [], itertools.count(), {}

    def apply(node, given: list) -> list:
        outputs = [next(counter) for _ in tf.nest.flatten(node.outputs)]
        constants = [value for value in tf.nest.flatten((node.call_args, node.call_kwargs)) if not is_symbolic(value)]
        kind, number = type(node.layer), numbers.setdefault(id(node.layer), len(numbers))  # one layer may be used twice
        rows.append([f"{kind.__module__}.{kind.__qualname__}", number, _config(node.layer), given, outputs, constants])
        return outputs

    rows.append(walk(model, [next(counter) for _ in model.inputs], apply))
    return _digest(json.dumps([[list(tensor.shape) for tensor in model.inputs], *rows], sort_keys=True, default=_plain))


def of_weights(model: tf_keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def _config(layer: tf_keras.layers.Layer) -> dict:
    try:
        return _without_names(layer.get_config())
    except Exception:  # of a user's own layer, which need not have one
        return {}


def _without_names(config):
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    return [_without_names(value) for value in config] if isinstance(config, list | tuple) else config


def _plain(value) -> str:
    """Text for what JSON cannot express, without memory addresses."""
    if isinstance(value, np.ndarray | tf.Tensor | tf.Variable):
        return _digest(np.asarray(value).tobytes())
    return getattr(value, "__name__", None) or (str(value) if isinstance(value, tf.DType) else type(value).__name__)


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
