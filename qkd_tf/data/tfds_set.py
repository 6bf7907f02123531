"""Data sets that TFDS has prepared, by their names there."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import pathlib
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from qkd_tf.console.nearest import meant
from qkd_tf.data.pixels import decoder, shape_notes
from qkd_tf.data.source import Examples, Source
from qkd_tf.experiment import DataSpec, ExperimentError, require

PARALLEL_CALLS = 2
DIGESTED_BYTES, HEAD_BYTES = 1 << 30, 1 << 16  # record files up to which all is digested; else so much of each
UNLABELLED_TEST = "imagenet2012"  # sets whose name begins so: their test split has the label -1 throughout


def open_source(spec: DataSpec) -> Source:
    """Opens a prepared set; the split for choosing epochs is the end of its training split."""
    builder = _prepared(spec)
    shape, label_names = _described(builder, spec)
    splits = list(builder.info.splits)
    has_test = "test" in splits and not spec.name.startswith(UNLABELLED_TEST)
    test_name = spec.test_split or ("test" if has_test else "validation")
    require(
        "train" in splits and test_name in splits,
        f"{spec.name} has the splits {', '.join(splits)}; train and {test_name} are needed; see --test_split",
    )
    num_train, num_test = (builder.info.splits[name].num_examples for name in ("train", test_name))
    cut = num_train - round(num_train * spec.validation_fraction)
    image_key, _ = builder.info.supervised_keys

    def examples(name: str, part: range) -> Examples:
        read = functools.partial(_read, builder, f"{name}[{part.start}:{part.stop}]", image_key)
        return Examples(
            len(part),
            read,
            decoder(spec, shape[2]),
            labels_as_read=functools.partial(_labels, read) if builder.info.disable_shuffling else None,
        )

    return Source(
        train=examples("train", range(cut)),
        validation=examples("train", range(cut, num_train)[spec.eval_images]),
        test=examples(test_name, range(num_test)[spec.eval_images]),
        image_shape=shape,
        label_names=label_names,
        version=str(builder.version),
        notes=shape_notes(spec, builder.info.features[image_key].shape[:2]),
        scan=functools.partial(_scan, builder, ("train", test_name)),
    )


def describe(spec: DataSpec) -> tuple[tuple[int, int, int], list[str]]:
    """Image shape and label names; the set need not be prepared."""
    return _described(_builder(spec), spec)


def _described(builder: tfds.core.DatasetBuilder, spec: DataSpec) -> tuple[tuple[int, int, int], list[str]]:
    keys = builder.info.supervised_keys
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    require(
        keys is not None
        and len(keys) == 2
        and all(map(isinstance, (builder.info.features[key] for key in keys), kinds)),
        f"{spec.name} is not a set of (image, class label) examples",
    )
    image, label = (builder.info.features[key] for key in keys)
    require(bool(label.num_classes), f"{spec.name} does not say how many classes it has")
    dtype = np.dtype(image.np_dtype)
    require(dtype == np.uint8, f"images of {spec.name} are of {dtype}; uint8 is expected")
    height, width, channels = image.shape
    require(
        spec.image_size or None not in (height, width),
        f"images of {spec.name} differ in size; give --image_size, for instance --image_size=224",
    )
    return (*(spec.size or (height, width)), spec.image_channels or channels or 3), label.names


def _prepared(spec: DataSpec) -> tfds.core.DatasetBuilder:
    data_dir = spec.data_dir or None
    where = f"--data_dir={spec.data_dir}" if data_dir else "the default data folder of TFDS"
    prepare = f"prepare it with: python -m qkd_tf.data.prepare {spec.name}"
    prepare += f" --data_dir={data_dir}" if data_dir else ""
    require(
        data_dir is None or pathlib.Path(data_dir).is_dir(),
        f"{where} is not a folder; give the one that holds {spec.name}/VERSION, or {prepare}",
    )
    builder = _builder(spec)
    prepare += " --manual_dir=FOLDER_OF_ITS_ARCHIVES" if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else ""
    require(builder.data_path.exists(), f"{where} contains no prepared {spec.name}; {prepare}")
    return builder


def knows(spec: DataSpec) -> bool:
    """Whether TFDS has a set of that name, in any version and configuration, or one is prepared here."""
    base = _base(spec.name)
    folder = pathlib.Path(spec.data_dir or tfds.core.constants.DATA_DIR).expanduser()
    return base in _names() or (base.isidentifier() and (folder / base).is_dir())


def _builder(spec: DataSpec) -> tfds.core.DatasetBuilder:
    """Builder of a set, prepared or not; reads and writes nothing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS tells there which packages it lacks
            return tfds.builder(spec.name, data_dir=spec.data_dir or None)
    except Exception as error:  # whatever the code of a set raises, or TFDS of a name that is none
        require(
            not knows(spec),
            f"--dataset={spec.name}: TFDS has {_base(spec.name)}, but not this version or variant: {_line(error)}",
        )
        raise unknown(spec.name) from None


def unknown(name: str) -> ExperimentError:
    """The error of a name that no set has."""
    known = (
        "known are digits, folder:/path/to/images, npz:/file.npz and the names of tfds.list_builders(), such as "
        "cifar10 and imagenet2012"
    )
    return ExperimentError(f"unknown data set {name!r}; {meant(name, ['digits', *_names()], known)}")


def _base(name: str) -> str:
    return re.split("[:/]", name)[0]


@functools.cache
def _names() -> list[str]:
    return tfds.list_builders(with_community_datasets=False)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _labels(read: Callable[[int | None], tf.data.Dataset]) -> np.ndarray:
    labels = read(None).map(lambda _, label: label).batch(1_000).as_numpy_iterator()
    return np.concatenate([np.zeros(0, np.int64), *labels])


def _scan(builder: tfds.core.DatasetBuilder, splits: tuple[str, ...], source: Source) -> Source:
    """Digests the content: the record files, or only their beginnings if all of them would take long."""
    files = sorted({str(path) for split in splits for path in builder.info.splits[split].filepaths})
    sizes = [tf.io.gfile.stat(path).length for path in files]
    read = -1 if sum(sizes) <= DIGESTED_BYTES else HEAD_BYTES
    digest = hashlib.sha256(source.version.encode())
    for path, size in zip(files, sizes, strict=True):
        digest.update(f"\n{pathlib.PurePath(path).name} {size} ".encode())
        with tf.io.gfile.GFile(path, "rb") as file:
            digest.update(file.read(read))
    return dataclasses.replace(source, content_sha256=digest.hexdigest(), scan=None)


def _read(builder: tfds.core.DatasetBuilder, split: str, image_key: str, seed: int | None) -> tf.data.Dataset:
    """Encoded examples; with a seed, the files of the set come in that seed's order."""
    ordered = builder.info.disable_shuffling  # one file after the other, whatever the seed
    return builder.as_dataset(
        split=split,
        as_supervised=True,
        decoders={image_key: tfds.decode.SkipDecoding()},
        shuffle_files=seed is not None and not ordered,
        read_config=tfds.ReadConfig(
            shuffle_seed=seed,
            shuffle_reshuffle_each_iteration=False,
            try_autocache=False,  # `pipelines` caches
            skip_prefetch=True,
            num_parallel_calls_for_decode=PARALLEL_CALLS,  # of records; pictures are decoded behind the shuffle
            num_parallel_calls_for_interleave_files=1 if ordered else PARALLEL_CALLS,
        ),
    )
