"""The text of a flag file, as flags read it."""

import pytest

from qkd_tf import flags
from qkd_tf.proposal.draft import Draft
from tests.saved_flags import saved_flags


@pytest.fixture
def draft():
    with saved_flags():
        flags.FLAGS(["new", "--student=resnet8", "--bits_rule=a=w4", "--bits_rule=b=w2", "--nohorizontal_flip"])
        yield Draft(flags.FLAGS)


def test_sections_comments_and_offers(draft):
    draft.choose("run_dir", "runs/a", "Why a folder.")
    draft.choose("horizontal_flip", True, "Not this one, which is given.")
    draft.choose("image_size", (96, 64), "Why a size.")
    draft.offer("resize", "squash", "Why not crop.")
    draft.choose("weight_bits", 3, "Why both.")
    draft.choose("activation_bits", 3, "Why both.")
    draft.remark("student_weights_mean", "Why none.")
    text = draft.text(["Command:   a", "b"])
    assert text.startswith("# Command:   a\n# b\n\n# Why a folder.\n--run_dir=runs/a\n\n# Mirror half of ")
    assert "# Why a size.\n--image_size=96x64\n# Why not crop.\n# --resize=squash\n\n" in text
    assert "# Why both.\n--weight_bits=3\n--activation_bits=3\n" in text
    assert "# Why none.\n\n" in text and "Not this one" not in text
    assert draft.experiment.data.image_size == (96, 64) and draft.experiment.data.resize == "crop"


def test_the_file_is_the_experiment(draft, tmp_path):
    draft.choose("run_dir", "runs/a", "Why " + "a very long reason " * 20)
    draft.choose("phases", ["self_studying"], "Why.")
    (tmp_path / "a.flags").write_text(draft.text(["a"]))
    assert max(map(len, (tmp_path / "a.flags").read_text().splitlines())) <= 120
    with saved_flags():
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["train", f"--flagfile={tmp_path / 'a.flags'}"])
        assert flags.experiment_from_flags() == draft.experiment
        assert flags.FLAGS.bits_rule == ["a=w4", "b=w2"]
