import pytest

from qkd_tf.contract.gate import Gate


@pytest.mark.parametrize(
    "drop, p, gate, refused, doubted",
    [
        (45.83, 3e-15, Gate(), True, False),  # the refusal says it
        (10.0, 0.0009, Gate(), True, False),
        (10.0, 0.001, Gate(), False, True),
        (10.0, 0.0059, Gate(), False, True),
        (10.0, 0.1, Gate(), False, False),  # chance
        (0.2, 0.01, Gate(), False, False),  # allowed
        (-1.0, 0.01, Gate(), False, False),  # of maps: more images are worse, and yet more answers right
        (10.0, 3e-15, Gate(min_accuracy_p=0.0), False, True),
        (10.0, 3e-15, Gate(max_top1_difference=20.0), False, False),
    ],
)
def test_a_file_is_refused_or_accepted_in_doubt_or_accepted(drop, p, gate, refused, doubted):
    accuracy = {"student_top1": 80.0, "top1": 80.0 - drop, "p": p}
    assert (gate.finds_worse(accuracy), bool(gate.doubt(accuracy))) == (refused, doubted)
