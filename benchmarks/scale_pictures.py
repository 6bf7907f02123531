"""A stand-in of ImageNet's size: many files, few distinct ones."""

import pathlib

import numpy as np
import tensorflow as tf

HEIGHT, WIDTH, QUALITY = 375, 500, 92  # most common among ImageNet's photographs, with about their 110 kB
NUM_DISTINCT, NUM_CLASSES = 64, 1000
GRAIN = 12  # of brightness, which gives a smooth picture a photograph's bytes


def lay_out(root: pathlib.Path, photographs: pathlib.Path | None, num_train: int) -> None:
    """Links that make a `folder:` set, a tenth as many for the test; those of an earlier call are kept.

    Args:
      photographs: a folder a class, of .jpg; None to draw some.
    """
    found = sorted(photographs.glob("*/*.jpg")) if photographs else _drawn(root.parent / "drawn")
    for split, number in (("train", num_train), ("test", max(1, num_train // 10))):
        for index in range(number):
            path = root / split / f"{index % NUM_CLASSES:04d}" / f"{index:07d}.jpg"
            if not path.is_symlink():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(found[index % len(found)].resolve())


def _drawn(folder: pathlib.Path) -> list[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.jpg" for index in range(NUM_DISTINCT)]
    for index, path in enumerate(paths):
        if not path.exists():
            rng = np.random.default_rng(index)
            smooth = tf.image.resize(rng.uniform(0, 255, (9, 12, 3)), (HEIGHT, WIDTH), "bicubic").numpy()
            pixels = np.clip(smooth + rng.normal(0, GRAIN, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
            path.write_bytes(tf.io.encode_jpeg(pixels, quality=QUALITY).numpy())
    return paths
