"""python -m tflite_export, in processes of its own: its flags share their names with those of training."""

import dataclasses
import json
import shutil
import subprocess
import sys
import zlib

import numpy as np
import pytest
from tf_keras import layers

import tflite_export
from qkd_tf.contract.gate import Gate
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.storage import durable, folder_lock
from tflite_export import exporter
from tflite_export.export_error import ExportError
from tflite_export.export_folder import ExportFolder, target_of
from tflite_export.exporter import export
from tflite_export.flatbuffer import compress
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.inference.runtimes import RUNTIMES, absence, infer
from tflite_export.load import load_handoff


@pytest.fixture(scope="module")
def folders(run_folder, tmp_path_factory):
    """Copies of the run, by what is wrong with them."""
    parent = tmp_path_factory.mktemp("exports")
    names = ("honest", "int8", "unlike", "lenient", "no_results", "micro", "int4", "typo", "cut_results")
    names += ("other_handoff", "no_handoff")
    copies = {name: shutil.copytree(run_folder.path, parent / name) for name in names}
    for name in ("unlike", "lenient"):
        labels = np.load(copies[name] / "handoff" / "test_labels.npy")  # a student that is always right
        np.save(copies[name] / "handoff" / "student_logits.npy", 100 * np.eye(5, dtype=np.int8)[labels])
        durable.seal(copies[name] / "handoff")
        results = durable.read_json(copies[name] / "results.json")
        results["handoff"] = durable.digest(copies[name] / "handoff" / durable.MANIFEST)
        durable.write_json(copies[name] / "results.json", results)
    (copies["no_results"] / "results.json").unlink()
    (copies["cut_results"] / "results.json").write_text((copies["cut_results"] / "results.json").read_text()[:500])
    shutil.rmtree(copies["no_handoff"] / "handoff")
    shutil.rmtree(copies["other_handoff"] / "handoff")
    shutil.copytree(copies["unlike"] / "handoff", copies["other_handoff"] / "handoff")
    for name in ("int4", "typo"):  # as they may be from an earlier export; a mistake must leave them alone
        (copies[name] / "export").mkdir()
        (copies[name] / "export" / "model.tflite").write_text("of before")
    copies["absent"] = parent / "absent"
    copies["empty"] = parent / "empty"
    copies["empty"].mkdir()
    return copies


@pytest.fixture(scope="module")
def honest(folders) -> subprocess.CompletedProcess:
    """The command as a user gives it."""
    command = [sys.executable, "-m", "tflite_export", f"--run_dir={folders['honest']}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def ends(folders, end_of) -> dict:
    """How other calls of the command end."""
    calls = {
        "no_flag": [],
        "stray_argument": [f"--run_dir={folders['honest']}", "runs/other"],
        "int8": [f"--run_dir={folders['int8']}", "--input_type=int8"],
        "lenient": [f"--run_dir={folders['lenient']}", "--max_top1_difference=0.3", "--min_accuracy_p=0"],
        "micro": [f"--run_dir={folders['micro']}", "--target=microcontroller"],
        "second": [f"--run_dir={folders['micro']}", "--target=phone", "--runtimes="],
        "retired": [f"--run_dir={folders['honest']}", "--min_top1_agreement=90"],
        "int4": [f"--run_dir={folders['int4']}", "--target=ethos_u", "--weight_storage=int4"],
        "typo": [f"--run_dir={folders['typo']}", "--runtimes=litert,tfml"],
        **{name: [f"--run_dir={folders[name]}"] for name in ("absent", "empty", "no_results", "unlike")},
        **{name: [f"--run_dir={folders[name]}"] for name in ("cut_results", "other_handoff", "no_handoff")},
    }
    return end_of("tflite_export.__main__", calls)


def test_honest_run_exits_with_0_and_says_where_the_file_is(honest, folders):
    assert honest.returncode == 0, honest.stderr
    target = folders["honest"]
    size = (target / "export" / "model.tflite").stat().st_size
    lines = honest.stdout.splitlines()
    notes = [line for line in lines if line.startswith("note: ")]
    *runtimes, first, report, last = lines[len(notes) :]
    assert any("weights are stored as int8: no other storage runs faster" in note for note in notes)
    assert first.startswith(f"verified: {target}/export/model.tflite: {size:,} bytes; top-1 ")
    assert " % on 32 test images (litert); student in floating point " in first
    asked = [name for name in RUNTIMES if absence(name) is None]
    assert [line.split(":")[0] for line in runtimes] == asked
    assert all("100.00 % of the integers are as predicted (all tensors of 32 images" in line for line in runtimes)
    assert report == f"report: {target}/report.html"
    assert last == f"next: {target}/export/phone/README.md says how to run the file on the device"


def test_honest_run_leaves_file_labels_verification_and_report(honest, folders, residual):
    target = folders["honest"]
    assert sorted(path.name for path in (target / "export").iterdir()) == [
        "labels.txt",
        "model.tflite",
        "phone",
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
        ("absent", "there is no folder "),
        ("empty", "has no results.json"),
        ("no_handoff", "lacks student.keras"),
        ("no_results", "has no results.json"),
        ("cut_results", "results.json is not the JSON object that was written; run"),
        ("other_handoff", "results.json and handoff/ are from different trainings; run"),
        ("retired", "--min_top1_agreement was removed; leave it out: top-1 agreement is reported and refuses no file"),
        ("int4", "an Ethos-U NPU does not run it"),
        ("typo", "unknown runtime 'tfml' in --runtimes; did you mean tflm?"),
    ],
)
def test_mistake_is_one_line_and_a_failing_exit(ends, call, words):
    code = ends[call]["code"]
    assert isinstance(code, str)  # sys.exit of a text prints it to stderr and exits with 1
    assert code.startswith("error: ") and words in code
    assert "\n" not in code
    assert ends[call]["out"] == ""


