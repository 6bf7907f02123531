"""Deterministic tf.data pipelines: batches of pixels that depend only on the stored data, the seed and the epoch."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from qkd_tf.console.counting import counted
from qkd_tf.contract.pictures import room
from qkd_tf.data import pixels
from qkd_tf.data.augmentation import Augmentation, Function, OfStudent, open_augmentation
from qkd_tf.data.mixing import is_mixed
from qkd_tf.data.source import Examples, Source
from qkd_tf.data.sources import lasting, open_source
from qkd_tf.experiment import DataSpec, ExperimentError, require

CACHE_BYTES = 4 << 30  # of decoded images that are kept in memory; what does not fit is streamed
# Split -> how a note begins if the split's images lack a class, how it ends, and how many images per class the split
# must have for that note: a small validation split taken from training may lack a class by chance.
WITHOUT_A_CLASS = {
    "train": ("no training image of class", "", 0),
    "validation": ("no validation image of class", "; epochs are judged by these classes only", 10),
    "test": ("no test image of class", "; the test result covers these classes only", 0),
}
DIGESTED = 1_000  # examples that stand in the fingerprint for a split that is streamed, or known by its files
FEW_LABELS = 10_000  # most labels of a split that a pre-flight reads
SAMPLE_SEED = 0
WHOLE = (0, 1)  # the share of a batch that is all of it
RESIZES = {"crop": pixels.resize, "squash": pixels.squash}
PARALLEL_CALLS = 2  # batches at work; 256 of 224x224 are 38 MB
DECODE_CALLS = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Splits:
    """The three splits of a data set, as batches of (pixels [N, H, W, C] uint8, labels [N] int64).

    Attributes:
      train: epoch number, first step, share -> augmented batches of that epoch from that step on (0: all); equal for
        equal seed and epoch. A share (index, number) is one of `number` equal parts of each batch; WHOLE is the whole
        batch. In a streamed split, neither earlier steps nor other shares are decoded.
      calibration: training images without augmentation.
      validation, test: in the order of the data set; the last batch may be short.
      fingerprint: what was read: data set, version, numbers of images, SHA-256 of the first `digested` images of the
        test split (all, or 1,000 if the split does not fit in memory), and `content_sha256`, that of every picture and
        label of all splits as stored; for signals also `input`, scale and zero point in 0..255.
      notes: what a user should know, one per line.
      on_classes: those of the notes on splits without images of some classes; a result says nothing of these.
      max_steps: number of batches after which an epoch ends early; 0 for whole epochs.
      spec: reads them again, in another process too; None if nothing can.
      num_by_class: counts the training images of each class without decoding any.
      augmentation: the user's own and the student's, applied last to training batches; None if there is none.
      reading_batch: examples in a batch of calibration, validation and test; 0: batch_size.
    """

    train: Callable[[int, int, tuple[int, int]], tf.data.Dataset]
    calibration: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    num_train: int
    batch_size: int
    image_shape: tuple[int, int, int]
    label_names: list[str]
    fingerprint: dict
    notes: tuple[str, ...] = ()
    on_classes: tuple[str, ...] = ()
    max_steps: int = 0
    spec: DataSpec | None = None
    num_by_class: Callable[[], list[int]] = list
    augmentation: Augmentation | None = None
    reading_batch: int = 0

    @property
    def steps_per_epoch(self) -> int:
        steps = self.num_train // self.batch_size
        return min(steps, self.max_steps or steps)


def load(spec: DataSpec) -> Splits:
    """`open_source` and `pipelines` in one."""
    source = open_source(spec)
    return pipelines(source, spec.on_images(source.train.num_examples))


def pipelines(
    source: Source, spec: DataSpec, augment: Function | None = None, of_student: OfStudent | None = None
) -> Splits:
    """Batches of a source's examples. Splits that fit `CACHE_BYTES` are decoded once and kept, the others streamed.

    Args:
      augment: the function that `DataSpec.augment` names, if Python passes it.
      of_student: the student's augmentation layers.

    Raises:
      ExperimentError: images that cannot be decoded or differ in size, too few images, labels that are not classes, or
        an augmentation that `open_augmentation` refuses.
    """
    if source.scan:
        source = source.scan(source)
    require_enough(source, spec)
    shape = source.image_shape
    augmentation = open_augmentation(spec, shape, augment, of_student)
    shapes = {"test": shape, "validation": shape, "train": shape}  # memory is given out in this order
    if spec.crops_larger:
        shapes["train"] = (*room(spec.size), *shape[2:])  # for the random crop
    fit, crop, fit_and_crop = _transforms(source, spec)
    examples = {name: getattr(source, name) for name in shapes}
    transforms = {"test": fit_and_crop, "validation": fit_and_crop, "train": fit}
    kept = _fitting({name: examples[name].num_examples * math.prod(shapes[name]) for name in shapes})
    pictures = {
        name: Pictures(
            examples[name],
            transforms[name],
            name in kept,
            source.is_sound,
            functools.partial(_checked, f"the {name} split of {spec.called} has the label", len(source.label_names)),
        )
        for name in shapes
    }
    labels = {name: pictures[name].labels() for name in shapes}
    for name in shapes:
        _require_classes(labels[name], name, source, spec)
    if "train" not in kept:
        _require_mixed(source.train, spec)
    if "train" in kept:
        _require_two_classes(labels["train"], source, spec)
    on_classes = _class_notes(labels, source, spec)
    notes = on_classes + (augmentation.notes if augmentation else ())

    reading_batch = spec.reading_batch or spec.batch_size

    def batched(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.batch(reading_batch).prefetch(PARALLEL_CALLS)

    def augmented(images: tf.Tensor, step: tf.Tensor, seed: int, share: tuple[int, int]) -> tf.Tensor:
        if source.input_params is None:
            images = pixels.augment(images, shape, spec, tf.stack([seed, step]), share)
        if augmentation:
            images = tf.ensure_shape(images, (spec.batch_size // share[1], *shape))
            images = augmentation(images, tf.stack([seed, step]), share)
        return images

    num_whole = source.train.num_examples // spec.batch_size
    num_steps = min(num_whole, spec.max_steps or num_whole)

    def epoch_batches(epoch: int, first_step: int = 0, share: tuple[int, int] = WHOLE) -> tf.data.Dataset:
        seed = spec.seed * 100_003 + epoch
        # Epochs that --max_steps cuts short decode what they read, until together they would have decoded them all.
        is_whole = first_step == 0 and (epoch + 1) * num_steps >= num_whole
        examples = pictures["train"].shuffled(
            seed, first_step * spec.batch_size, _rows(spec.batch_size, share), is_whole
        )
        batches = examples.batch(spec.batch_size // share[1], drop_remainder=True).enumerate(first_step)
        return (
            batches.take(num_steps - first_step)
            .map(
                lambda step, batch: (augmented(batch[0], step, seed, share), batch[1]),
                num_parallel_calls=PARALLEL_CALLS,
            )
            .prefetch(PARALLEL_CALLS)
        )

    def num_by_class() -> list[int]:
        numbers = labels["train"] if "train" in kept else pictures["train"].labels(every=True)
        _require_classes(numbers, "train", source, spec)
        return np.bincount(numbers, minlength=len(source.label_names)).tolist()

    centred = pictures["train"].shuffled(spec.seed, is_whole=False).map(lambda image, label: (crop(image), label))
    return Splits(
        train=epoch_batches,
        calibration=batched(centred),
        validation=batched(pictures["validation"].ordered()),
        test=batched(pictures["test"].ordered()),
        num_train=source.train.num_examples,
        batch_size=spec.batch_size,
        image_shape=shape,
        label_names=source.label_names,
        fingerprint={
            "name": spec.name,
            "version": source.version,
            "num_train": source.train.num_examples,
            "num_test": source.test.num_examples,
            **_digest(pictures["test"], reading_batch),
            "content_sha256": source.content_sha256,
            **_input(source),
        },
        notes=source.notes + notes + _streaming_notes(spec.name, [name for name in shapes if name not in kept]),
        on_classes=on_classes,
        max_steps=spec.max_steps,
        spec=lasting(spec),
        num_by_class=num_by_class,
        augmentation=augmentation,
        reading_batch=reading_batch,
    )


def pictures_of_test(source: Source, spec: DataSpec) -> "Pictures":
    """Only the test split of `pipelines`, from a source that was scanned or need not be; nothing is kept in memory."""
    *_, fit_and_crop = _transforms(source, spec)
    return Pictures(source.test, fit_and_crop, kept=False, is_sound=source.is_sound, checked=lambda label: label)


def require_enough(source: Source, spec: DataSpec) -> None:
    """Raises ExperimentError for fewer classes or images than training, validation and test need."""
    num_train = source.train.num_examples
    require(
        len(source.label_names) > 1,
        f"{spec.called} has {counted(len(source.label_names), 'class')}; two or more are needed",
    )
    require(source.test.num_examples > 0, f"the test split of {spec.called} has no image")
    require(
        source.validation.num_examples > 0,
        f"--validation_fraction={spec.validation_fraction} of {spec.called} is less than one image; "
        "give a larger share",
    )
    require(
        num_train >= spec.batch_size,
        f"--batch_size={spec.batch_size} is more than the {num_train} training images of {spec.called}; "
        f"give a smaller one, such as --batch_size={spec.fitting_batch(max(1, num_train))}",
    )


def notes_on_classes(source: Source, spec: DataSpec) -> tuple[str, ...]:
    """The notes of `Splits.on_classes` without decoding an image. Larger splits than FEW_LABELS are not read.

    Raises:
      ExperimentError: all training images are of one class.
    """
    parts = {name: getattr(source, name) for name in WITHOUT_A_CLASS}
    labels = {
        name: _labels(part.read(None).take(part.num_examples if part.num_examples <= FEW_LABELS else 0))
        for name, part in parts.items()
    }
    if len(labels["train"]):
        _require_two_classes(labels["train"], source, spec)
    return _class_notes(labels, source, spec)


def sample(source: Source, spec: DataSpec, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Some training pictures as validation would read them, always the same, without reading the others.

    Pictures that cannot be used are skipped; `pipelines` names them.

    Args:
      number: how many at most; fewer if the set has fewer.

    Returns:
      Pixels [n, H, W, C] uint8 and labels [n] int64.

    Raises:
      ExperimentError: not one picture can be used.
    """
    *_, fit_and_crop = _transforms(source, spec)
    images, labels = [], []
    for stored, label in source.train.read(SAMPLE_SEED):
        with contextlib.suppress(tf.errors.OpError, ValueError):  # ValueError: another shape than the set's
            images.append(fit_and_crop(source.train.decode(stored)).numpy())
            labels.append(label.numpy())
        if len(images) == number:
            break
    require(len(images) > 0, f"no training image of {spec.called} can be read")
    return np.stack(images), np.array(labels, np.int64)


