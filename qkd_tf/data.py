"""Images: TFDS sets by name and the embedded digits, as deterministic tf.data pipelines."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import numpy as np
import sklearn
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from qkd_tf.experiment import DataSpec, ExperimentError, require

RESIZE_RATIO = 256 / 224  # of the shorter side to the crop (LSQ, EfficientNet and others on ImageNet)
SHUFFLE_BUFFER = 50_000
PARALLEL_CALLS = 2


@dataclasses.dataclass(frozen=True)
class Splits:
    """The three splits of a data set, as batches of (pixels [N, H, W, C] uint8, labels [N] int64).

    Attributes:
      train: epoch number -> augmented batches of that epoch, the same for the same seed and epoch.
      calibration: training images without augmentation.
      validation, test: in the order of the data set, the last batch may be short.
      fingerprint: what was read: data set, version, numbers of images, SHA-256 of the test split.
    """

    train: Callable[[int], tf.data.Dataset]
    calibration: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    num_train: int
    batch_size: int
    image_shape: tuple[int, int, int]
    label_names: list[str]
    fingerprint: dict

    @property
    def steps_per_epoch(self) -> int:
        return self.num_train // self.batch_size


@dataclasses.dataclass(frozen=True)
class Source:
    """Decoded examples (image [H, W, C] uint8, label int64), before any augmentation."""

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    label_names: list[str]
    version: str


def load(spec: DataSpec) -> Splits:
    """Opens a data set.

    Raises:
      ExperimentError: unknown set, or one that TFDS has not prepared in `spec.data_dir`.
    """
    return pipelines(_digits(spec) if spec.name == "digits" else _tfds(spec), spec)


def pipelines(source: Source, spec: DataSpec) -> Splits:
    """Batches of decoded examples.

    Raises:
      ExperimentError: images that differ in size, too few of them, or a test split without labels.
    """
    if spec.image_size:
        source = _resized(source, spec)
    train, validation, test = (
        split.with_options(_options()).cache() for split in (source.train, source.validation, source.test)
    )
    image_shape = tuple(test.element_spec[0].shape)
    require(
        None not in image_shape,
        f"images of {spec.name} differ in size; give --image_size, for instance --image_size=224",
    )
    num_train, num_validation = (sum(1 for _ in split) for split in (train, validation))
    require(num_validation > 0, f"--validation_fraction={spec.validation_fraction} of {spec.name} is not one image")
    require(
        num_train >= spec.batch_size,
        f"--batch_size={spec.batch_size} is more than the {num_train} training images of {spec.name}",
    )
    buffer = min(num_train, SHUFFLE_BUFFER)

    def epoch_batches(epoch: int) -> tf.data.Dataset:
        seed = spec.seed * 100_003 + epoch
        batches = (
            train.shuffle(buffer, seed, reshuffle_each_iteration=False)
            .batch(spec.batch_size, drop_remainder=True)
            .enumerate()
        )
        return batches.map(
            lambda step, batch: (augment(batch[0], image_shape, spec, tf.stack([seed, step])), batch[1]),
            num_parallel_calls=PARALLEL_CALLS,
        ).prefetch(PARALLEL_CALLS)

    centred = train.map(lambda image, label: (tf.image.resize_with_crop_or_pad(image, *image_shape[:2]), label))
    test_batches = test.batch(spec.batch_size)
    return Splits(
        train=epoch_batches,
        calibration=centred.shuffle(buffer, spec.seed, reshuffle_each_iteration=False).batch(spec.batch_size),
        validation=validation.batch(spec.batch_size),
        test=test_batches,
        num_train=num_train,
        batch_size=spec.batch_size,
        image_shape=image_shape,
        label_names=source.label_names,
        fingerprint={"name": spec.name, "version": source.version, "num_train": num_train, **_digest(test_batches)},
    )


def _options() -> tf.data.Options:
    """No autotuning: its thread sleeps in doubling periods, and the end of an epoch waits for it to wake.

    An epoch can take twice its time.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def augment(images: tf.Tensor, image_shape, spec: DataSpec, seed: tf.Tensor) -> tf.Tensor:
    """Random crop out of black padding and random mirror, by `seed` [2] alone.

    Args:
      images: [N, h, w, C] uint8, h and w at least those of `image_shape`.

    Returns:
      [N, H, W, C] uint8.
    """
    height, width, channels = image_shape
    pad = spec.crop_padding if not spec.image_size else 0
    images = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    n, padded_height, padded_width, _ = tf.unstack(tf.shape(images))
    spare = tf.stack([padded_height - height, padded_width - width])
    crop_seed, mirror_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    offsets = tf.random.stateless_uniform([n, 2], crop_seed)
    top, left = tf.split(tf.cast(offsets * tf.cast(spare + 1, tf.float32), tf.int32), 2, axis=1)
    columns = tf.range(width)
    if spec.horizontal_flip:
        mirror = tf.random.stateless_uniform([n, 1], mirror_seed) < 0.5
        columns = tf.where(mirror, columns[::-1], columns)
    # Crop and mirror are one choice of pixels: five times faster than one after the other.
    rows = tf.range(n)[:, tf.newaxis] * padded_height + top + tf.range(height)
    chosen = rows[:, :, tf.newaxis] * padded_width + (left + columns)[:, tf.newaxis]
    return tf.gather(tf.reshape(images, [-1, channels]), chosen)


