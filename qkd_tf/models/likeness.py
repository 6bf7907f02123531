"""Proves that the network that trains computes what the user's model does, or names the layer that differs."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.console.counting import counted, in_role
from qkd_tf.experiment import ExperimentError, require
from qkd_tf.models.copier import leaves, reason, run
from qkd_tf.models.normalization import Affine
from qkd_tf.models.nudges import NUDGES, nudged
from qkd_tf.models.reading import HEADS, Reading

# Largest difference that rounding explains, by the precision that the user's model computes in: of logits as a share
# of the largest, of probabilities as it is. 0.001 is an eighth of a step of logits of 8 bits.
TOLERANCES = {"bfloat16": 0.15, "float16": 0.02, "float32": 1e-3}  # of several the first
BATCH = 8
NUM_LAYERWISE = 2  # pictures of which all layers' outputs are held: of a deep network at 224 pixels a gigabyte
SAME_CLASS = 95.0  # percent of pictures, below which padding counts as another network


@dataclasses.dataclass(frozen=True)
class Subject:
    """A user's network, and what we made of it.

    Attributes:
      role: "student" or "teacher".
      given: the model as the user gave it.
      feed: the normalisation that the user applies before the model reads pixels; None for none.
      reading: the first reading of it.
      ours: the network that trains, from pixels to logits, but with the user's padding values.
      trains: the same with the file's padding values; `ours` if these are equal.
    """

    role: str
    given: tf_keras.Model
    feed: Affine | None
    reading: Reading
    ours: tf_keras.Model
    trains: tf_keras.Model

    def __str__(self) -> str:
        return in_role(self.role, self.given.name)

    def fed(self, images: np.ndarray) -> tf.Tensor:
        """Pixels [N, H, W, C], 0..255, as the user would feed them."""
        pixels = images.astype(np.float32) if self.feed is None else self.feed(images)
        return tf.cast(pixels, self.given.inputs[0].dtype)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Outputs of the given model, [N, K] or [N, 1].

        Raises:
          ExperimentError: it cannot be called on them.
        """
        batches = [self.fed(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        try:
            outputs = _called(self.given, batches)
        except Exception as error:  # whatever a layer makes of itself
            raise ExperimentError(
                f"{self} cannot be called on pictures of {images.shape[1:]} (height, width, "
                f"channels): {reason(error)}; change the model until tf_keras can call it"
            ) from error
        return outputs.reshape(len(images), -1)


def prove(subject: Subject, images: np.ndarray) -> dict:
    """Compares a network as given with the one that trains, on pictures [N, H, W, C] uint8.

    Returns:
      A dict for results.json: `num_images`; `difference` of the outputs, for logits as a share of the largest one, for
      probabilities absolute; its `tolerance`, None with `is_amplified_rounding`; and if a file pads pixels with another
      value, `border_difference` of the logits and `border_top1_agreement` in percent.

    Raises:
      ExperimentError: outputs differ by more than rounding explains, or are not finite; names the first such layer.
    """
    expected, logits = subject.outputs(images), _predict(subject.ours, images)
    got = HEADS[subject.reading.head](logits)
    if not (np.all(np.isfinite(expected)) and np.all(np.isfinite(logits))):
        raise ExperimentError(f"{subject} gives outputs that are not finite; {_where_not_finite(subject, images)}")
    if subject.reading.head == "one logit" and subject.reading.squashed_by:
        require(
            bool(np.any((expected < 0) | (expected > 1))),
            f"{subject} has one output, which layer {subject.reading.squashed_by} keeps "
            "within 0 and 1: a probability that is not a sigmoid's would be taken as a logit, and cut at 0; end the "
            "network in the logit, or in Dense(1, activation='sigmoid')",
        )
    tolerance = TOLERANCES[_precision(subject.given)]
    is_probability = subject.reading.head not in ("logits", "one logit", "log_softmax")
    difference = _difference(got, expected, is_probability)
    is_amplified = not difference <= tolerance and (
        difference <= _made_by_rounding(subject, images, is_probability)
        and _is_amplified_rounding(subject, images[:NUM_LAYERWISE], tolerance)
    )
    if not (difference <= tolerance or is_amplified):
        raise ExperimentError(
            f"{subject} would train as a different network: on "
            f"{counted(len(images), 'picture')} {'probabilities' if is_probability else 'logits'} differ by "
            f"{difference:.3g}, rounding explains {tolerance:g}; "
            f"{_where_they_part(subject, images[:BATCH], tolerance)}"
        )
    row = {"num_images": len(images), "difference": difference, "tolerance": tolerance, "head": subject.reading.head}
    if is_amplified:
        row |= {"tolerance": None, "is_amplified_rounding": True}
    if subject.trains is not subject.ours:
        trains = _predict(subject.trains, images)
        same = np.mean(trains.argmax(-1) == logits.argmax(-1))
        row |= {"border_difference": _difference(trains, logits), "border_top1_agreement": 100.0 * float(same)}
    return row


def changes_borders(row: dict) -> bool:
    """Whether the file's padding changes a network so much that its BatchNorm statistics are others."""
    return row.get("border_top1_agreement", 100.0) < SAME_CLASS


def notes_on_borders(subject: Subject, row: dict) -> list[str]:
    """A note on a network that such padding changes."""
    if not changes_borders(row):
        return []
    return [
        f"note: padding by 0 instead of the mean leaves the class of only {row['border_top1_agreement']:.0f} % of "
        f"{counted(row['num_images'], 'picture')} unchanged: {subject.given.name} becomes another network at its "
        "borders. To avoid this, subtract the mean from the data instead of in the network. If the network was "
        "trained, its BatchNorm statistics are shifted to fit"
    ]


def line(subject: Subject, row: dict) -> str:
    """What `prove` found, in one line."""
    given = "the model as given" if subject.given.name == subject.role else subject.given.name
    text = (
        f"the {subject.role} computes what {given} computes: on {counted(row['num_images'], 'picture')} "
        f"outputs differ by at most {row['difference']:.1g}"
    )
    if "is_amplified_rounding" in row:
        text += (
            ", because the network amplifies rounding, as deep networks with random weights do: no layer differs by "
            "more than it does when the last bits of the pixels change"
        )
    if "border_difference" in row:
        text += (
            ". A file pads pixels with another value, which changes logits by at most "
            f"{100 * row['border_difference']:.1f} %; the class is the same on {row['border_top1_agreement']:.0f} % "
            "of them"
        )
    return text


def _predict(model: tf_keras.Model, images: np.ndarray) -> np.ndarray:
    batches = [tf.constant(images[start : start + BATCH], tf.float32) for start in range(0, len(images), BATCH)]
    return _called(model, batches)


def _called(model: tf_keras.Model, batches: list[tf.Tensor]) -> np.ndarray:
    """Outputs in inference mode, as a graph, because training and prediction run graphs, which TensorFlow rewrites."""
    graph = tf.function(lambda batch: tf.cast(model(batch, training=False), tf.float64))
    return np.concatenate([np.asarray(graph(batch)) for batch in batches])


def _precision(model: tf_keras.Model) -> str:
    found = {getattr(layer, "compute_dtype", "float32") for layer in leaves(model)}
    return next((precision for precision in TOLERANCES if precision in found), "float32")


def _difference(got: np.ndarray, expected: np.ndarray, absolute: bool = False) -> float:
    """Largest difference, as a share of the largest expected value; infinite if shapes or NaNs differ."""
    if got.shape != expected.shape or not np.array_equal(np.isfinite(got), np.isfinite(expected)):
        return float("inf")
    largest = 1.0 if absolute else max(float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))), 1e-30)
    gap = np.abs(got - expected)
    return float(np.max(gap, initial=0.0, where=np.isfinite(gap))) / largest