def _transforms(source: Source, spec: DataSpec) -> tuple[Callable[[tf.Tensor], tf.Tensor], ...]:
    """Stored size -> the size from which training crops; that -> the network's size, at the centre; both in one."""
    shape = source.image_shape
    fit = functools.partial(tf.ensure_shape, shape=shape)
    if source.input_params is not None:
        return fit, fit, fit
    if spec.size:
        fit = functools.partial(RESIZES[spec.resize], image_size=spec.image_size)

    def crop(image: tf.Tensor) -> tf.Tensor:
        return tf.image.resize_with_crop_or_pad(image, *shape[:2])

    return fit, crop, lambda image: crop(fit(image))


class Pictures:
    """A split as (pixels [H, W, C] uint8, label [] int64).

    Args:
      transform: pixels [h, w, C] of any size -> [H, W, C].
      kept: decode once and keep in memory; else shuffle what is stored, and decode it whenever it is read.
      is_sound: every one can be decoded. Otherwise what is kept is decoded before the first use, to find out.
      checked: label -> the same label; it raises an error if that is not a class. All labels of what is kept are
        checked beforehand.
    """

    def __init__(
        self,
        examples: Examples,
        transform: Callable[[tf.Tensor], tf.Tensor],
        kept: bool,
        is_sound: bool,
        checked: Callable[[tf.Tensor], tf.Tensor],
    ):
        self._examples = examples
        self._transform = transform
        self._checked = (lambda label: label) if kept else checked
        self._is_sound = is_sound
        self._kept = self._decoded(examples.read(None)).cache() if kept else None

    def ordered(self, first: int = 0) -> tf.data.Dataset:
        """In the order of the data set, from example number `first` on."""
        return self._decoded(self._examples.read(None).skip(first)) if self._kept is None else self._kept.skip(first)

    def shuffled(
        self,
        seed: int,
        first: int = 0,
        part: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda all_of_it: all_of_it,
        is_whole: bool = True,
    ) -> tf.data.Dataset:
        """In an order that depends only on the seed, from example number `first` on, reduced by `part`.

        Args:
          is_whole: decode all examples, and keep them for later. Otherwise only those that are read are decoded, so
            that a run that resumes within an epoch, or whose epochs have few steps, need not decode a hundred thousand
            pictures before its first step.
        """
        number = self._examples.num_examples
        if self._kept is None:
            stored = self._shuffled(self._examples.read(seed), self._examples.buffer, seed)
            return self._decoded(part(stored.skip(first)))
        if self._is_sound and not is_whole:
            return self._decoded(part(self._shuffled(self._examples.read(None), number, seed).skip(first)))
        return part(self._shuffled(self._kept, number, seed).skip(first))

    def head(self) -> tf.data.Dataset:
        """What is looked at before training: the first DIGESTED examples, or all that is kept if any may be broken."""
        if self._kept is None or self._is_sound:
            return self._decoded(self._examples.read(None)).take(DIGESTED)
        return self._kept

    def labels(self, every: bool = False) -> np.ndarray:
        """Labels [N] int64: all if the split is kept; the first DIGESTED if it is streamed, unless `every`."""
        if self._kept is not None:
            return _labels(self._examples.read(None) if self._is_sound else self._kept)
        return _labels(self._examples.read(None).take(-1 if every else DIGESTED))

    def _shuffled(self, dataset: tf.data.Dataset, buffer: int, seed: int) -> tf.data.Dataset:
        return dataset.shuffle(min(self._examples.num_examples, buffer), seed, reshuffle_each_iteration=False)

    def _decoded(self, stored: tf.data.Dataset) -> tf.data.Dataset:
        return stored.map(
            lambda image, label: (self._transform(self._examples.decode(image)), self._checked(label)),
            num_parallel_calls=DECODE_CALLS,
            deterministic=True,
        ).with_options(_options())


