import pytest

from qkd_tf.console.counting import counted


@pytest.mark.parametrize(
    "number, noun, told",
    [
        (0, "class", "0 classes"),
        (1, "class", "1 class"),
        (2, "entry", "2 entries"),
        (1, "entry", "1 entry"),
        (1_024, "kernel", "1,024 kernels"),
    ],
)
def test_noun_agrees_with_its_number(number, noun, told):
    assert counted(number, noun) == told
