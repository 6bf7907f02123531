"""The built-in data set: scikit-learn's 1,797 handwritten digits of 8x8 pixels, a fifth of them for the test."""

import functools

import numpy as np
import sklearn
from sklearn.datasets import load_digits

from qkd_tf.data.pixels import recolour
from qkd_tf.data.source import PictureDigest, Source, in_memory
from qkd_tf.experiment import DataSpec

SIDE = 8  # pixels


def open_source(spec: DataSpec) -> Source:
    digits = load_digits()
    images = np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))  # the split is the data set's, not the run's
    train, test = np.split(order, [len(order) * 4 // 5])
    num_validation = round(len(train) * spec.validation_fraction)
    train, validation = train[num_validation:], train[:num_validation]
    validation, test = validation[spec.eval_images], test[spec.eval_images]
    shape, label_names = describe(spec)
    decode = functools.partial(recolour, channels=shape[2])
    digest = PictureDigest()
    digest.add(images, digits.target.astype(np.int64))
    return Source(
        *(in_memory(images[part], digits.target[part], decode) for part in (train, validation, test)),
        image_shape=shape,
        label_names=label_names,
        version=f"scikit-learn {sklearn.__version__}",
        content_sha256=digest.hexdigest(),
    )


def describe(spec: DataSpec) -> tuple[tuple[int, int, int], list[str]]:
    """Image shape and label names."""
    return (*(spec.size or (SIDE, SIDE)), spec.image_channels or 1), [str(digit) for digit in range(10)]
