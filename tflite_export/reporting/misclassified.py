"""The test images that a file gets wrong: by class, compared with full precision, and some of them as pictures."""

import base64
import io

import numpy as np
from matplotlib import image as image_files

NUM_SHOWN = 12
MAX_PIXELS = 96  # of a side of a picture that is shown
MAX_CLASSES = 12  # of a matrix that can still be read
NUM_PAIRS = 12


def confusion(labels: np.ndarray, classes: np.ndarray, names: list[str]) -> dict:
    """Counts by class and answer.

    Args:
      labels, classes: [N], the images' classes, and those that the file gives.

    Returns:
      `names` of the classes in the matrix: all, or, if there are more than MAX_CLASSES, those of the most frequent
      confusions; `rows`, a dict per class: `name`, `counts` and `shares` (0..1) by answer, `right` in percent, None
      for a class without images; `others`, the number of classes left out; and the most frequent `pairs` of (class,
      answer, count).
    """
    counts = np.bincount(labels * len(names) + classes, minlength=len(names) ** 2).reshape(len(names), len(names))
    wrong = counts * (1 - np.eye(len(names), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[: MAX_CLASSES * MAX_CLASSES]
    pairs = [(int(i // len(names)), int(i % len(names))) for i in order if wrong.flat[i]]
    chosen = list(range(len(names)))
    if len(names) > MAX_CLASSES:
        chosen = sorted(list(dict.fromkeys(k for pair in pairs for k in pair))[:MAX_CLASSES])
    totals = counts.sum(axis=1)
    rows = [
        {
            "name": names[k],
            "counts": counts[k, chosen].tolist(),
            "shares": (counts[k, chosen] / max(1, totals[k])).round(3).tolist(),
            "right": 100.0 * counts[k, k] / totals[k] if totals[k] else None,
        }
        for k in chosen
    ]
    return {
        "names": [names[k] for k in chosen],
        "rows": rows,
        "others": len(names) - len(chosen),
        "pairs": [(names[a], names[b], int(counts[a, b])) for a, b in pairs[:NUM_PAIRS]],
    }


def against_full_precision(labels: np.ndarray, classes: np.ndarray, full_precision: np.ndarray) -> dict:
    """Numbers of images by who is right, and `lost`: indices of those that only full precision gets right."""
    file_right, float_right = classes == labels, full_precision == labels
    return {
        "both": int(np.sum(file_right & float_right)),
        "only_file": int(np.sum(file_right & ~float_right)),
        "only_full_precision": int(np.sum(~file_right & float_right)),
        "neither": int(np.sum(~file_right & ~float_right)),
        "lost": np.flatnonzero(~file_right & float_right).tolist(),
    }


def signal(steps: np.ndarray) -> str:
    """[H, W, C] or [T, C] uint8 as `picture`: the first axis from left to right, the others from top to bottom."""
    return picture(steps.reshape(len(steps), -1).T[..., np.newaxis])


def picture(pixels: np.ndarray) -> str:
    """[H, W, C] uint8 as a PNG in base64.

    A large picture is reduced to every second, third ... pixel; without 3 channels, the first is shown.
    """
    step = -(-max(pixels.shape[:2]) // MAX_PIXELS)
    pixels = pixels[::step, ::step] if pixels.shape[-1] == 3 else np.repeat(pixels[::step, ::step, :1], 3, axis=-1)
    buffer = io.BytesIO()
    image_files.imsave(buffer, np.ascontiguousarray(pixels), format="png")
    return base64.b64encode(buffer.getvalue()).decode()
