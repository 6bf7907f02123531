import os
import re

import pytest

from qkd_tf import flags
from qkd_tf.experiment import ExperimentError
from qkd_tf.models import identity
from qkd_tf.storage import durable, run_folder
from qkd_tf.storage.run_folder import RunFolder
from tests.saved_flags import saved_flags

LINES = ["--student=resnet8", "--weight_bits=4", "--run_dir=runs/x", "--data_dir=/data", "--horizontal_flip"]


def claimed(path, lines=LINES):
    folder = RunFolder(str(path), lines)
    folder.claim()
    return folder


def contents(path):
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def test_looking_makes_nothing(tmp_path):
    RunFolder(str(tmp_path / "a" / "run"), LINES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_cannot_be_written_is_told_before_slow_work(tmp_path, monkeypatch, made):
    path = tmp_path / "a" / "run"
    (path if made else tmp_path).mkdir(parents=True, exist_ok=True)
    folder = RunFolder(str(path), LINES)
    folder.require_free()
    sealed = path if made else tmp_path  # root writes whatever modes say
    monkeypatch.setattr(os, "access", lambda place, mode: os.fspath(place) != str(sealed))
    with pytest.raises(ExperimentError) as caught:
        folder.require_free()
    assert str(caught.value).startswith(f"--run_dir={path}: the folder {sealed} cannot be written; give")


def test_checkpoints_are_promised_where_there_is_one(tmp_path):
    folder = claimed(tmp_path)
    for name, promised in (("phase0_epoch1_step0.part", False), ("phase0_epoch1_step0", True)):
        (folder.checkpoints / name).mkdir()
        assert folder.has_checkpoint == promised


def test_claimed_folder_holds_its_flags_and_is_open_to_the_same_experiment(tmp_path):
    for _ in range(2):
        claimed(tmp_path / "a" / "run")
    assert (tmp_path / "a/run/flags.txt").read_text().splitlines() == LINES


def test_flags_that_differ_are_told_with_both_values_but_for_what_is_in_memory():
    old = ["--weight_bits=2", "--student=in_memory:trained:a", "--seed=1", "--data_dir=a"]
    new = ["--weight_bits=4", "--student=in_memory:trained:b", "--bits_rule=a=w4", "--bits_rule=b=w2", "--signals"]
    assert run_folder.differing_flags(old, new) == [
        "--bits_rule (not given there, a=w4,b=w2 now)",
        "--seed (1 there, not given now)",
        "--signals (not given there, given now)",
        "--student",
        "--weight_bits (2 there, 4 now)",
    ]


def test_an_empty_folder_may_become_a_run(tmp_path):
    claimed(tmp_path)
    assert (tmp_path / "flags.txt").exists()


@pytest.mark.parametrize(
    "lines, named",
    [
        (["--student=resnet20", *LINES[1:]], ["--student"]),
        (["--student=resnet20", "--weight_bits=2", *LINES[2:]], ["--student", "--weight_bits"]),
        (LINES[1:], ["--student"]),
        ([*LINES, "--seed=1"], ["--seed"]),
        ([*LINES[:-1], "--nohorizontal_flip"], ["--horizontal_flip"]),
    ],
)
def test_another_experiment_is_refused_and_the_flags_that_differ_are_named(tmp_path, lines, named):
    claimed(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(ExperimentError) as caught:
        RunFolder(str(tmp_path / "run"), lines)
    told = set(re.findall(r"--\w+", str(caught.value).partition("differs in")[2].partition(";")[0]))
    assert told >= set(named)
    assert told <= {*named, "--nohorizontal_flip"}
    assert contents(tmp_path) == before


def test_a_copy_has_the_checkpoints_and_leaves_the_run_alone(tmp_path):
    folder = RunFolder(str(tmp_path / "run"), LINES)
    (tmp_path / "new").mkdir()
    assert not folder.copy(str(tmp_path / "new")).checkpoints.exists()
    folder.claim()
    (folder.checkpoints / "state").write_text("1")
    before = contents(tmp_path / "run")
    (tmp_path / "old").mkdir()
    copy = folder.copy(str(tmp_path / "old"))
    assert contents(copy.path) == before and copy.experiment == folder.experiment
    copy.claim()
    (copy.checkpoints / "state").write_text("2")
    assert contents(tmp_path / "run") == before


def test_where_things_lie_may_differ(tmp_path):
    claimed(tmp_path / "run")
    moved = [line.replace("runs/x", "elsewhere").replace("/data", "/mnt/data") for line in LINES]
    folder = RunFolder(str(tmp_path / "run"), moved)
    folder.claim()
    assert (tmp_path / "run/flags.txt").read_text().splitlines() == LINES


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/x"])
def test_a_folder_that_is_no_run_is_refused_and_left_alone(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(ExperimentError, match="not empty and has no flags.txt"):
        RunFolder(str(tmp_path), LINES)
    assert contents(tmp_path) == {name: "mine"}


def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ExperimentError, match="is a file"):
        RunFolder(str(tmp_path / "run"), LINES)


def test_a_folder_inside_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExperimentError):
        claimed(tmp_path / "file" / "run")


@pytest.mark.parametrize("left", ["lock", "flags.txt.part"])
def test_a_start_that_was_killed_before_it_wrote_its_flags_may_be_repeated(tmp_path, left):
    (tmp_path / left).write_text("--stu")
    assert (claimed(tmp_path).path / "flags.txt").read_text().splitlines() == LINES


def test_a_claim_that_the_disk_refuses_may_be_repeated(tmp_path, monkeypatch):
    def full(path, content):
        path.with_name("flags.txt.part").write_text(content[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_whole", full)
        with pytest.raises(OSError, match="No space"):
            claimed(tmp_path / "run")
    assert (claimed(tmp_path / "run").path / "flags.txt").read_text().splitlines() == LINES


def test_an_experiment_that_took_the_folder_meanwhile_is_left_alone(tmp_path):
    late = RunFolder(str(tmp_path / "run"), ["--student=resnet20"])
    claimed(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(ExperimentError, match="contains another experiment, which differs in"):
        late.claim()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"--student=resnet8\n--wei"])
def test_flags_that_were_spoilt_are_another_experiment(tmp_path, content):
    claimed(tmp_path / "run")
    (tmp_path / "run" / "flags.txt").write_bytes(content)
    with pytest.raises(ExperimentError, match="contains another experiment"):
        RunFolder(str(tmp_path / "run"), LINES)


def test_digest_of_an_experiment_is_that_of_the_flags_that_decide(tmp_path):
    digest = RunFolder(str(tmp_path), LINES).experiment
    same = [*reversed(LINES), "--checkpoint_every_steps=5"]
    assert RunFolder(str(tmp_path), [line.replace("runs/x", "y") for line in same]).experiment == digest
    assert RunFolder(str(tmp_path), [*LINES, "--seed=1"]).experiment != digest


def test_flags_txt_is_a_flag_file_that_starts_the_same_experiment(tmp_path):
    with saved_flags():
        flags.FLAGS(
            ["train", f"--run_dir={tmp_path / 'run'}", "--teacher=resnet56", "--epochs=1,2,3", "--nohorizontal_flip"]
        )
        experiment = flags.experiment_from_flags()
        claimed(tmp_path / "run", flags.flag_lines())
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["train", f"--flagfile={tmp_path / 'run' / 'flags.txt'}"])
        assert flags.experiment_from_flags() == experiment
        RunFolder(str(tmp_path / "run"), flags.flag_lines())


def test_a_repeated_flag_is_compared_with_all_its_values(tmp_path):
    RunFolder(str(tmp_path / "run"), ["--seed=1", "--bits_rule=a=w4\n--bits_rule=b=w2"]).claim()
    RunFolder(str(tmp_path / "run"), ["--seed=1", "--bits_rule=a=w4\n--bits_rule=b=w2"])
    with pytest.raises(ExperimentError, match="differs in --bits_rule"):
        RunFolder(str(tmp_path / "run"), ["--seed=1", "--bits_rule=a=w3\n--bits_rule=b=w2"])


CONTENTS = {"version": "1", "pictures": "aa", "student_layers": "bb", "student_weights": "cc"}


def begun(path, contents=CONTENTS):
    folder = RunFolder(str(path), LINES)
    folder.claim(contents, identity.WORDS)
    return folder


def test_same_contents_go_on(tmp_path):
    before = contents(begun(tmp_path / "run").path)
    assert {"flags.txt", "identity.json"} == before.keys()
    begun(tmp_path / "run", dict(reversed(CONTENTS.items())))
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"pictures": "ab"}, ["the pictures or their labels"]),
        ({"student_layers": "ab"}, ["the student's layers or their wiring"]),
        ({"version": "2", "student_weights": "ab"}, ["the version of qkd_tf", "the student's first weights"]),
        ({"teacher_layers": "dd"}, ["the teacher's layers or their wiring"]),
        ({"student_weights": None}, ["the student's first weights"]),
        ({"something_new": "x"}, ["something_new"]),
    ],
)
def test_other_contents_under_the_same_flags_are_refused_and_what_changed_is_named(tmp_path, changed, words):
    """At 6352718 flags alone were compared: a builder edited between two starts gave exit code 0."""
    before = contents(begun(tmp_path / "run").path)
    now = {name: digest for name, digest in {**CONTENTS, **changed}.items() if digest}
    with pytest.raises(ExperimentError) as caught:
        begun(tmp_path / "run", now)
    told = str(caught.value)
    assert f"began with contents that have changed since: {', '.join(words)}; give another --run_dir" in told
    assert contents(tmp_path / "run") == before


