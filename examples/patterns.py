"""Draws a folder of practice pictures, to try the tutorials with: python examples/patterns.py PICTURES.

Checks, dots and stripes, bright on dark, of any colour, width and direction under noise: 96 x 96 pixels, as PNG. The
same seed draws the same pictures.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

SIDE = 96
NUMBERS = {"train": 200, "test": 60}  # pictures of each class
# Class -> where its pattern has the second colour; u and v are coordinates in units of the pattern's width.
PATTERNS = {
    "checks": lambda u, v: (np.floor(u) + np.floor(v)) % 2 == 0,
    "dots": lambda u, v: np.hypot(u % 2 - 1, v % 2 - 1) < 0.7,
    "stripes": lambda u, v: np.floor(u) % 2 == 0,
}


def draw(name: str, rng: np.random.Generator) -> Image.Image:
    """One picture of a class."""
    angle, width = rng.uniform(0, np.pi), rng.uniform(3, 6)
    y, x = np.mgrid[:SIDE, :SIDE] / width
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    dark, bright = rng.uniform(0, 100, 3), rng.uniform(155, 255, 3)
    pixels = np.where(PATTERNS[name](u, v)[..., np.newaxis], dark, bright) + rng.normal(0, 100, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(root: pathlib.Path, seed: int = 0) -> None:
    """Writes ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png."""
    rng = np.random.default_rng(seed)
    for split, number in NUMBERS.items():
        for name in PATTERNS:
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(number):
                draw(name, rng).save(folder / f"{index:03}.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("error: give the folder to draw into: python examples/patterns.py PICTURES")
    write(pathlib.Path(sys.argv[1]))
