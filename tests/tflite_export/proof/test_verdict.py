import pathlib

import pytest

from tflite_export.proof.verdict import print_verdict, runtime_line

PATH = pathlib.Path("export/model.tflite")
ROW = {
    "num_images": 204,
    "num_code_images": 32,
    "student": {"top1_agreement": 69.06},
    "integer_student": {"num_images": 204, "equal_logits": 100.0},
    "operators": {"equal_codes": 100.0, "num_tensors": 9},
    "codes": {"equal_codes": 100.0},
    "accuracy": {"num_images": 10_000, "top1": 79.128, "student_top1": 79.07, "p": 1.0},
    "median_seconds": 0.00123,
}
PASSED = {
    "passed": True,
    "failures": [],
    "notes": ["weights are stored as int8: as asked for"],
    "num_images": 10_000,
    "judge": "litert",
    "gate": {"max_top1_difference": 0.2, "min_accuracy_p": 0.001},
    "file": {"bytes": 90_128},
    "runtimes": {"litert": ROW, "tflm": {"not_run": "tflite-micro is not installed"}},
}


def test_row_of_a_runtime_is_one_line():
    assert runtime_line(ROW) == (
        "100.00 % of the integers are as predicted (all tensors of 32 images, the logits of 204); same class as the "
        "student in floating point on 69.06 % of 204 images; 1.23 ms per image on this computer"
    )
    assert runtime_line(ROW, is_judge=False) == (
        "100.00 % of the integers are as predicted (all tensors of 32 images, the logits of 204); "
        "1.23 ms per image on this computer"
    )


@pytest.mark.parametrize("key", ["operators", "codes", "integer_student"])
def test_least_share_of_equal_integers_is_told(key):
    part = {name: 98.5 if name in ("equal_codes", "equal_logits") else value for name, value in ROW[key].items()}
    assert runtime_line({**ROW, key: part}).startswith("98.50 % of the integers are as predicted (")


def test_passed_file_has_notes_a_line_for_each_runtime_that_ran_and_the_verdict_last(capsys):
    assert print_verdict(PASSED, PATH) is True
    out, err = capsys.readouterr()
    note, runtime, verdict = out.splitlines()
    assert note == "note: weights are stored as int8: as asked for"
    assert verdict == (
        f"verified: {PATH}: 90,128 bytes; top-1 79.13 % on 10,000 test images (litert); "
        "student in floating point 79.07 %"
    )
    assert runtime.startswith("litert: 100.00 % of the integers are as predicted")
    assert err == ""


@pytest.mark.parametrize("extra", [{}, {"runtimes": {}, "notes": []}])
def test_refused_file_has_a_line_on_stderr_for_each_reason_and_no_accuracy(capsys, extra):
    refused = {"passed": False, "failures": ["tensor a/kernel has 1 other integers", "tensor b is missing"], **extra}
    assert print_verdict(refused, PATH) is False
    out, err = capsys.readouterr()
    *lines, remedy = err.splitlines()
    assert lines == ["FAILED: tensor a/kernel has 1 other integers", "FAILED: tensor b is missing"]
    assert remedy.startswith("what to do: this is not the file that the export of this run writes")
    assert out == ""


def test_names_of_a_strangers_tensors_are_shown_on_one_line_of_bounded_length(capsys):
    failures = ["tensor \x1b[2Ja\nb is missing", "x" * 5_000, *["tensor c is missing"] * 500]
    print_verdict({"passed": False, "failures": failures}, PATH)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "FAILED: tensor \ufffd[2Ja\ufffdb is missing"
    assert lines[1] == f"FAILED: {'x' * 1_000}…"
    assert len(lines) == 22 and lines[-2] == "FAILED: 482 more"


def test_lookup_tables_are_told_of_under_their_own_name(capsys):
    compressed = {"file": {"bytes": 37_472}, "equal_logits": 100.0, "num_images": 200}
    print_verdict({**PASSED, "compressed": compressed}, PATH)
    assert capsys.readouterr().out.splitlines()[-2] == (
        "export/model.compressed.tflite: 37,472 bytes, 100.00 % of its logits equal the plain file's on 200 images"
    )


def test_last_line_of_a_file_that_may_be_worse_says_so(capsys):
    accuracy = {"num_images": 120, "top1": 82.5, "student_top1": 92.5, "p": 0.0059}
    print_verdict({**PASSED, "runtimes": {"litert": {**ROW, "accuracy": accuracy}}}, PATH, 98.33)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(
        "top-1 82.50 % on 120 test images (litert); student in floating point 92.50 %, full precision 98.33 %; "
        "accepted, but 10.00 points below the student in floating point (p = 0.0059; refused below 0.001)"
    )