def test_folder_of_an_earlier_version_is_refused_with_a_word_of_why(tmp_path):
    begun(tmp_path / "run")
    (tmp_path / "run" / "identity.json").unlink()
    before = contents(tmp_path / "run")
    with pytest.raises(ExperimentError, match="has no identity.json: it was deleted, or an earlier version"):
        begun(tmp_path / "run")
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("content", ["", "{}", '{"contents": {}}', "[1]", "\0", '{"sha256": "0", "contents": {}}'])
def test_damaged_identity_is_told_by_its_name(tmp_path, content):
    begun(tmp_path / "run")
    (tmp_path / "run" / "identity.json").write_text(content)
    with pytest.raises(
        ExperimentError, match=r"identity.json (is not the JSON|was changed after).*give another --run_"
    ):
        begun(tmp_path / "run")


def test_identity_that_somebody_edited_is_damaged(tmp_path):
    file = begun(tmp_path / "run").path / "identity.json"
    file.write_text(file.read_text().replace('"aa"', '"ab"'))
    with pytest.raises(ExperimentError, match="identity.json was changed after it was written"):
        begun(tmp_path / "run", {**CONTENTS, "pictures": "ab"})


@pytest.mark.parametrize("number", [1, 2], ids=["identity", "flags"])
@pytest.mark.parametrize("others", [False, True], ids=["same", "others"])
def test_start_that_was_killed_in_its_claim_leaves_a_folder_that_is_free(tmp_path, monkeypatch, number, others):
    """Whether before identity.json is whole or before flags.txt is: no network was trained, so another may begin."""

    class Killed(BaseException):
        pass

    replaced, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) == number:
            raise Killed
        replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "replace", killed)
        with pytest.raises(Killed):
            begun(tmp_path / "run")
    assert not (tmp_path / "run" / "flags.txt").exists()
    second = {**CONTENTS, "pictures": "zz"} if others else CONTENTS
    begun(tmp_path / "run", second)
    assert durable.read_json(tmp_path / "run" / "identity.json")["contents"] == second
    begun(tmp_path / "run", second)


def test_flag_that_lets_a_weak_teacher_pass_does_not_make_another_experiment(tmp_path):
    """It is what a user adds to the command that was refused."""
    RunFolder(str(tmp_path / "run"), [*LINES, "--noallow_weak_teacher"]).claim()
    RunFolder(str(tmp_path / "run"), [*LINES, "--allow_weak_teacher"]).claim()


def test_a_copy_knows_what_the_run_began_with(tmp_path):
    folder = begun(tmp_path / "run")
    (tmp_path / "copy").mkdir()
    copy = folder.copy(str(tmp_path / "copy"))
    copy.claim(CONTENTS, identity.WORDS)
    with pytest.raises(ExperimentError, match="changed since: the pictures"):
        copy.claim({**CONTENTS, "pictures": "ab"}, identity.WORDS)
