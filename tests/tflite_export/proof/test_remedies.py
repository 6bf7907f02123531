import pytest

from qkd_tf.contract.gate import Gate
from tflite_export.proof import remedies as module
from tflite_export.proof.gate import shortfalls
from tflite_export.proof.remedies import OTHERWISE, RETRAIN


def remedies(failures, **told):
    return module.remedies({"failures": failures, **told})


ALIKE = {"different": {}}
LOGITS = {"max_step_error": 0, "equal_logits": 100.0}
WORSE = {"top1": 34.17, "student_top1": 80.0, "num_images": 120, "only_student_right": 57, "only_file_right": 2}
ROW = {"operators": ALIKE, "codes": ALIKE, "integer_student": LOGITS, "accuracy": {**WORSE, "p": 1.0}}
APART = {"different": {"stem": {"equal_codes": 99.0, "max_step_error": 1}}}


@pytest.mark.parametrize(
    "row, part",
    [
        ({**ROW, "accuracy": {**WORSE, "p": 3e-15}}, RETRAIN),
        ({**ROW, "codes": APART}, "export on x86-64"),
        ({"not_run": "tflite-micro is not installed"}, "or export for another --target"),
    ],
)
def test_what_a_runtime_misses_has_a_remedy(row, part):
    (failure,) = shortfalls("tflm", row, "tflm", Gate())
    (remedy,) = remedies([failure])
    assert part in remedy
    assert (remedies([failure], more_accurate="train on") == ["train on"]) == (part is RETRAIN)


@pytest.mark.parametrize(
    "failure, part",
    [
        ("tensor y: one step of its inputs is 300 of its own steps, and LiteRT's CONV_2D supports 0 to 256", "longer"),
        ("layer x: the bias of channels [1] does not fit int32 steps of input scale * weight scale", "longer"),
        ("all tensors and operators are as expected, but the bytes are not packed as this", "with this version"),
        (
            "not a .tflite: the file identifier TFL3 is missing",
            "give the handoff of the run that it comes from, or export this run again",
        ),
        (
            "tensor a/kernel has 1 other integers than expected",
            "give the handoff of the run that it comes from, or export this run again",
        ),
    ],
)
def test_other_failures_have_one_too(failure, part):
    assert part in " ".join(remedies([failure]))


def test_a_remedy_is_said_once_and_nothing_of_a_file_that_passed():
    same = [f"litert: tensor {name} has 99.000 % of the integers that its inputs give, up to" for name in "abc"]
    assert len(remedies([*same, "tensor b is missing"])) == 2
    assert remedies(["tensor b is missing"]) == [OTHERWISE]
    assert remedies([]) == []


def test_every_remedy_can_be_given():
    for words, remedy in module.REMEDIES:
        assert remedies([f"x{words}y"]) == [remedy]