def _digits(spec: DataSpec) -> Source:
    """scikit-learn's bundled handwritten digits: 1,797 pictures of 8x8, one fifth of them for the test."""
    digits = load_digits()
    images = np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))  # the split is the data set's, not the run's
    examples = [(images[part], digits.target[part].astype(np.int64)) for part in np.split(order, [len(order) * 4 // 5])]
    train, test = examples
    num_validation = round(len(train[0]) * spec.validation_fraction)
    return Source(
        train=tf.data.Dataset.from_tensor_slices(tuple(a[num_validation:] for a in train)),
        validation=tf.data.Dataset.from_tensor_slices(tuple(a[:num_validation] for a in train)),
        test=tf.data.Dataset.from_tensor_slices(test),
        label_names=[str(name) for name in digits.target_names],
        version=f"scikit-learn {sklearn.__version__}",
    )


def _tfds(spec: DataSpec) -> Source:
    data_dir = spec.data_dir or None
    where = f"--data_dir={spec.data_dir}" if data_dir else "the default data folder of TFDS"
    prepare = f"prepare it with: .venv/bin/tfds build {spec.name}" + (f" --data_dir={data_dir}" if data_dir else "")
    require(
        data_dir is None or pathlib.Path(data_dir).is_dir(),
        f"{where} is not a folder; give the one that holds {spec.name}/VERSION, or {prepare}",
    )
    try:
        builder = tfds.builder(spec.name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise ExperimentError(
            f"unknown data set {spec.name!r}; known are digits and the names of tfds.list_builders(), such as cifar10"
        ) from None
    require(builder.data_path.exists(), f"{where} holds no prepared {spec.name}; {prepare}")
    keys, splits = builder.info.supervised_keys, list(builder.info.splits)
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    require(
        keys is not None and all(map(isinstance, (builder.info.features[key] for key in keys), kinds)),
        f"{spec.name} is not a set of (image, class label) examples",
    )
    test_name = spec.test_split or ("test" if "test" in splits else "validation")
    require(
        "train" in splits and test_name in splits,
        f"{spec.name} has the splits {', '.join(splits)}; train and {test_name} are needed; see --test_split",
    )
    num_examples = builder.info.splits["train"].num_examples
    cut = num_examples - round(num_examples * spec.validation_fraction)
    train, validation, test = builder.as_dataset(
        split=[f"train[:{cut}]", f"train[{cut}:]", test_name],
        as_supervised=True,
        read_config=tfds.ReadConfig(try_autocache=False),  # `load` caches
    )
    return Source(train, validation, test, builder.info.features[keys[1]].names, str(builder.version))


def _resized(source: Source, spec: DataSpec) -> Source:
    """Training images with room for a random crop, the others cropped at the centre."""
    side = round(spec.image_size * RESIZE_RATIO)

    def centre(image, label):
        return tf.image.resize_with_crop_or_pad(_resize(image, side), spec.image_size, spec.image_size), label

    return dataclasses.replace(
        source,
        train=source.train.map(lambda image, label: (_resize(image, side), label), PARALLEL_CALLS),
        validation=source.validation.map(centre, PARALLEL_CALLS),
        test=source.test.map(centre, PARALLEL_CALLS),
    )


def _resize(image: tf.Tensor, side: int) -> tf.Tensor:
    """Shorter side to `side`, then the centre square; pixels stay whole numbers."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    size = tf.cast(tf.round(shape * side / tf.reduce_min(shape)), tf.int32)
    image = tf.image.resize(image, size, antialias=True)
    image = tf.image.resize_with_crop_or_pad(image, side, side)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _digest(test: tf.data.Dataset) -> dict:
    digest, num_test = hashlib.sha256(), 0
    for images, labels in test.as_numpy_iterator():
        require(labels.min() >= 0, "the test split has no labels; name another by --test_split, such as validation")
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
        num_test += len(labels)
    return {"num_test": num_test, "test_sha256": digest.hexdigest()}