def _where_not_finite(subject: Subject, images: np.ndarray) -> str:
    """The first layer whose output is not finite, and what to do."""
    found = run(subject.given, [subject.fed(images)])
    names = [name for name, output in found if not np.all(np.isfinite(tf.cast(output, tf.float64)))]
    where = f"layer {names[0]} is the first to do so; " if names else ""
    return f"{where}give weights of a training that did not diverge"


def _where_they_part(subject: Subject, images: np.ndarray, tolerance: float) -> str:
    """The first layer from which on outputs differ up to the end."""
    fed = subject.fed(images)
    name = _parted(_pairs_as_read(subject, fed), tolerance) or _parted(
        _pairs_as_trained(subject, fed, images), tolerance
    )
    return f"they differ from layer {name} on; write that layer in another way" if name else "no single layer differs"


def _pairs_as_read(subject: Subject, fed: tf.Tensor) -> list[tuple[str, tf.Tensor, tf.Tensor]]:
    """For each layer of the given model: its name, the output of its copy, and its own output."""
    originals = run(subject.given, [fed])
    copies = _tensors(subject.reading.model, [tensor for _, tensor in subject.reading.made], _as_read(subject, fed))
    return [(name, copy, original) for (name, original), copy in zip(originals, copies, strict=True)]


def _pairs_as_trained(subject: Subject, fed: tf.Tensor, images: np.ndarray) -> list[tuple[str, tf.Tensor, tf.Tensor]]:
    """For each layer that the first reading and the network that trains share: its name, and both outputs."""
    ours = {layer.name: layer.output for layer in subject.ours.layers}
    shared = _shared(subject)
    final = _tensors(subject.ours, [ours[layer.name] for layer in shared], images)
    return [(layer.name, *pair) for layer, *pair in zip(shared, final, _shared_as_read(subject, fed), strict=True)]


