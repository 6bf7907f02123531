"""How pictures become what the networks read."""

import types

import numpy as np
import pytest

from qkd_tf import flags
from qkd_tf.proposal import pictures
from qkd_tf.proposal.draft import Draft
from tests.saved_flags import saved_flags


def right(*places):
    """Of 256 pictures all but those."""
    return ~np.isin(np.arange(256), places)


@pytest.mark.parametrize(
    "rights, told, is_chosen",
    [
        (  # 99.6 % and 95.7 %
            {"crop": right(*range(11)), "squash": right(200)},
            "a.keras classifies 99.6 % of whole training pictures correctly, 95.7 %",
            True,
        ),
        ({"crop": right(*range(20)), "squash": right(*range(11, 30))}, "92.6 % of whole training pictures", True),
        (  # as many right: of other pictures
            {"crop": right(*range(30)), "squash": right(*range(30, 60))},
            "from_directory. a.keras classifies 88.3 % of whole training pictures",
            False,
        ),
        (None, "uncomment this for whole pictures, as in Keras' image_dataset_from_directory. --resize", False),
    ],
)
def test_whole_pictures_are_chosen_where_a_trained_student_knows_more_of_them(monkeypatch, rights, told, is_chosen):
    monkeypatch.setattr(pictures.data, "sample", lambda source, spec, number: (spec.resize, None))
    look = types.SimpleNamespace(name="a.keras", is_trained=rights is not None, right=lambda way, _: rights[way])
    with saved_flags():
        flags.FLAGS(["new", "--dataset=folder:a", "--image_size=8", "--run_dir=runs/a"])
        draft = Draft(flags.FLAGS)
    lines = pictures.choose_resize(draft, look, None)
    text = draft.text([])
    assert told in text.replace("\n# ", " ") and ("\n--resize=squash\n" in text) == is_chosen
    assert len(lines) == (rights is not None) and all(
        " % of cropped ones; the flags take the" in line for line in lines
    )


@pytest.mark.parametrize(
    "name, expected", [("7", True), ("b", True), ("turn_left", True), ("RIGHT", True), ("bright", False), ("ab", False)]
)
def test_classes_that_a_mirror_changes(name, expected):
    assert bool(pictures.ONE_SIDED.fullmatch(name)) == expected
