"""What decoding large JPEGs at a part of their size brings: python -m benchmarks.large_jpegs --pictures=FOLDER

JPEGs of 4,000 x 3,000 pixels are decoded and resized for a network of 224 pixels, whole and at a part of their size, in
turns: mosaics of the photographs that lie anywhere in FOLDER, which are as sharp as a picture can be, and single
photographs enlarged, which are as soft. Pictures of phones are in between. Prints images for a second of processor
time, which other work hardly changes, and how far the pictures are from one another in grey levels of 0 to 255. Writes
benchmarks/large_jpegs.json. A minute.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import io
import itertools
import math
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks import kept_results
from qkd_tf.contract.pictures import room
from qkd_tf.data import pixels

RESULT = pathlib.Path(__file__).parent / "large_jpegs.json"
SIDE, WIDTH, HEIGHT, TILE = 224, 4000, 3000, 500
NUM_PICTURES, NUM_TURNS = 8, 3


def enlarged(photographs: list[pathlib.Path]) -> Image.Image:
    """The first of them, on all of the picture."""
    return Image.open(photographs[0]).convert("RGB").resize((WIDTH, HEIGHT))


def mosaic(photographs: list[pathlib.Path]) -> Image.Image:
    """All of them in their own size, from the top left on."""
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    places = itertools.product(range(0, HEIGHT, TILE), range(0, WIDTH, TILE))
    for (top, left), path in zip(places, itertools.cycle(photographs)):  # noqa: B905
        picture.paste(Image.open(path).convert("RGB").resize((TILE, TILE)), (left, top))
    return picture


def as_jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    return file.getvalue()


def measure(files: list[bytes]) -> dict[str, float]:
    encoded = tf.constant(files)

    def reader(covered: tuple[int, int] | None):
        def read(file: tf.Tensor) -> tf.Tensor:
            return pixels.resize(pixels.decode(file, covered=covered), SIDE)

        made = tf.data.Dataset.from_tensor_slices(encoded).map(read, num_parallel_calls=1).batch(NUM_PICTURES)
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1
        return made.with_options(options)

    readers = {"whole": reader(None), "scaled": reader(room(SIDE))}
    pictures = {how: next(iter(made)).numpy().astype(int) for how, made in readers.items()}
    seconds = dict.fromkeys(readers, math.inf)
    for _ in range(NUM_TURNS):
        for how, made in readers.items():
            start = time.process_time()
            next(iter(made))
            seconds[how] = min(seconds[how], time.process_time() - start)
    difference = np.abs(pictures["scaled"] - pictures["whole"])
    return {
        "megabytes of a file": len(b"".join(files)) / len(files) / 1e6,
        **{f"{how}_images_a_second": NUM_PICTURES / value for how, value in seconds.items()},
        "scaled/whole, images a second": seconds["whole"] / seconds["scaled"],
        "mean difference, grey levels": float(difference.mean()),
        "99th percentile": float(np.percentile(difference, 99)),
        "largest": int(difference.max()),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="folder of photographs, *.jpg or *.JPEG")
    given = parser.parse_args(arguments)
    photographs = sorted([*given.pictures.rglob("*.jpg"), *given.pictures.rglob("*.JPEG")])
    found = {
        make.__name__: measure([as_jpeg(make(photographs[index:])) for index in range(NUM_PICTURES)])
        for make in (mosaic, enlarged)
    }
    kept_results.keep(RESULT, found)
    for kind, numbers in found.items():
        for what, number in numbers.items():
            print(f"{kind}: {what}: {number:.4g}")


if __name__ == "__main__":
    main(sys.argv[1:])
