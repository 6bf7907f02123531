"""Images or signals given in Python: arrays, or tf.data sets of pixels or features and labels."""

import collections
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from qkd_tf.console.counting import counted, with_article
from qkd_tf.contract.grid import TensorQuantParams
from qkd_tf.data import example_order, repeats, signals
from qkd_tf.data.holding_out import foremost, stratified
from qkd_tf.data.mixing import is_mixed
from qkd_tf.data.pixels import recolour, shape_notes
from qkd_tf.data.repeats import SplitDigest
from qkd_tf.data.source import Examples, Source, in_memory
from qkd_tf.experiment import DataSpec, ExperimentError, require

BATCH = 256  # examples that are looked at together
COMPARED = 100  # first examples of a set that must come again in the same order
HELD_BYTES = 1 << 30  # of a tf.data set's pixels: a smaller one is run through once and held in memory
BUFFER_BYTES = 512 << 20  # of a set's decoded examples that are shuffled at a time
DARK = 128  # fractional pixels count as 0 to 255 only if one is at least this bright; else their range is unknown

GivenSet = tf.data.Dataset | tuple[np.ndarray, np.ndarray]


def source_of(
    train: GivenSet, test: GivenSet, validation: GivenSet | None, spec: DataSpec, label_names: Sequence[str] | None
) -> Source:
    """A caller's sets, read once and checked.

    Args:
      train, test, validation: (images [N, H, W, C], labels [N]), or a tf.data set of such pairs, batched or not. A set
        that changes its order each time is sorted by content, if its pictures have one size and at most HELD_BYTES.
        Pixels are 0 to 255, of any type; fractions are rounded, and a note says so. Or signals: (features [N, T, C] or
        [N, H, W, C], labels), recognised by `signals.are_signals`; they are quantized to 8 bits here. Labels count from
        0, or are one-hot [N, K]. Without a validation set, `validation_fraction` of each class of the training set
        becomes one.
      label_names: one per class; None for "0", "1", … up to the largest label.

    Raises:
      ExperimentError: other elements, pixels in another range, features that are not finite or all equal, labels that
        are not classes, other examples each time, a large set in another order each time, no example.
    """
    sets = {"train": train, "test": test} | ({"validation": validation} if validation is not None else {})
    params, notes = None, ()
    for name, part in sets.items():
        _require_labels_last(part, name)
    if _are_signals(train, spec):
        given, params, notes = _signals(sets, spec)
    else:
        given = {name: _read(part, name, spec) for name, part in sets.items()}
        for name, part in given.items():
            same = part.shape[2] == given["train"].shape[2] and (spec.size or part.shape == given["train"].shape)
            require(
                bool(same),
                f"{name} has pictures of {part.shape} (height, width, channels), train of {given['train'].shape}; "
                "all sets must have the same number of channels and, without image_size, the same height and width",
            )
    notes += sum((part.notes for part in given.values()), ())
    notes += repeats.notes({name: part.digest.examples for name, part in given.items()})
    labels = {name: part.labels for name, part in given.items()}
    widths = {name: _one_hot_width(part) for name, part in sets.items()}
    label_names = _label_names(labels, label_names, max(widths.values()))
    for name, width in widths.items():
        require(
            width in (0, len(label_names)),
            f"{name} has one-hot labels of {counted(width, 'class')}; there are {len(label_names)} classes, of the "
            "student or of label_names",
        )
    parts = [part.digest.hexdigest() for part in given.values()] + [repr(params)] * (params is not None)
    content = hashlib.sha256("\n".join(parts + label_names).encode()).hexdigest()
    if validation is None:
        chosen = given["train"].for_validation(spec.validation_fraction)
        given["validation"] = given["train"].part(chosen)
        given["train"] = given["train"].part(~chosen)
    for name in ("validation", "test"):
        given[name] = given[name].first(spec.max_eval_images)
    shape, decode = given["train"].shape, lambda features: features
    if params is None:
        notes += shape_notes(spec, shape[:2])
        channels = spec.image_channels or shape[2]
        shape, decode = (*(spec.size or shape[:2]), channels), functools.partial(recolour, channels=channels)
    return Source(
        **{name: part.examples(decode) for name, part in given.items()},
        image_shape=shape,
        label_names=label_names,
        version=content[:16],
        notes=notes,
        content_sha256=content,
        input_params=params,
    )