def _labels(examples: tf.data.Dataset) -> np.ndarray:
    """[N] int64."""
    batches = examples.map(lambda _, label: label).batch(DIGESTED)
    return np.concatenate([np.zeros(0, np.int64), *batches.as_numpy_iterator()])


def _rows(batch_size: int, share: tuple[int, int]) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Keeps one share of each batch; the first example begins a batch."""
    index, number = share
    size = batch_size // number

    def part(examples: tf.data.Dataset) -> tf.data.Dataset:
        if number == 1:
            return examples
        mine = examples.enumerate().filter(lambda at, _: at % batch_size // size == index)
        return mine.map(lambda _, example: example)

    return part


def _fitting(num_bytes: dict[str, int]) -> set[str]:
    """Names of the splits that fit into CACHE_BYTES together; earlier ones have the first choice."""
    left, fitting = CACHE_BYTES, set()
    for name, size in num_bytes.items():
        if size <= left:
            left -= size
            fitting.add(name)
    return fitting


def _streaming_notes(name: str, streamed: list[str]) -> tuple[str, ...]:
    if not streamed:
        return ()
    return (
        f"note: {', '.join(streamed)} of {name} would take more than {CACHE_BYTES / 2**30:.3g} GiB of memory; "
        "they are read and decoded again in every epoch",
    )


def _require_classes(labels: np.ndarray, split: str, source: Source, spec: DataSpec) -> None:
    num_classes = len(source.label_names)
    strange = labels[(labels < 0) | (labels >= num_classes)]
    if len(strange):
        raise ExperimentError(
            f"the {split} split of {spec.called} has the label {strange[0]}, but the classes are 0..{num_classes - 1}; "
            "if the test split has no labels, choose another one, such as --test_split=validation"
        )


def _checked(what: str, num_classes: int, label: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert((label >= 0) & (label < num_classes), [what, label])]):
        return tf.identity(label)


def _require_mixed(examples: Examples, spec: DataSpec) -> None:
    """Raises ExperimentError if the shuffle buffer sees only some classes at a time."""
    if examples.labels_as_read is None or examples.num_examples <= examples.buffer:
        return
    labels = examples.labels_as_read()
    require(
        is_mixed(labels, examples.buffer),
        f"the {len(labels):,} training images of {spec.called} are sorted by class, and a shuffle buffer of "
        f"{examples.buffer:,} sees only some classes at a time; shuffle the set once where it is made, for example its "
        "list of files, with a fixed seed",
    )


def _require_two_classes(labels: np.ndarray, source: Source, spec: DataSpec) -> None:
    """Raises ExperimentError if there is only one class to learn."""
    require(
        len(set(labels.tolist())) > 1,
        f"all training images of {spec.called} are of class {source.label_names[labels[0]]}; two classes are needed",
    )


def _class_notes(labels: Mapping[str, np.ndarray], source: Source, spec: DataSpec) -> tuple[str, ...]:
    """Notes on splits without images of some classes. A class that no split has is noted only for training.

    Args:
      labels: split -> its labels. If they are only the first ones, there is no note on that split.
    """
    seen = {split: set(found.tolist()) for split, found in labels.items()}
    notes = []
    for split, (told, effect, per_class) in WITHOUT_A_CLASS.items():
        expected = range(len(source.label_names)) if split == "train" else set.union(*seen.values())
        missing = [source.label_names[label] for label in sorted(set(expected) - seen[split])]
        number = len(labels[split])
        is_whole = number == getattr(source, split).num_examples
        if missing and is_whole and number >= per_class * len(source.label_names):
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            notes.append(
                f"note: {told} {', '.join(missing[:3])}{more} in {spec.called}: there are only {len(seen[split])} "
                f"of {len(source.label_names)} classes{effect}"
            )
    return tuple(notes)


def _input(source: Source) -> dict:
    """What the 8 bits of signals mean; empty for pictures."""
    if source.input_params is None:
        return {}
    return {"input": {"scale": source.input_params.scale, "zero_point": -source.input_params.grid.qmin}}


def _digest(pictures: Pictures, batch_size: int) -> dict:
    digest, num_digested = hashlib.sha256(), 0
    for images, labels in pictures.head().batch(batch_size).as_numpy_iterator():
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
        num_digested += len(labels)
    return {"digested": num_digested, "test_sha256": digest.hexdigest()}


def _options() -> tf.data.Options:
    """Turns autotuning off: its thread sleeps for ever longer periods, and the end of an epoch waits for it to wake.

    With it, an epoch can take twice as long.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
