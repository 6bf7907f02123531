"""How pictures become what the networks read."""

import types

import pytest

from qkd_tf import flags
from qkd_tf.proposal import pictures
from qkd_tf.proposal.draft import Draft
from tests.saved_flags import saved_flags


@pytest.mark.parametrize(
    "top1, told, is_chosen",
    [
        (
            {"crop": 70.0, "squash": 75.0},
            "a.keras classifies 75.0 % of whole training pictures correctly, 70.0 %",
            True,
        ),
        ({"crop": 70.0, "squash": 74.0}, "from_directory. a.keras classifies 74.0 % of whole training pictures", False),
        (None, "uncomment this for whole pictures, as in Keras' image_dataset_from_directory. --resize", False),
    ],
)
def test_whole_pictures_are_chosen_where_a_trained_student_knows_them_better(monkeypatch, top1, told, is_chosen):
    monkeypatch.setattr(pictures.data, "sample", lambda source, spec, number: (spec.resize, None))
    look = types.SimpleNamespace(name="a.keras", is_trained=top1 is not None, best_top1=lambda way, _: top1[way])
    with saved_flags():
        flags.FLAGS(["new", "--dataset=folder:a", "--image_size=8", "--run_dir=runs/a"])
        draft = Draft(flags.FLAGS)
    pictures.choose_resize(draft, look, None)
    text = draft.text([])
    assert told in text.replace("\n# ", " ") and ("\n--resize=squash\n" in text) == is_chosen


@pytest.mark.parametrize(
    "name, expected", [("7", True), ("b", True), ("turn_left", True), ("RIGHT", True), ("bright", False), ("ab", False)]
)
def test_classes_that_a_mirror_changes(name, expected):
    assert bool(pictures.ONE_SIDED.fullmatch(name)) == expected