def open_source(spec: DataSpec) -> Source:
    """Raises ExperimentError: only the name is left of images that were in memory."""
    raise ExperimentError(
        f"--dataset={spec.name}: the data of this run were given in Python and are not saved; "
        "call qkd_tf.fit with them, or train on a folder of pictures (--dataset=folder:PICTURES)"
    )


def describe(spec: DataSpec) -> tuple[tuple[int, int, int], list[str]]:
    """Raises ExperimentError: as `open_source`."""
    source = open_source(spec)
    return source.image_shape, source.label_names


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """A split of arrays: images [N, H, W, C] uint8, labels [N] int64."""

    images: np.ndarray
    labels: np.ndarray
    digest: SplitDigest
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def for_validation(self, fraction: float) -> np.ndarray:
        return stratified(self.labels, fraction)

    def part(self, chosen: np.ndarray) -> "_Arrays":
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def first(self, number: int) -> "_Arrays":
        return self.part(slice(number or None))

    def examples(self, decode: Callable[[tf.Tensor], tf.Tensor]) -> Examples:
        return in_memory(self.images, self.labels, decode)


@dataclasses.dataclass(frozen=True)
class _Stream:
    """A split of a tf.data set: pairs of pixels [h, w, C] uint8 and labels [] int64, labels known as an array.

    Attributes:
      image_bytes: bytes of an image, on average.
      is_held: whether its pixels are kept in memory.
    """

    dataset: tf.data.Dataset
    labels: np.ndarray
    digest: SplitDigest
    notes: tuple[str, ...]
    image_bytes: int
    is_held: bool

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        return tuple(self.dataset.element_spec[0].shape)

    def for_validation(self, fraction: float) -> np.ndarray:
        """Which examples become validation, [N] bool.

        A set that is not held in memory is read up to the last of them. So if its classes are mixed, they are its
        first examples.
        """
        number = round(len(self.labels) * fraction)
        in_order = not self.is_held and number > 0 and is_mixed(self.labels, number)
        return (foremost if in_order else stratified)(self.labels, fraction)

    def part(self, chosen: np.ndarray) -> "_Stream":
        mask, end = tf.constant(chosen), np.max(np.flatnonzero(chosen), initial=-1) + 1
        dataset = (
            self.dataset.take(end).enumerate().filter(lambda index, _: mask[index]).map(lambda _, example: example)
        )
        return dataclasses.replace(self, dataset=dataset, labels=self.labels[chosen])

    def first(self, number: int) -> "_Stream":
        return dataclasses.replace(self, dataset=self.dataset.take(number or -1), labels=self.labels[: number or None])

    def examples(self, decode: Callable[[tf.Tensor], tf.Tensor]) -> Examples:
        buffer = max(1, BUFFER_BYTES // self.image_bytes)
        return Examples(len(self.labels), lambda seed: self.dataset, decode, buffer, lambda: self.labels)


def _are_signals(given: GivenSet, spec: DataSpec) -> bool:
    """Whether a set holds signals; `_read` checks everything else."""
    if isinstance(given, tf.data.Dataset):
        if not _is_pair(given):
            return False
        features, _ = given.element_spec
        return signals.are_signals(
            tuple(features.shape[int(_is_batched(given)) :]), features.dtype.as_numpy_dtype, spec
        )
    if not (isinstance(given, tuple | list) and len(given) == 2):
        return False
    try:
        features = np.asarray(given[0])
    except ValueError:  # a list of several shapes
        return False
    return features.dtype.kind in "iuf" and signals.are_signals(features.shape[1:], features.dtype, spec)


def _require_labels_last(given: GivenSet, name: str) -> None:
    if isinstance(given, tf.data.Dataset) and _is_pair(given):
        features, label = given.element_spec
        require(
            label.shape.rank <= features.shape.rank,
            f"{name}: the set's elements are of shapes {features.shape} and {label.shape}: the labels seem to come "
            "first; give pairs of images and labels, by .map(lambda label, image: (image, label))",
        )


def _is_pair(given: tf.data.Dataset) -> bool:
    pair = given.element_spec
    tensors = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, tf.TensorSpec) for part in pair)
    return tensors and all(part.shape.rank is not None for part in pair)


