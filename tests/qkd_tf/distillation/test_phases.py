import pytest

from qkd_tf.distillation.phases import PHASES
from qkd_tf.experiment import PHASES as NAMES
from qkd_tf.experiment import TEACHER_PHASES


def test_every_phase_of_the_flags_has_a_row():
    assert tuple(PHASES) == NAMES
    assert all(row.name == name for name, row in PHASES.items())


def test_phases_that_distill_are_those_that_demand_a_teacher():
    assert tuple(name for name, row in PHASES.items() if row.distills) == TEACHER_PHASES


@pytest.mark.parametrize(
    "name, quantized, teacher, distills",
    [
        ("full_precision", False, "trained", False),
        ("self_studying", True, "absent", False),
        ("co_studying", True, "trained", True),
        ("tutoring", True, "frozen", True),
    ],
)
def test_rows_are_those_of_the_methods_table(name, quantized, teacher, distills):
    row = PHASES[name]
    assert (row.quantized, row.teacher, row.distills) == (quantized, teacher, distills)
