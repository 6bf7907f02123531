"""Data sets that TFDS has prepared, by their names there."""

import functools
import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from qkd_tf.data.pixels import decode
from qkd_tf.data.source import Examples, Source
from qkd_tf.experiment import DataSpec, ExperimentError, require

PARALLEL_CALLS = 2
UNLABELLED_TEST = "imagenet2012"  # sets whose name begins so: their test split has the label -1 throughout


def open_source(spec: DataSpec) -> Source:
    """Opens a prepared set; the split for choosing epochs is the end of its training split."""
    builder = _builder(spec)
    keys, splits = builder.info.supervised_keys, list(builder.info.splits)
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    require(
        keys is not None and all(map(isinstance, (builder.info.features[key] for key in keys), kinds)),
        f"{spec.name} is not a set of (image, class label) examples",
    )
    image, label = (builder.info.features[key] for key in keys)
    require(bool(label.num_classes), f"{spec.name} does not say how many classes it has")
    dtype = np.dtype(image.np_dtype)
    require(dtype == np.uint8, f"images of {spec.name} are of {dtype}; uint8 is expected")
    has_test = "test" in splits and not spec.name.startswith(UNLABELLED_TEST)
    test_name = spec.test_split or ("test" if has_test else "validation")
    require(
        "train" in splits and test_name in splits,
        f"{spec.name} has the splits {', '.join(splits)}; train and {test_name} are needed; see --test_split",
    )
    height, width, channels = image.shape
    require(
        spec.image_size or None not in (height, width),
        f"images of {spec.name} differ in size; give --image_size, for instance --image_size=224",
    )
    channels = channels or 3

    def examples(name: str, part: range) -> Examples:
        return Examples(
            len(part),
            functools.partial(_read, builder, f"{name}[{part.start}:{part.stop}]", keys[0]),
            functools.partial(decode, channels=channels),
        )

    num_train, num_test = (builder.info.splits[name].num_examples for name in ("train", test_name))
    cut = num_train - round(num_train * spec.validation_fraction)
    return Source(
        train=examples("train", range(cut)),
        validation=examples("train", range(cut, num_train)[spec.eval_images]),
        test=examples(test_name, range(num_test)[spec.eval_images]),
        image_shape=(spec.image_size or height, spec.image_size or width, channels),
        label_names=label.names,
        version=str(builder.version),
    )


def _builder(spec: DataSpec) -> tfds.core.DatasetBuilder:
    data_dir = spec.data_dir or None
    where = f"--data_dir={spec.data_dir}" if data_dir else "the default data folder of TFDS"
    prepare = f"prepare it with: python -m qkd_tf.data.prepare {spec.name}"
    prepare += f" --data_dir={data_dir}" if data_dir else ""
    require(
        data_dir is None or pathlib.Path(data_dir).is_dir(),
        f"{where} is not a folder; give the one that holds {spec.name}/VERSION, or {prepare}",
    )
    try:
        builder = tfds.builder(spec.name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise ExperimentError(
            f"unknown data set {spec.name!r}; known are digits, folder:/path/to/images and the names of "
            "tfds.list_builders(), such as cifar10 and imagenet2012"
        ) from None
    prepare += " --manual_dir=FOLDER_OF_ITS_ARCHIVES" if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else ""
    require(builder.data_path.exists(), f"{where} holds no prepared {spec.name}; {prepare}")
    return builder


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