def _is_batched(given: tf.data.Dataset) -> bool:
    """Whether an element is a batch: features of rank 4, or features and label that share their first dimension."""
    features, label = given.element_spec
    together = label.shape.rank in (1, 2) and features.shape.as_list()[:1] == label.shape.as_list()[:1]
    return features.shape.rank == 4 or together


def _signals(
    sets: dict[str, GivenSet], spec: DataSpec
) -> tuple[dict[str, "_Arrays"], TensorQuantParams, tuple[str, ...]]:
    """The sets quantized to 8 bits, what the 8 bits mean, and notes."""
    pairs = {name: _pair(_collected(given, name) if isinstance(given, tf.data.Dataset) else given, name, _FEATURES)
             for name, given in sets.items()}  # fmt: skip
    features = {name: found for name, (found, _) in pairs.items()}
    train = features["train"]
    for name, found in features.items():
        require(len(found) > 0, f"{name} is empty: it has no example")
        signals.require_features(found, name, spec)
        require(
            found.shape[1:] == train.shape[1:],
            f"{name} has features of shape {found.shape[1:]}, train of {train.shape[1:]}; all examples must have one "
            "shape",
        )
    kinds = {found.dtype for found in features.values()}
    grid = signals.input_grid(train, len(kinds) == 1 and kinds <= {np.dtype(np.uint8), np.dtype(np.int8)}, spec)
    given = {}
    for name, (found, labels) in pairs.items():
        steps, numbers, digest = grid.steps(found), _class_numbers(labels, name), SplitDigest()
        digest.add(steps, numbers)
        given[name] = _Arrays(steps, numbers, digest, ())
    whole = f"examples of shape {train.shape[1:]}, {train.dtype},"
    clipped = {name: grid.clipped(found) for name, found in features.items()}
    return given, grid.params, grid.notes(given["train"].images, clipped, whole)


_FEATURES = "(features [N, T, C] or [N, H, W, C], labels [N]) or a tf.data set is expected"