def _shared(subject: Subject) -> list[tf_keras.layers.Layer]:
    """The layers of the first reading that the network that trains has, too."""
    names = {layer.name for layer in subject.ours.layers}
    return [layer for layer in subject.reading.model.layers if layer.name in names]


def _shared_as_read(subject: Subject, fed: tf.Tensor) -> list[tf.Tensor]:
    return _tensors(subject.reading.model, [layer.output for layer in _shared(subject)], _as_read(subject, fed))


def _as_read(subject: Subject, fed: tf.Tensor) -> tf.Tensor:
    return tf.reshape(fed, (-1, *subject.reading.model.input_shape[1:]))  # a series [N, T, C] is a map [N, 1, T, C]


def _made_by_rounding(subject: Subject, images: np.ndarray, absolute: bool) -> float:
    """The largest difference of outputs that rounding explains, because the network amplifies it."""
    batches = [subject.fed(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    own = _called(subject.given, batches)
    moved = [_called(subject.given, list(one)) for one in zip(*map(_nudged, batches), strict=True)]
    return NUDGES * max(_difference(one, own, absolute) for one in moved)


def _nudged(fed: tf.Tensor) -> list[tf.Tensor]:
    return [tf.constant(one, fed.dtype) for one in nudged(np.asarray(tf.cast(fed, tf.float32)))]


def _is_amplified_rounding(subject: Subject, images: np.ndarray, tolerance: float) -> bool:
    """Whether every layer differs by no more than rounding that the network amplifies."""
    fed = subject.fed(images)
    stages = (
        (lambda: _pairs_as_read(subject, fed), lambda one: [output for _, output in run(subject.given, [one])]),
        (lambda: _pairs_as_trained(subject, fed, images), lambda one: _shared_as_read(subject, one)),
    )
    return all(
        _are_explained(pairs(), outputs(fed), map(outputs, _nudged(fed)), tolerance) for pairs, outputs in stages
    )


def _are_explained(pairs: list[tuple], again: list, moved: Iterable[list], tolerance: float) -> bool:
    """Whether every pair after the last equal one differs by at most NUDGES times what a nudge of the pixels changes.

    Args:
      pairs: (name, our output, the user's output) of each layer.
      again: the user's outputs, computed a second time.
      moved: the user's outputs on each set of nudged pixels; only one is held at a time.
    """
    own = [pair[-1] for pair in pairs]
    if max(_differences([("", *twice) for twice in zip(again, own, strict=True)]), default=0.0) > tolerance:
        return False  # a layer gives another result each time
    differences = _differences(pairs)
    behind = max((index for index, found in enumerate(differences) if found <= tolerance), default=-1) + 1
    by_nudge = [0.0] * len(pairs)
    for outputs in moved:
        found = _differences([("", *pair) for pair in zip(outputs, own, strict=True)])
        by_nudge = list(map(max, by_nudge, found))
    return all(found <= NUDGES * most for found, most in list(zip(differences, by_nudge, strict=True))[behind:])


def _differences(pairs: list[tuple[str, tf.Tensor, tf.Tensor]]) -> list[float]:
    found = []
    for _, got, expected in pairs:
        if tf.size(got) == tf.size(expected):  # that of a map and of its series
            got = tf.reshape(got, tf.shape(expected))
        found.append(_difference(*(np.asarray(tf.cast(v, tf.float64)) for v in (got, expected))))
    return found


def _tensors(model: tf_keras.Model, tensors: list, inputs) -> list:
    return tf.nest.flatten(tf_keras.Model(model.inputs, tensors)(tf.cast(inputs, tf.float32), training=False))


def _parted(pairs: list[tuple[str, tf.Tensor, tf.Tensor]], tolerance: float) -> str | None:
    parted = None
    for (name, *_), difference in zip(pairs, _differences(pairs), strict=True):
        parted = (parted or name) if difference > tolerance else None
    return parted
