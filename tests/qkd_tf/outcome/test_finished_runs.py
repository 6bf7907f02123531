import json

import pytest

from qkd_tf.experiment import ExperimentError
from qkd_tf.outcome.finished_runs import Run, groups, load


def test_run_is_read_from_its_json(make_finished_run):
    (found,) = load([str(make_finished_run("a"))])
    assert found == Run(
        label="a",
        student="resnet8",
        data="digits, 360 test images",
        fingerprint=("digits", 360, 360, "5" * 64),
        bits="W4A4",
        num_bytes=20_000,
        top1=90.0,
        full_precision=91.0,
        milliseconds=0.5,
        arena=5_000,
        runtime="LiteRT",
        machine="Linux, 2 cores",
        passed=True,
    )


def test_what_an_older_version_did_not_write_is_not_known(make_finished_run):
    folder = make_finished_run("a", arena=None)
    results = json.loads((folder / "results.json").read_text())
    del results["full_precision"], results["data"]["digested"]
    (folder / "results.json").write_text(json.dumps(results))
    (found,) = load([str(folder)])
    assert (found.full_precision, found.arena) == (None, None)
    assert found.fingerprint == ("digits", 360, None, "5" * 64)


def test_runs_on_the_same_images_are_together(make_finished_run):
    runs = load([str(make_finished_run(name, sha=sha * 64)) for name, sha in (("a", "5"), ("b", "6"), ("c", "5"))])
    assert [[run.label for run in group] for group in groups(runs)] == [["a", "c"], ["b"]]


def test_runs_of_equal_names_are_told_apart_by_their_folders(make_finished_run):
    found = load(
        [str(make_finished_run("x/demo")), str(make_finished_run("y/demo")), str(make_finished_run("y/other"))]
    )
    assert [r.label for r in found] == ["x/demo", "y/demo", "y/other"]


@pytest.mark.parametrize(
    "arguments, part",
    [
        ([], "no run is named"),
        (["{folder}/gone"], "gone is not a folder"),
        (["{folder}"], "is not a finished run; run python -m qkd_tf.train"),
        (["{folder}/untested"], "is not exported; run python -m tflite_export --run_dir="),
        (["{folder}/unrun"], "unrun has no 'litert' in"),
        (["{folder}/broken"], "results.json cannot be read"),
        (["{folder}/a", "{folder}/b/../a"], "is given twice"),
    ],
)
def test_folder_that_is_no_finished_run_is_told_in_one_line(tmp_path, make_finished_run, arguments, part):
    for name in ("a", "b", "untested", "unrun", "broken"):
        make_finished_run(name)
    (tmp_path / "untested" / "export" / "verification.json").unlink()
    refused = {"judge": "litert", "runtimes": {}, "passed": False}
    (tmp_path / "unrun" / "export" / "verification.json").write_text(json.dumps(refused))
    (tmp_path / "broken" / "results.json").write_text('{"data": ')
    with pytest.raises(ExperimentError) as caught:
        load([argument.format(folder=tmp_path) for argument in arguments])
    assert part in str(caught.value) and "\n" not in str(caught.value)
