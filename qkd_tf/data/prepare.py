"""Prepares a TFDS set once, before training: python -m qkd_tf.data.prepare NAME --data_dir=DIR.

TFDS's own command, `tfds build`, needs Apache Beam also for sets that do not.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import sys

import tensorflow as tf
import tensorflow_datasets as tfds


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> tfds.core.DatasetBuilder:
    """Downloads a set, or takes its archives from `manual_dir`, and writes it to `data_dir`; "" for TFDS's defaults.

    Raises:
      DatasetNotFoundError: TFDS knows no such set.
      AssertionError, OSError, OpError: the set must be downloaded by hand and is not in `manual_dir`; no network,
        no room.
    """
    builder = tfds.builder(name, data_dir=data_dir or None)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir or None))
    return builder


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m qkd_tf.data.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="TFDS image-classification set, such as cifar10 or imagenet2012")
    parser.add_argument("--data_dir", default="", help="folder to write it to; default: that of TFDS")
    parser.add_argument(
        "--manual_dir", default="", help="folder of archives that have to be downloaded by hand (ImageNet)"
    )
    arguments = parser.parse_args(argv)
    try:
        builder = prepare(arguments.name, arguments.data_dir, arguments.manual_dir)
    except tfds.core.DatasetNotFoundError:
        sys.exit(f"error: unknown data set {arguments.name!r}; known are the names of tfds.list_builders()")
    except (AssertionError, OSError, tf.errors.OpError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    splits = ", ".join(f"{name} {split.num_examples:,}" for name, split in builder.info.splits.items())
    print(f"{builder.data_path}: {splits}")


if __name__ == "__main__":
    main()