def test_a_folder_of_runs_and_a_run_for_its_handoff_are_told(folders, tmp_path):
    run = folders["honest"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    with pytest.raises(ExportError, match="runs is a folder of 1 run; give one, such as .*runs/mine$"):
        tflite_export.export(tmp_path / "runs")
    with pytest.raises(ExportError, match="is a run; give its handoff, .*/handoff$"):
        load_handoff(run)


def test_in_python_a_mistake_names_the_argument(folders):
    with pytest.raises(ExportError, match="^unknown runtime 'tfml' in runtimes; did you mean tflm[?]$"):
        tflite_export.export(folders["typo"], runtimes=["tfml"])


@pytest.mark.parametrize(
    "options, told",
    [
        ({"weightstorage": "int4"}, "export has no argument weightstorage; did you mean weight_storage?"),
        ({"weight_storage": "int5"}, "unknown weight_storage 'int5'; "),
        ({"input_type": "float32"}, "unknown input_type 'float32'; "),
        ({"gate": Gate(min_accuracy_p=2.0)}, "--min_accuracy_p=2.0 is not a probability"),
        ({"gate": Gate(max_top1_difference=-5.0)}, "--max_top1_difference=-5.0 is not a number of points"),
        ({"gate": Gate(min_accuracy_p=float("nan"))}, "--min_accuracy_p=nan is not a probability"),
        ({"gate": 3}, "gate is of type int; give a qkd_tf.contract.gate.Gate"),
        ({"vela": "ethos-u55-128"}, "vela is of type str; give a tflite_export.bundles.vela.Vela"),
        ({"runtimes": "tflm"}, "runtimes='tflm' is a single string; give a list, such as runtimes=['tflm']"),
    ],
)
def test_in_python_an_argument_that_does_not_fit_is_one_line(run_folder, options, told):
    with pytest.raises(ExportError) as caught:
        tflite_export.export(run_folder.path, **options)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


def test_folder_that_is_in_use_is_left_alone(run_folder, tmp_path):
    run_dir = shutil.copytree(run_folder.path, tmp_path / "run")
    with folder_lock.locked(run_dir), pytest.raises(folder_lock.FolderInUseError, match="is in use by process"):
        export(run_dir, "phone", runtimes=())
    assert not (run_dir / "export").exists()


def test_a_file_of_other_settings_is_not_replaced_without_a_word(run_folder, tmp_path, capsys):
    run_dir = shutil.copytree(run_folder.path, tmp_path / "run")
    for input_type, told in (("uint8", False), ("uint8", False), ("int8", True)):
        export(run_dir, "phone", input_type=input_type, runtimes=())
        assert ("model.tflite, of " in (out := capsys.readouterr().out)) == told, out


def test_other_statistics_than_the_models_own_are_told(run_folder, tmp_path):
    run_dir = shutil.copytree(run_folder.path, tmp_path / "run")
    results = durable.read_json(run_dir / "results.json")
    results |= {"full_precision": {"origin": "statistics", "test_top1": 50.0}, "start_top1": {"student": 17.24}}
    durable.write_json(run_dir / "results.json", results)
    (note,) = (note for note in export(run_dir, "phone", runtimes=())["notes"] if "full precision" in note)
    assert note.endswith("with its own it is right on 17.24 % of validation images")


def test_export_that_breaks_off_leaves_no_verification_beside_other_files(run_folder, tmp_path, monkeypatch):
    run_dir = shutil.copytree(run_folder.path, tmp_path / "run")
    export(run_dir, "phone", runtimes=())
    original = durable.write_whole

    def full(path, content):
        if path.name == "labels.txt":
            raise OSError(28, "No space left on device")
        original(path, content)

    monkeypatch.setattr(durable, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        export(run_dir, "phone", runtimes=())
    assert {path.name for path in (run_dir / "export").iterdir()} == {"model.tflite", "labels.txt", "phone"}


def test_student_that_becomes_no_file_has_a_report_that_says_why(run_folder, tmp_path, monkeypatch):
    run_dir = shutil.copytree(run_folder.path, tmp_path / "run")

    def refuse(*_):
        raise ExportError("layer stem: one step of its inputs is 300 of its own")

    monkeypatch.setattr(exporter, "rebuild", refuse)
    with pytest.raises(ExportError, match="one step of its inputs is 300"):
        export(run_dir, "phone", runtimes=())
    text = (run_dir / "report.html").read_text()
    assert "The .tflite was refused" in text and "layer stem: one step of its inputs is 300 of its own" in text


def test_stray_argument_is_refused(ends, folders):
    assert ends["stray_argument"]["code"] not in (0, None)


def test_mistake_leaves_nothing_behind(ends, folders):
    assert not folders["absent"].exists()
    assert list(folders["empty"].iterdir()) == []
    assert not (folders["no_results"] / "export").exists()
    for name in ("int4", "typo"):
        assert [path.read_text() for path in (folders[name] / "export").iterdir()] == ["of before"]


def test_microcontrollers_get_packed_weights_and_are_judged_by_tflm(ends, folders):
    assert ends["micro"]["code"] in (0, None), ends["micro"]
    verification = json.loads((folders["micro"] / "export" / "verification.json").read_text())
    assert any(note.startswith("the student was trained with --target=phone") for note in verification["notes"])
    assert verification["judge"] == ("tflm" if absence("tflm") is None else "litert_reference")
    types = {row["name"]: row["type"] for row in verification["tensors"]}
    assert types["normalization"] == "int8"
    assert types["linear/kernel"] == types["depthwise/kernel"] == "int4" and types["stem/kernel"] == "int8"
    # so small that a table costs more than it saves; or nothing to write tables with
    assert any(note.startswith("no lookup-table file was written") for note in verification["notes"])
    assert not (folders["micro"] / "export" / "model.compressed.tflite").exists()
    assert (folders["micro"] / "export" / "micro" / "model.cc").exists() == (absence("tflm") is None)


@pytest.mark.slow
@pytest.mark.skipif(absence("tflm") is not None, reason=str(absence("tflm")))
def test_lookup_tables_are_written_beside_the_file_where_they_pay(make_run, chain, randomize, monkeypatch):
    monkeypatch.setattr(compress, "DECODE_CODE_BYTES", 100)  # of kernels so small none would pay for the real one
    model = chain(layers.Conv2D(32, 3, name="stem"), layers.Conv2D(16, 3, name="conv"), layers.Conv2D(4, 1))
    run_dir = make_run(randomize(model), QuantizationSpec(weight_bits=2, activation_bits=4)).path
    verification = export(run_dir, "microcontroller")
    assert verification["passed"]
    compressed = verification["compressed"]
    assert compressed["index_bits"]["conv/kernel"] == 2 and compressed["equal_logits"] == 100
    sizes = {name: (run_dir / "export" / name).stat().st_size for name in ("model.tflite", "model.compressed.tflite")}
    assert sizes["model.compressed.tflite"] == compressed["file"]["bytes"] < sizes["model.tflite"]
    assert verification["flash_bytes"] == sizes["model.compressed.tflite"] + 100
    assert verification["file"]["deflated_bytes"] == len(
        zlib.compress((run_dir / "export/model.tflite").read_bytes(), 9)
    )
    bits = {"stem": 8 * 27 * 32, "conv": 2 * 288 * 16, "conv2d": 8 * 16 * 4}
    assert verification["weights"]["true_width_bytes"] == sum(bits.values()) / 8
    export(run_dir, "microcontroller", weight_storage="int8", runtimes=())
    export(run_dir, "phone", runtimes=())
    left = {path.name: sorted(file.name for file in path.iterdir()) for path in run_dir.glob("export*")}
    files = ["labels.txt", "model.tflite", "verification.json"]
    assert left["export-phone"] == sorted([*files, "phone"])  # nothing of another target's export
    assert set(left["export"]) - {"model.compressed.tflite"} == {*files, "micro"}


@pytest.mark.skipif(absence("tflm") is not None, reason=str(absence("tflm")))
@pytest.mark.parametrize("bits, code_bytes", [(4, 0), (2, compress.DECODE_CODE_BYTES)])
def test_lookup_tables_that_take_more_flash_with_their_code_are_not_written(
    make_run, chain, randomize, monkeypatch, bits, code_bytes
):
    """At 4 bits tables are larger than INT4; at 2 bits the file is smaller, and the code is not worth it."""
    monkeypatch.setattr(compress, "DECODE_CODE_BYTES", code_bytes)
    model = chain(layers.Conv2D(32, 3, name="stem"), layers.Conv2D(16, 3, name="conv"), layers.Conv2D(4, 1))
    run_dir = make_run(randomize(model), QuantizationSpec(weight_bits=bits, activation_bits=4)).path
    verification = export(run_dir, "microcontroller", runtimes=())
    assert verification["passed"] and "compressed" not in verification
    (note,) = [n for n in verification["notes"] if n.startswith("no lookup-table file was written")]
    size = verification["file"]["bytes"]
    reasons = {4: "it would make no kernel smaller", 2: f"bytes of flash, and model.tflite takes {size:,}"}
    assert note.endswith(reasons[bits]) and verification["flash_bytes"] == size
    assert not (run_dir / "export" / "model.compressed.tflite").exists()


def test_second_target_has_a_folder_of_its_own_and_leaves_the_first_as_it_is(ends, folders):
    run_dir = folders["micro"]
    assert ends["second"]["code"] in (0, None)
    assert f"report: {run_dir}/report-phone.html" in ends["second"]["out"]
    assert target_of(run_dir / "export") == "microcontroller" and (run_dir / "export" / "micro").is_dir()
    assert target_of(run_dir / "export-phone") == "phone" and (run_dir / "export-phone" / "phone").is_dir()
    assert ExportFolder.of(run_dir, "microcontroller") == ExportFolder(run_dir / "export", run_dir / "report.html")


def test_failed_gate_is_a_failing_exit_that_tells_why(ends, folders):
    end = ends["unlike"]
    assert isinstance(end["code"], str) and end["code"].startswith("error: ")
    assert "was refused" in end["code"] and "\n" not in end["code"]
    assert "which is below the student's 100.00 % in floating point by more than chance: of 32 images" in end["err"]
    assert f"{folders['unlike']}/report.html has the reasons" in end["code"]
    assert not any(line.startswith(("litert", "report")) for line in end["out"].splitlines())


def test_refused_file_is_kept_with_its_report(ends, folders):
    assert json.loads((folders["unlike"] / "export" / "verification.json").read_text())["passed"] is False
    assert not (folders["unlike"] / "export" / "phone").exists()  # what was refused is not for apps
    assert "It was refused for its accuracy" in (folders["unlike"] / "report.html").read_text()


def test_gate_flags_reach_the_gate(ends, folders):
    assert ends["lenient"]["code"] in (0, None)  # the same run that the default gate refuses
    gates = [
        json.loads((folders[name] / "export" / "verification.json").read_text())["gate"]
        for name in ("unlike", "lenient")
    ]
    assert gates == [
        dataclasses.asdict(Gate()),
        dataclasses.asdict(Gate(max_top1_difference=0.3, min_accuracy_p=0.0)),
    ]
