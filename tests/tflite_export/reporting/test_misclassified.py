import base64
import io

import numpy as np
import pytest
from matplotlib import image as image_files

from tflite_export.reporting.misclassified import MAX_CLASSES, against_full_precision, confusion, picture, signal


def test_matrix_of_few_classes_is_whole():
    labels, classes = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = confusion(labels, classes, ["ant", "bee", "cat"])
    assert found["names"] == ["ant", "bee", "cat"] and found["others"] == 0
    assert [row["counts"] for row in found["rows"]] == [[1, 2, 0], [1, 1, 0], [0, 0, 0]]
    assert [row["right"] for row in found["rows"]] == [pytest.approx(100 / 3), 50.0, None]
    assert found["rows"][0]["shares"] == [0.333, 0.667, 0.0]
    assert found["pairs"] == [("ant", "bee", 2), ("bee", "ant", 1)]


def test_matrix_of_many_classes_has_those_that_are_confused_most():
    names = [f"class {k}" for k in range(1000)]
    labels = np.repeat(np.arange(1000), 2)
    classes = labels.copy()
    classes[[2 * 700, 2 * 700 + 1]] = 3  # both of class 700
    classes[2 * 41] = 42
    found = confusion(labels, classes, names)
    assert found["names"] == ["class 3", "class 41", "class 42", "class 700"] and found["others"] == 996
    assert found["pairs"] == [("class 700", "class 3", 2), ("class 41", "class 42", 1)]
    assert found["rows"][3]["counts"] == [2, 0, 0, 0] and found["rows"][3]["right"] == 0.0


def test_matrix_of_many_classes_has_an_end():
    rng = np.random.default_rng(0)
    found = confusion(rng.integers(0, 1000, 5000), rng.integers(0, 1000, 5000), list(map(str, range(1000))))
    assert len(found["names"]) == len(found["rows"]) == MAX_CLASSES
    assert all(len(row["counts"]) == MAX_CLASSES for row in found["rows"])


def test_no_mistake_at_all():
    found = confusion(np.arange(20), np.arange(20), list("abcdefghijklmnopqrst"))
    assert found["names"] == [] and found["pairs"] == []


def test_images_that_only_full_precision_gets_right_are_the_lost_ones():
    labels, classes, full_precision = np.array([[0, 1, 2, 3], [0, 9, 9, 3], [0, 1, 9, 9]])
    found = against_full_precision(labels, classes, full_precision)
    assert found == {"both": 1, "only_file": 1, "only_full_precision": 1, "neither": 1, "lost": [1]}


@pytest.mark.parametrize("shape, size", [((8, 8, 1), (8, 8)), ((20, 30, 3), (20, 30)), ((224, 100, 3), (75, 34))])
def test_picture_is_a_png_of_its_pixels(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    seen = image_files.imread(io.BytesIO(base64.b64decode(picture(pixels))), format="png")
    assert seen.shape[:2] == size
    np.testing.assert_array_equal(np.round(seen[0, 0, :3] * 255), np.broadcast_to(pixels[0, 0], 3))


@pytest.mark.parametrize("shape, size", [((12, 3), (3, 12)), ((12, 3, 2), (6, 12)), ((7,), (1, 7))])
def test_signal_is_a_map_whose_first_axis_goes_to_the_right(shape, size):
    steps = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    seen = image_files.imread(io.BytesIO(base64.b64decode(signal(steps))), format="png")
    assert seen.shape[:2] == size
    np.testing.assert_array_equal(np.round(seen[..., 0] * 255), steps.reshape(len(steps), -1).T)
