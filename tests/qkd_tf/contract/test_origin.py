import pytest

from qkd_tf.contract.origin import described, leak


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


@pytest.mark.parametrize(
    "networks, names",
    [
        ([("a.keras", ""), ("b.keras", "")], "a.keras or b.keras"),
        ([("nets:build", ""), ("b.keras", "")], "b.keras"),
        ([("nets:build", "w.h5"), ("resnet8", "")], "build"),
        ([("nets:build", ""), ("resnet8", "")], ""),
    ],
)
def test_student_and_teacher_may_know_the_test_pictures(networks, names):
    told = leak("folder:pics", 0.2, networks)
    assert (f"--test_fraction=0.2): if {names} was trained on them" in told) == bool(names) == bool(told)
    assert leak("folder:pics", 0, networks) == ""
