"""Images: where they come from (`open_source`), the deterministic batches made of them (`pipelines`), and the test
split of a finished run (`Rereading`)."""

from qkd_tf.data.augmentation import Function, open_augmentation
from qkd_tf.data.pipeline import Splits, load, pipelines, require_enough, sample
from qkd_tf.data.reading import reading
from qkd_tf.data.rereading import Rereading
from qkd_tf.data.source import Examples, PictureDigest, Source, in_memory
from qkd_tf.data.sources import describe, open_source

__all__ = [
    "Examples",
    "Function",
    "PictureDigest",
    "Rereading",
    "Source",
    "Splits",
    "describe",
    "in_memory",
    "load",
    "open_augmentation",
    "open_source",
    "pipelines",
    "reading",
    "require_enough",
    "sample",
]
