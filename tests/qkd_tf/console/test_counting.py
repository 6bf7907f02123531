import pytest

from qkd_tf.console.counting import counted, in_role, with_article


@pytest.mark.parametrize(
    "number, noun, told",
    [
        (0, "class", "0 classes"),
        (1, "class", "1 class"),
        (2, "entry", "2 entries"),
        (2, "batch", "2 batches"),
        (1, "entry", "1 entry"),
        (1_024, "kernel", "1,024 kernels"),
    ],
)
def test_noun_agrees_with_its_number(number, noun, told):
    assert counted(number, noun) == told


def test_article_is_that_of_the_sound():
    nouns = "Dense Embedding LSTM GRU UpSampling2D UnitNormalization MultiHeadAttention SeparableConv2D int".split()
    told = "a Dense, an Embedding, an LSTM, a GRU, an UpSampling2D, a UnitNormalization, a MultiHeadAttention"
    assert ", ".join(map(with_article, nouns)) == f"{told}, a SeparableConv2D, an int"


def test_network_that_is_called_by_its_role_is_named_once():
    assert [in_role("student", name) for name in ("mobilenet", "student", "teacher")] == [
        "the student mobilenet",
        "the student",
        "the student teacher",
    ]
