import json

import pytest

from qkd_tf.experiment import ExperimentError
from qkd_tf.outcome.finished_runs import Run, groups, load, title


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


def test_a_folder_of_runs_is_told_from_a_run(make_finished_run):
    folders = [make_finished_run(name) for name in "ab"]
    with pytest.raises(
        ExperimentError, match=f"is a folder of 2 runs; give the runs themselves: {folders[0]} {folders[1]}"
    ):
        load([str(folders[0].parent)])


def test_runs_on_the_same_images_are_together(make_finished_run):
    runs = load([str(make_finished_run(name, sha=sha * 64)) for name, sha in (("a", "5"), ("b", "6"), ("c", "5"))])
    assert [[run.label for run in group] for group in groups(runs)] == [["a", "c"], ["b"]]


def handed(folder, name, **files):
    """The run with another set's name, and with a handoff whose manifest lists these files."""
    results = json.loads((folder / "results.json").read_text())
    results["data"] |= {"name": name, "test_sha256": name}  # which the batch size changes, too
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "handoff").mkdir()
    files = {file.replace("__", "."): digest for file, digest in files.items()}
    (folder / "handoff" / "manifest.json").write_text(json.dumps({"files": files}))
    return folder


def test_images_are_known_by_their_bytes_whatever_the_set_is_called(make_finished_run):
    """A set in memory is named after all of it, its training images too."""
    cases = {"a": ("1", "2"), "b": ("1", "2"), "c": ("1", "3"), "d": ("4", "2")}
    runs = []
    for name, (images, labels) in cases.items():
        files = {"test_images__npy": images, "test_labels__npy": labels}
        runs.append(str(handed(make_finished_run(name), f"in_memory:{name}", **files)))
    found = groups(load(runs))
    assert [[run.label for run in group] for group in found] == [["a", "b"], ["c"], ["d"]]
    assert title(found[0]) == "in_memory:a, 360 test images = in_memory:b, 360 test images"
    assert title(found[1]) == "in_memory:c, 360 test images"


def test_images_that_stay_where_they_lie_are_known_by_their_record(make_finished_run):
    folders = [handed(make_finished_run(name), name, test_split__json=name) for name in "abc"]
    for folder, content in zip(folders, "112", strict=True):
        record = json.dumps({"content_sha256": content, "data": {"batch_size": folder.name}})
        (folder / "handoff" / "test_split.json").write_text(record)
    assert [len(group) for group in groups(load(list(map(str, folders))))] == [2, 1]


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
        (["{folder}/a/export"], "is not a finished run; run python -m qkd_tf.train"),
        (["{folder}"], "is a folder of 5 runs; give the runs themselves: "),
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
