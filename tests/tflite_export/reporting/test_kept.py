import pytest

from tflite_export.reporting.kept import untrained


def phase(best_epoch, name="self_studying"):
    return {"phase": name, "best_epoch": best_epoch, "epochs": 30}


@pytest.mark.parametrize(
    "phases, why",
    [
        ([], "it was only calibrated, not trained (--phases)"),
        ([phase(12, "full_precision")], "it was only calibrated, not trained (--phases)"),
        ([phase(12, "full_precision"), phase(0)], "no epoch was kept: none of 30 was better than calibration alone"),
        ([phase(0), phase(0, "tutoring")], "no epoch was kept: none of 60 was better than calibration alone"),
        ([phase(0), phase(3, "tutoring")], ""),
    ],
)
def test_student_is_trained_if_an_epoch_was_kept(phases, why):
    assert untrained({"phases": phases}) == why
