"""Images that Python hands over: arrays, or tf.data sets of pixels and labels."""

import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from qkd_tf.data.source import Examples, Source, in_memory
from qkd_tf.experiment import DataSpec, ExperimentError, require

DIGESTED = 1_000  # examples of a set that stand for all in its name
COMPARED = 100  # first examples of a set that must come again in the same order

GivenSet = tf.data.Dataset | tuple[np.ndarray, np.ndarray]


def source_of(
    train: GivenSet, test: GivenSet, validation: GivenSet | None, spec: DataSpec, label_names: Sequence[str] | None
) -> Source:
    """The sets of a caller, checked.

    Args:
      train, test, validation: (images [N, H, W, C] uint8, labels [N]), or a tf.data set of such pairs, batched or not,
        whose order is always the same. Without a validation set every so manieth training example is kept for it.
      label_names: one a class; None for "0", "1", … up to the greatest label.

    Raises:
      ExperimentError: other elements, an order that changes, no example.
    """
    given = {"train": _dataset(train, "train", spec), "test": _dataset(test, "test", spec)}
    if validation is None:
        every = max(2, round(1 / spec.validation_fraction))
        given["train"], given["validation"] = _cut(given["train"], every)
    else:
        given["validation"] = _dataset(validation, "validation", spec)
    for name in ("validation", "test"):
        given[name] = given[name].take(spec.max_eval_images or -1)
    labels = {name: _labels(dataset) for name, dataset in given.items()}
    for name, found in labels.items():
        require(len(found) > 0, f"{name} has no example")
    if label_names is None:
        label_names = [str(label) for label in range(1 + max(int(found.max()) for found in labels.values()))]
    shape = next(iter(given["train"]))[0].shape
    side = (spec.image_size,) * 2 if spec.image_size else tuple(shape[:2])
    return Source(
        **{name: _examples(given[name], len(labels[name])) for name in given},
        image_shape=(*side, shape[2]),
        label_names=[str(name) for name in label_names],
        version=_digest(given, labels),
    )


def open_source(spec: DataSpec) -> Source:
    """Raises ExperimentError: of images in memory nothing is left but their name."""
    raise ExperimentError(
        f"--dataset={spec.name}: the images of this run were handed over in Python and are not kept; "
        "call qkd_tf.fit with them, or train on a folder of pictures (--dataset=folder:PICTURES)"
    )


def _dataset(given: GivenSet, name: str, spec: DataSpec) -> tf.data.Dataset:
    """Unbatched pairs of pixels uint8 [h, w, C] and labels int64 []."""
    if not isinstance(given, tf.data.Dataset):
        return _of_arrays(given, name)
    pair = given.element_spec
    expected = "pairs of pixels uint8 [H, W, C] and whole labels are expected, batched or not"
    tensors = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, tf.TensorSpec) for part in pair)
    require(tensors, f"{name}: the set's elements are {pair}; {expected} (of TFDS: as_supervised=True)")
    pixels, label = pair
    endless = given.cardinality() == tf.data.INFINITE_CARDINALITY
    require(not endless, f"{name}: the set repeats without end; leave .repeat() out, training begins it anew itself")
    require(
        pixels.dtype == tf.uint8 and label.dtype.is_integer,
        f"{name}: the set has pixels of {pixels.dtype.name} and labels of {label.dtype.name}; {expected} "
        "(leave scaling and one-hot labels out; both networks normalise pixels themselves)",
    )
    require(
        pixels.shape.rank in (3, 4) and label.shape.rank == pixels.shape.rank - 3,
        f"{name}: the set has pixels of shape {pixels.shape} and labels of shape {label.shape}; {expected}",
    )
    dataset = given if pixels.shape.rank == 3 else given.unbatch()
    require(spec.image_size or dataset.element_spec[0].shape.is_fully_defined(), f"{name}: {_SIZES}")
    dataset = dataset.map(lambda image, label: (image, tf.cast(label, tf.int64)))
    first, again = (list(dataset.take(COMPARED).as_numpy_iterator()) for _ in range(2))
    same = all(np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(first, again, strict=True))
    require(same, f"{name}: the set comes in another order each time; leave its shuffle out, training shuffles itself")
    return dataset


_SIZES = (
    "the set's pictures may differ in size; give image_size, for instance image_size=224, or a set whose shape is known"
)


def _of_arrays(given: tuple[np.ndarray, np.ndarray], name: str) -> tf.data.Dataset:
    expected = "(images [N, H, W, C] uint8, labels [N]) or a tf.data set is expected"
    require(isinstance(given, tuple | list) and len(given) == 2, f"{name} is a {type(given).__name__}; {expected}")
    images, labels = (np.asarray(part) for part in given)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # as tf_keras.datasets has them
    require(
        images.ndim == 4 and labels.shape == images.shape[:1],
        f"{name} has images of shape {images.shape} and labels of shape {labels.shape}; {expected} "
        "(of one-hot labels: labels.argmax(-1))",
    )
    require(
        images.dtype == np.uint8 and np.issubdtype(labels.dtype, np.integer),
        f"{name} has images of {images.dtype} and labels of {labels.dtype}; {expected} "
        "(leave scaling out, or undo it: np.round(255 * images).astype(np.uint8); networks normalise pixels inside)",
    )
    return in_memory(images, labels).read(None)


def _cut(dataset: tf.data.Dataset, every: int) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """(Training, validation), whatever the order of the classes is."""

    def part(chosen) -> tf.data.Dataset:
        return dataset.enumerate().filter(lambda index, _: chosen(index % every)).map(lambda _, example: example)

    return part(lambda place: place != 0), part(lambda place: place == 0)


def _labels(dataset: tf.data.Dataset) -> np.ndarray:
    batches = dataset.map(lambda _, label: label).batch(DIGESTED).as_numpy_iterator()
    return np.concatenate([np.zeros(0, np.int64), *batches])


def _examples(dataset: tf.data.Dataset, num_examples: int) -> Examples:
    return Examples(num_examples, lambda seed: dataset, lambda image: image)


def _digest(given: dict[str, tf.data.Dataset], labels: dict[str, np.ndarray]) -> str:
    """Of all labels and of the first images."""
    digest = hashlib.sha256()
    for name, dataset in given.items():
        digest.update(labels[name].tobytes())
        for image, _ in dataset.take(DIGESTED).as_numpy_iterator():
            digest.update(image.tobytes())
    return digest.hexdigest()[:16]
