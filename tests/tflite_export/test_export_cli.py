"""python -m tflite_export, in processes of its own: its flags share their names with those of training."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tflite_export.read_back import read_back
from tflite_export.runtimes import infer

# Runs the command for each list of arguments and tells how it ended: one start of TensorFlow serves all.
DRIVER = """
import contextlib, io, json, sys
from absl import app, flags
from tflite_export.__main__ import main

ends = []
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app.run(main, argv=["tflite_export", *arguments])
        except SystemExit as end:
            code = end.code
        except Exception as error:
            code = repr(error)
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS.flags_by_module_dict().get("tflite_export.__main__", []):
        flag.unparse()
    ends.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(ends))
"""


def run(*command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def folders(run_folder, tmp_path_factory):
    """Copies of the run, by what is wrong with them."""
    parent = tmp_path_factory.mktemp("exports")
    names = ("honest", "int8", "unlike", "lenient", "no_results")
    copies = {name: shutil.copytree(run_folder.path, parent / name) for name in names}
    for name in ("unlike", "lenient"):
        logits = np.load(copies[name] / "handoff" / "student_logits.npy")
        np.save(copies[name] / "handoff" / "student_logits.npy", np.roll(logits, 1, axis=-1))
    (copies["no_results"] / "results.json").unlink()
    copies["absent"] = parent / "absent"
    copies["empty"] = parent / "empty"
    copies["empty"].mkdir()
    return copies


@pytest.fixture(scope="module")
def honest(folders) -> subprocess.CompletedProcess:
    """The command as a user gives it."""
    return run("-m", "tflite_export", f"--run_dir={folders['honest']}")


@pytest.fixture(scope="module")
def ends(folders) -> dict:
    """How other calls of the command end."""
    calls = {
        "no_flag": [],
        "stray_argument": [f"--run_dir={folders['honest']}", "runs/other"],
        "int8": [f"--run_dir={folders['int8']}", "--input_type=int8"],
        "lenient": [f"--run_dir={folders['lenient']}", "--max_top1_difference=100", "--min_top1_agreement=0"],
        **{name: [f"--run_dir={folders[name]}"] for name in ("absent", "empty", "no_results", "unlike")},
    }
    finished = run("-c", DRIVER, json.dumps(list(calls.values())))
    assert finished.returncode == 0, finished.stderr
    return dict(zip(calls, json.loads(finished.stdout.splitlines()[-1]), strict=True))


def test_honest_run_exits_with_0_and_says_where_the_file_is(honest, folders):
    assert honest.returncode == 0, honest.stderr
    target = folders["honest"]
    size = (target / "export" / "model.tflite").stat().st_size
    first, second = honest.stdout.splitlines()
    assert first.startswith(f"{target}/export/model.tflite: {size:,} bytes, top-1 ")
    assert "on 32 test images" in first
    assert second == f"report: {target}/report.html"


def test_honest_run_leaves_file_labels_verification_and_report(honest, folders, residual):
    target = folders["honest"]
    assert sorted(path.name for path in (target / "export").iterdir()) == [
        "labels.txt",
        "model.tflite",
        "verification.json",
    ]
    assert (target / "export" / "labels.txt").read_text().splitlines() == residual.handoff.label_names
    assert json.loads((target / "export" / "verification.json").read_text())["passed"] is True
    assert "is what was trained" in (target / "report.html").read_text()
    content = (target / "export" / "model.tflite").read_bytes()
    codes, _ = infer("litert", read_back(content), content, residual.handoff.test_images)
    assert np.abs(codes.astype(int) - residual.handoff.student_logits).max() <= 1


def test_honest_run_tells_of_no_failure(honest):
    assert not any(word in honest.stderr for word in ("Traceback", "FAILED", "error:"))


def test_input_type_is_what_was_asked_for(honest, ends, folders):
    assert ends["int8"]["code"] in (0, None)
    kinds = []
    for name in ("honest", "int8"):
        verification = json.loads((folders[name] / "export" / "verification.json").read_text())
        kinds.append(verification["tensors"][0]["type"])
    assert kinds == ["uint8", "int8"]


@pytest.mark.parametrize(
    "call, words",
    [
        ("no_flag", "--run_dir is missing; give the folder of a finished run"),
        ("absent", "lacks student.keras"),
        ("empty", "lacks student.keras"),
        ("no_results", "has no results.json"),
    ],
)
def test_mistake_is_one_line_and_a_failing_exit(ends, call, words):
    code = ends[call]["code"]
    assert isinstance(code, str)  # sys.exit of a text prints it to stderr and exits with 1
    assert code.startswith("error: ") and words in code
    assert "\n" not in code
    assert ends[call]["out"] == ""


def test_stray_argument_is_refused(ends, folders):
    assert ends["stray_argument"]["code"] not in (0, None)


def test_mistake_leaves_nothing_behind(ends, folders):
    assert not folders["absent"].exists()
    assert list(folders["empty"].iterdir()) == []
    assert not (folders["no_results"] / "export").exists()


def test_failed_gate_is_a_failing_exit_that_tells_why(ends, folders):
    end = ends["unlike"]
    assert isinstance(end["code"], str) and end["code"].startswith("error: ")
    assert "is not what was trained" in end["code"] and "\n" not in end["code"]
    assert "FAILED: top-1 agreement with the student is" in end["err"]
    assert end["out"] == ""


def test_refused_file_is_kept_with_its_report(ends, folders):
    assert json.loads((folders["unlike"] / "export" / "verification.json").read_text())["passed"] is False
    assert "The .tflite was refused" in (folders["unlike"] / "report.html").read_text()


def test_gate_flags_reach_the_gate(ends, folders):
    assert ends["lenient"]["code"] in (0, None)  # the same run that the default gate refuses
    gates = [
        json.loads((folders[name] / "export" / "verification.json").read_text())["gate"]
        for name in ("unlike", "lenient")
    ]
    assert gates == [
        {"max_top1_difference": 0.2, "min_top1_agreement": 99.5},
        {"max_top1_difference": 100.0, "min_top1_agreement": 0.0},
    ]
