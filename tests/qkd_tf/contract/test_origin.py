import pytest

from qkd_tf.contract.origin import described


@pytest.mark.parametrize(
    "name, words",
    [
        ("in_memory:d9580b84bed6c612", "a set in memory (d9580b84)"),
        ("in_memory:trained:signs", "the model signs, in memory, with weights"),
        ("in_memory:untrained:signs", "the model signs, in memory, without weights"),
        ("folder:pics", "folder:pics"),
        ("model.keras", "model.keras"),
    ],
)
def test_what_python_hands_over_is_described_in_words(name, words):
    assert described(name) == words
