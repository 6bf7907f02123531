"""What is said of a file's accuracy, and that nothing is said of chance."""

import numpy as np
import pytest

from tflite_export.proof.cautions import cautions

LABELS = np.zeros(200, int)
RESULTS = {
    "full_precision": {"test_top1": 99.0},
    "experiment": {
        "data": {"name": "folder:my/pictures", "test_fraction": 0.0},
        "student": {"name": "my.keras", "weights": ""},
    },
}
ROWS = {"litert": {"title": "LiteRT"}, "tflm": {"title": "TFLM"}}


def right(num_right):
    """Classes of which so many are right, the others wrong."""
    return (np.arange(len(LABELS)) >= num_right).astype(int)


def told(classes, full_precision=None, results=RESULTS, passed=True):
    verification = {
        "passed": passed,
        "judge": "litert",
        "runtimes": ROWS,
        "target": "a phone",
        "more_accurate": "train on",
    }
    return cautions(results, verification, LABELS, classes, full_precision, ["ant"])


@pytest.mark.parametrize("full_precision", [right(198), None])
def test_file_far_below_full_precision_is_told_with_what_to_do(full_precision):
    (line,) = told({"litert": right(96)}, full_precision)
    assert line == "the file is 51.00 points below full precision (48.00 % and 99.00 % of 200 test images): train on"
    (refused,) = told({"litert": right(96)}, full_precision, passed=False)
    assert refused.endswith("images)")


@pytest.mark.parametrize("num_right, full_precision", [(189, right(198)), (185, np.roll(right(198), 14)), (185, None)])
def test_a_few_points_or_what_may_be_chance_are_not_told(num_right, full_precision):
    """4.5 points; 6.5 by 15 images to 2, or as many as independent networks have; both are at p above 0.001."""
    assert told({"litert": right(num_right)}, full_precision) == []


@pytest.mark.parametrize("num_right, is_told", [(50, True), (60, True), (75, False)])
def test_file_that_hardly_beats_one_class_for_all_is_told(monkeypatch, num_right, is_told):
    labels = np.arange(200) % 4
    monkeypatch.setattr(f"{__name__}.LABELS", labels)
    answers = np.where(np.random.default_rng(0).permutation(200) < num_right, labels, (labels + 1) % 4)
    expected = (
        f"the file is right on {num_right / 2:.2f} % of 200 test images; always giving class ant is right on 25.00 %"
    )
    assert told({"litert": answers}, answers) == [f"{expected}, so it may have learned nothing"] * is_told


def test_class_that_the_file_no_longer_knows_is_told_though_the_whole_gained():
    """Half of the second class is lost, p = 0.03; of the third two of three, p = 0.25, which may be chance."""
    labels = np.repeat([0, 1, 2], [39, 10, 3])
    before, file = labels.copy(), labels.copy()
    before[:6] = 1  # of the first class six were wrong
    file[39:44], file[49:51] = 0, 0
    verification = {
        "passed": True,
        "judge": "litert",
        "runtimes": ROWS,
        "target": "a phone",
        "more_accurate": "train on",
    }

    def said(names, answers=file):
        return cautions(RESULTS, verification, labels, {"litert": answers}, before, names)

    told = "the file is far less accurate than full precision on class {} (5 of 10 right, 10 in full precision)"
    assert said(["bolt", "nut", "washer"]) == [told.format("nut")]
    assert said([]) == [told.format(1)]
    assert said([], before) == []


def test_full_precision_that_is_not_known_is_not_compared():
    assert told({"litert": right(0)}, results={**RESULTS, "full_precision": None}) == []
    assert told({}) == []


def test_runtime_on_which_the_file_is_worse_is_named_with_its_top1():
    (line,) = told({"litert": right(198), "tflm": right(160)[:198]})
    assert "less accurate on other runtimes than on LiteRT" in line and "ignore this if it only runs on a phone" in line
    assert "80.81 % and not 100.00 % of 198 images on TFLM (p = 3.6e-12)" in line
    assert told({"litert": right(198), "tflm": right(195)}) == []  # chance
    assert told({"litert": right(190), "tflm": right(200)}) == []  # better


def test_test_pictures_that_the_weights_may_know_are_told():
    experiment = {**RESULTS["experiment"], "data": {"name": "folder:my/pictures", "test_fraction": 0.2}}
    (line,) = told({"litert": right(198)}, results={**RESULTS, "experiment": experiment})
    assert "if my.keras was trained on them, the test result is too good" in line


def test_classes_without_images_are_told_with_the_file():
    note = "note: no test image of class ant in folder:pictures: there are only 3 of 4 classes; the test is of these"
    (line,) = told({"litert": right(198)}, results={**RESULTS, "on_classes": [note]})
    assert line == note.removeprefix("note: ")
