"""What a first flag file's author is told of two networks."""

import pytest

from qkd_tf.proposal.pixels import PixelFinding, note_on_teacher


@pytest.mark.parametrize(
    "student, teacher, told",
    [(91.2, 85.4, True), (91.2, 88.1, True), (91.2, 88.3, False), (91.2, 99.0, False), (None, 50.0, False)],
)
def test_teacher_that_knows_less_than_its_student_is_told(student, teacher, told):
    notes = note_on_teacher(PixelFinding([], top1=student), PixelFinding([], top1=teacher))
    assert len(notes) == told
    expected = f"the teacher classifies {teacher:.1f} % of training examples correctly, the student 91.2 %"
    assert not told or expected in notes[0]