def _collected(given: tf.data.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A set of signals as arrays: the whole set must be seen before any of it becomes 8 bits."""
    require(given.cardinality() != tf.data.INFINITE_CARDINALITY, f"{name}{_ENDLESS}")
    features, labels, num_bytes = [], [], 0
    batched = _is_batched(given)
    try:
        for found, label in _shown(
            given if batched else given.batch(BATCH), name, given.unbatch() if batched else given
        ):
            num_bytes += found.nbytes
            require(
                num_bytes <= HELD_BYTES,
                f"{name}: the set has more than {HELD_BYTES / 2**30:.3g} GiB of features; give arrays, or "
                "--dataset=npy:FOLDER",
            )
            features.append(found)
            labels.append(label)
        require(len(labels) > 0, f"{name} is empty: it has no example")
        found = np.concatenate(features), np.concatenate(labels)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        if isinstance(error, ExperimentError):
            raise
        raise ExperimentError(f"{name}: examples of the set differ in shape; all must have one shape") from None
    batches = given if batched else given.batch(BATCH)
    again = next(batches.take(1).as_numpy_iterator(), ())
    if again and all(map(np.array_equal, again, (features[0], labels[0]))):
        return found
    numbers = ((values, _class_numbers(part, name)) for values, part in batches.as_numpy_iterator())
    order = example_order.by_content(found[0], _class_numbers(found[1], name), numbers, name)
    return tuple(part[order] for part in found)


def _read(given: GivenSet, name: str, spec: DataSpec) -> _Arrays | _Stream:
    part = (_stream if isinstance(given, tf.data.Dataset) else _arrays)(given, name, spec)
    require(len(part.labels) > 0, f"{name} is empty: it has no example")
    channels = part.shape[2]
    require(
        not spec.image_channels or channels in (1, 3, 4),
        f"--image_channels={spec.image_channels}: {name} has pictures of {channels} channels, which are not colours",
    )
    return part


def _pair(given: tuple[np.ndarray, np.ndarray], name: str, expected: str) -> tuple[np.ndarray, np.ndarray]:
    """The pair as arrays."""
    require(
        isinstance(given, tuple | list) and len(given) == 2,
        f"{name} is {with_article(type(given).__name__)}; {expected}",
    )
    require(
        not isinstance(given[0], tf.data.Dataset),
        f"{name} is a pair of tf.data sets; give one set of (images, labels) to each argument: train_set, "
        "validation_set, test_set",
    )
    try:
        images, labels = (np.asarray(part) for part in given)
    except ValueError as error:  # a list of pictures of several sizes
        raise ExperimentError(f"{name} is not a pair of arrays: {error}; {expected}") from None
    require(
        labels.ndim <= images.ndim,
        f"{name} is a pair of shapes {images.shape} and {labels.shape}: the labels seem to come first; {expected}",
    )
    require(
        labels.ndim in (1, 2) and images.ndim > 0,
        f"{name} has examples of shape {images.shape} and labels of shape {labels.shape}; {expected}",
    )
    require(
        len(labels) == len(images),
        f"{name} has {counted(len(images), 'example')} and {counted(len(labels), 'label')}; one label for each "
        "example is expected",
    )
    return images, labels


def _arrays(given: tuple[np.ndarray, np.ndarray], name: str, spec: DataSpec) -> _Arrays:
    images, labels = _pair(given, name, _IMAGES)
    _require_numbers(images.dtype, name)
    require(
        images.ndim == 4,
        f"{name} has images of shape {images.shape} and labels of shape {labels.shape}; {_IMAGES} "
        "(for grey pictures: images[..., np.newaxis]; for signals: --signals)",
    )
    numbers = _class_numbers(labels, name)
    scale, digest = _Scale(images.dtype), SplitDigest()
    for start in range(0, len(images), BATCH):
        scale.look(images[start : start + BATCH])
    notes = scale.notes(name, "{}.astype(np.uint8)", "np.round")
    if images.dtype != np.uint8:
        images = np.concatenate([_whole(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])
    digest.add(images, numbers)
    return _Arrays(images, numbers, digest, notes)


_IMAGES = "(images [N, H, W, C] uint8, labels [N]) or a tf.data set is expected"
_ENDLESS = ": the set repeats forever; leave .repeat() out, training repeats it itself"
_OTHER_ORDER = (
    ": the set changes its order each time, and its pictures differ in size or have more than "
    f"{HELD_BYTES / 2**30:.3g} GiB, so they are not sorted in memory. Give the folder itself, "
    '"folder:PICTURES", or keep the first order: .shuffle(…, reshuffle_each_iteration=False). '
    "(With validation_split, shuffle=False would split by class)"
)


def _stream(given: tf.data.Dataset, name: str, spec: DataSpec) -> _Stream:
    pair = given.element_spec
    expected = "pairs of pixels [H, W, C] of uint8 and integer labels are expected, batched or not"
    require(_is_pair(given), f"{name}: the set's elements are {pair}; {expected} (with TFDS: as_supervised=True)")
    pixels, label = pair
    endless = given.cardinality() == tf.data.INFINITE_CARDINALITY
    require(not endless, f"{name}{_ENDLESS}")
    batched = pixels.shape.rank == 4
    require(
        pixels.shape.rank in (3, 4) and label.shape.rank in (batched, batched + 1) and pixels.shape[-1] is not None,
        f"{name}: the set has pixels of shape {pixels.shape} and labels of shape {label.shape}; {expected}",
    )
    dataset = given.unbatch() if batched else given
    is_sized = dataset.element_spec[0].shape.is_fully_defined()
    require(bool(spec.size) or is_sized, f"{name}: {_SIZES}")
    _require_numbers(pixels.dtype.as_numpy_dtype, name)
    scale, digest, labels = _Scale(pixels.dtype.as_numpy_dtype), SplitDigest(), [np.zeros(0, np.int64)]
    held, first, num_bytes, is_one_hot = [], [], 0, False
    for images, found in _shown(given if batched else dataset.batch(BATCH if is_sized else 1), name, dataset):
        labels.append(_class_numbers(found, name))
        is_one_hot = found.ndim == 2 and found.shape[1] > 1
        scale.look(images)
        whole = _whole(images)
        digest.add(whole, labels[-1])
        num_bytes += whole.nbytes
        first.extend(itertools.islice(zip(whole, labels[-1], strict=True), COMPARED - len(first)))
        held.append(whole)
        if not is_sized or num_bytes > HELD_BYTES:
            held.clear()
    labels = np.concatenate(labels)
    notes = scale.notes(name, "tf.cast({}, tf.uint8)", "tf.round")

    def example(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if label.shape.rank:
            label = tf.argmax(label) if is_one_hot else label[0]
        return tf.cast(tf.round(image) if image.dtype.is_floating else image, tf.uint8), tf.cast(label, tf.int64)

    dataset = dataset.map(example)
    again = list(dataset.take(COMPARED).as_numpy_iterator())
    in_order = len(first) == len(again) and all(
        np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(first, again, strict=True)
    )
    require(in_order or bool(held), f"{name}{_OTHER_ORDER}")
    if held:
        images = np.concatenate(held)
        if not in_order:
            order = example_order.by_content(images, labels, dataset.batch(BATCH).as_numpy_iterator(), name)
            images, labels, digest = images[order], labels[order], SplitDigest()
            digest.add(images, labels)
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return _Stream(dataset, labels, digest, notes, max(1, num_bytes // max(1, len(labels))), bool(held))


def _shown(batches: tf.data.Dataset, name: str, examples: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches, with a progress bar if they take a while."""
    number = int(examples.cardinality())  # negative where it is not known
    with tqdm(None, f"looking at {name}", max(0, number) or None, unit="image", mininterval=1, delay=1) as bar:
        for images, labels in batches.as_numpy_iterator():
            yield images, labels
            bar.update(len(labels))


_SIZES = (
    "the set's pictures may differ in size; give image_size, for instance image_size=224, or a set whose shape is known"
)


def _whole(images: np.ndarray) -> np.ndarray:
    """Pixels as training reads them; undefined for a range that `_Scale.notes` refuses."""
    if images.dtype == np.uint8:
        return images
    with np.errstate(invalid="ignore"):
        return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _require_numbers(dtype: np.dtype, name: str) -> None:
    require(
        np.dtype(dtype).kind in "iuf",
        f"{name} has values of {np.dtype(dtype)}; numbers are expected: of pictures 0 to 255, best as uint8",
    )


class _Scale:
    """The range of a set's pixels."""

    def __init__(self, dtype: np.dtype):
        self._dtype = np.dtype(dtype)
        self._low, self._high = np.inf, -np.inf
        self._is_whole = self._is_finite = True

    def look(self, images: np.ndarray) -> None:
        if self._dtype == np.uint8 or not images.size:
            return
        self._is_finite = self._is_finite and bool(np.isfinite(images).all())
        self._low, self._high = min(self._low, float(images.min())), max(self._high, float(images.max()))
        self._is_whole = self._is_whole and np.array_equal(images, np.rint(images))

    def notes(self, name: str, cast: str, rounded: str) -> tuple[str, ...]:
        """Notes on what becomes of pixels that are not uint8.

        Args:
          cast, rounded: the code to do so, for the caller's kind of set.

        Raises:
          ExperimentError: they are not within 0 to 255.
        """
        require(self._is_finite, f"{name} has pixels of {self._dtype} that are not finite (NaN or infinite)")
        if self._dtype == np.uint8 or self._low > self._high:  # nothing to look at
            return ()
        low, high = self._low, self._high
        found = f"{name} has pixels of {self._dtype} from {low:.6g} to {high:.6g}"
        if self._is_whole and 0 <= low and 1 < high <= 255:
            return (f"note: {found}, all of them whole numbers; they are read as uint8",)
        if -0.5 < low and DARK <= high < 255.5:
            return (f"note: {found}; they are rounded to whole numbers, as a camera gives them",)
        undone = next((undone for lowest, undone in SCALES if lowest <= low and high <= 1 + TOLERANCE), None)
        remedy = "leave the scaling out (networks scale pixels themselves)"
        if undone:
            remedy = f"undo the scaling (networks scale pixels themselves): {cast.format(f'{rounded}({undone})')}"
        raise ExperimentError(
            f"{found}; 0 to 255 is expected; if these are signals, give --signals and leave out the flags for "
            f"pictures; if they are pictures, {remedy}"
        )


TOLERANCE = 1e-3
# Lowest pixel of images that were scaled to at most 1 -> what they were.
SCALES = ((0 - TOLERANCE, "255 * images"), (-1 - TOLERANCE, "127.5 * (images + 1)"))


def _class_numbers(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels [N], [N, 1] or one-hot [N, K], of any type, as [N] int64."""
    require(
        labels.dtype.kind in "iufb",
        f"{name} has labels of {labels.dtype}; whole numbers are expected: "
        "label_names, labels = np.unique(labels, return_inverse=True)",
    )
    if labels.ndim == 2 and labels.shape[1] != 1:
        is_one_hot = np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(axis=1) == 1)
        require(
            bool(is_one_hot),
            f"{name} has labels of shape {labels.shape} that are not one-hot; one number per example is expected",
        )
        return labels.argmax(axis=1).astype(np.int64)
    labels = labels.reshape(len(labels))
    if labels.dtype.kind == "f":
        strange = [*labels[~(labels == np.rint(labels))][:1]]
        require(
            not strange,
            f"{name} has the label {[*strange, 0][0]}; whole numbers are expected, which count classes from 0",
        )
    return labels.astype(np.int64)


def _one_hot_width(given: GivenSet) -> int:
    """Number of columns of one-hot labels; 0 for labels that are numbers."""
    if isinstance(given, tf.data.Dataset):
        shape = given.element_spec[1].shape
        width = shape[-1] if shape.rank == 1 + _is_batched(given) else 1
    else:
        shape = np.shape(given[1])
        width = shape[1] if len(shape) == 2 else 1
    return width if width and width > 1 else 0


def _label_names(labels: dict[str, np.ndarray], label_names: Sequence[str] | None, width: int) -> list[str]:
    """Names by label. Raises ExperimentError for labels without a name, and for one name of two classes."""
    if label_names is not None:
        require(
            not isinstance(label_names, str),
            f"label_names={label_names!r} is a single string; give a list with one name per class",
        )
        twice = [name for name, number in collections.Counter(label_names).items() if number > 1]
        require(not twice, f"label_names has {[*twice, ''][0]!r} twice; give each class a name of its own")
    high = max(int(found.max()) for found in labels.values())
    num_classes = max(high + 1, width) if label_names is None else len(label_names)
    never_0 = label_names is None and all(found.min() > 0 for found in labels.values())
    for name, found in labels.items():
        require(
            found.min() != 1 or not (never_0 or found.max() == num_classes),
            f"{name} has labels from 1 to {found.max()}; classes are counted from 0: give labels - 1, or a name for 0",
        )
        strange = found[(found < 0) | (found >= num_classes)]
        require(
            not len(strange),
            f"{name} has the label {[*strange, 0][0]}, but the classes are 0..{num_classes - 1}"
            + ", as given by label_names, or else by the student's outputs; count classes from 0, or give more "
            "label_names or outputs" * (label_names is not None),
        )
    return [str(name) for name in (range(num_classes) if label_names is None else label_names)]
