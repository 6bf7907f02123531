import copy

import pytest

from tflite_export.reporting.summary import answers

RESULTS = {
    "full_precision": {"test_top1": 90.0},
    "experiment": {"target": {"max_flash_bytes": 0, "max_ram_bytes": 0}},
    "phases": [{"phase": "self_studying", "best_epoch": 1, "epochs": 2}],
}
VERIFICATION = {
    "passed": True,
    "judge": "tflm",
    "file": {"bytes": 12_064},
    "weights": {"true_width_bytes": 8_000},
    "runtimes": {
        "litert": {"not_run": "it was not asked"},
        "tflm": {
            "title": "TFLM",
            "num_code_images": 32,
            "operators": {"num_tensors": 9},
            "integer_student": {"num_images": 204},
            "accuracy": {"top1": 89.5, "num_images": 10_000},
            "median_seconds": 0.00123,
            "arena_bytes": 5_000,
        },
    },
}


def told(results=RESULTS, **changes):
    return {row.question: row for row in answers(results, {**copy.deepcopy(VERIFICATION), **changes})}


def limited(flash, ram):
    return {**RESULTS, "experiment": {"target": {"max_flash_bytes": flash, "max_ram_bytes": ram}}}


def test_questions_are_answered_in_the_order_in_which_they_are_asked():
    found = told()
    assert list(found) == ["Is it what I trained?", "How accurate?", "How large?", "How fast?"]
    assert [row.answer for row in found.values()] == ["Yes", "89.50 %", "11.8 KiB", "1.23 ms"]
    assert "every integer of 32 images and the logits of 204 are as predicted, on 1 runtime" in str(found)
    assert found["How accurate?"].more.endswith("full precision has 90.00 %, a difference of -0.50 points")
    assert not any(row.bad for row in found.values())


def test_of_a_runtime_that_showed_its_logits_alone_no_other_integer_is_claimed():
    runtimes = copy.deepcopy(VERIFICATION["runtimes"])
    runtimes["tflm"]["operators"] = {"num_tensors": 0}
    assert (
        told(runtimes=runtimes)["Is it what I trained?"].more
        == "the logits of 204 images are as predicted, on 1 runtime"
    )
    runtimes["litert"] = copy.deepcopy(VERIFICATION["runtimes"]["tflm"])
    more = told(runtimes=runtimes)["Is it what I trained?"].more
    assert more == "every integer of 32 images and the logits of 204 are as predicted, on 1 runtime"


@pytest.mark.parametrize(
    "flash, ram, answer, bad",
    [
        (20_000, 0, "Yes", False),
        (12_063, 5_000, "No, too much flash", True),
        (12_063, 4_999, "No, too much flash and RAM", True),
        (0, 5_000, "Yes", False),
    ],
)
def test_limits_that_were_given_are_held_against_what_came(flash, ram, answer, bad):
    row = told(limited(flash, ram))["Does it fit?"]
    assert (row.answer, row.bad) == (answer, bad)


def test_ram_is_unknown_where_tflm_did_not_run():
    runtimes = {"tflm": {k: v for k, v in VERIFICATION["runtimes"]["tflm"].items() if k != "arena_bytes"}}
    row = told(limited(0, 5_000), runtimes=runtimes)["Does it fit?"]
    assert (row.answer, row.more, row.bad) == ("RAM unknown", "RAM unknown of 5,000 bytes", False)


def test_refused_file_is_not_what_was_trained():
    found = told(passed=False, runtimes={})
    assert found["Is it what I trained?"].answer == "No" and found["Is it what I trained?"].bad
    assert list(found) == ["Is it what I trained?", "How large?"]
    assert [row.answer for row in answers(RESULTS, {"passed": False, "failures": ["x"]})] == ["No"]


def test_student_of_which_no_epoch_was_kept_is_calibrated_only():
    row = told({**RESULTS, "phases": []})["Is it what I trained?"]
    assert (row.answer, row.bad) == ("Calibrated only", False)
    assert row.more.startswith(
        "it was only calibrated, not trained (--phases). Of the calibrated student every integer"
    )


@pytest.mark.parametrize("failures, answer", [(["worse"], "Yes, but refused"), (["worse", "an integer"], "No")])
def test_file_that_is_refused_for_its_accuracy_alone_is_what_was_trained(failures, answer):
    worse = {"top1": 80.0, "student_top1": 90.0, "p": 1e-5, "num_images": 240}
    runtimes = {"tflm": {**VERIFICATION["runtimes"]["tflm"], "accuracy": worse}}
    gate = {"max_top1_difference": 0.2, "min_accuracy_p": 0.001}
    row = told(passed=False, failures=failures, gate=gate, runtimes=runtimes)["Is it what I trained?"]
    assert (row.answer, row.bad) == (answer, True)
    assert ("on TFLM the file is less accurate than the student" in row.more) == (answer != "No")
