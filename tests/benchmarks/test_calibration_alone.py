"""What the README says of calibration alone is what was measured."""

import json
import pathlib

import pytest

from benchmarks import calibration_alone

README = pathlib.Path(calibration_alone.__file__).parent / "README.md"
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def numbers():
    return json.loads(calibration_alone.RESULT.read_text())


def test_readme_holds_the_table_of_the_json(numbers):
    assert "\n".join(calibration_alone.table(numbers)) in README.read_text()


def test_file_is_within_a_point_and_a_half_of_float(numbers):
    assert numbers["num_images"] > 700
    assert numbers["flags"] == list(calibration_alone.CHOSEN)
    assert abs(numbers["file"]["top1"] - numbers["float"]["top1"]) <= 1.5


def test_readme_says_why_the_gate_refused_the_file(numbers):
    assert numbers["passed"] == (not numbers["failures"])
    assert all(failure in README.read_text() for failure in numbers["failures"])


def test_what_was_exported_is_none_of_the_variants(numbers):
    chosen = tuple(numbers["chosen"][key] for key in calibration_alone.CHOICE)
    assert chosen not in calibration_alone.VARIANTS
    measured = [tuple(row[key] for key in calibration_alone.CHOICE) for row in numbers["variants"]]
    assert measured == list(calibration_alone.VARIANTS)


def test_layout_splits_pictures_without_overlap(tmp_path):
    num_calibration = calibration_alone.NUM_CALIBRATION
    pictures, root = tmp_path / "pictures", tmp_path / "set"
    for index in range(num_calibration + 20):
        path = pictures / f"{index % 7:04d}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    calibration_alone.lay_out(pictures, root)
    train, validation, test = ({path.resolve() for path in root.glob(f"{name}/*/*.jpg")} for name in SPLITS)
    assert (len(train), len(test)) == (num_calibration, 20) and not train & test
    assert train | test == set(pictures.glob("*/*.jpg")) and len(validation & train) == 1
    assert all(path.parent.name == path.resolve().parent.name for path in root.glob("*/*/*.jpg"))
    names = (root / "labels.txt").read_text().split()
    assert len(names) == 1000 and names[7] == "0007"
