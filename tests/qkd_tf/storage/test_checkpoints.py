import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.experiment import ExperimentError
from qkd_tf.storage.checkpoints import Checkpoints, restore

BEST = [np.float32([1.5, -2.0]), np.array([[True, False]])]


def state(value):
    return tf.train.Checkpoint(variable=tf.Variable(value))


def progress(phase, epoch, step):
    return {"phase": phase, "epoch": epoch, "step": step, "history": [{"loss": 0.1 + 0.2}], "best": None}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    """With two checkpoints, whose variables are 1.0 and 2.0."""
    checkpoints = Checkpoints(tmp_path, "mine")
    checkpoints.write(progress(0, 1, 0), state(1.0), BEST)
    checkpoints.write(progress(0, 1, 12), state(2.0), BEST)
    return tmp_path


def test_nothing_is_found_where_nothing_was_written(tmp_path):
    assert Checkpoints(tmp_path, "mine").newest() is None


def test_newest_comes_back_as_it_was_written(folder):
    path, found = Checkpoints(folder, "mine").newest()
    assert found == progress(0, 1, 12)
    into = state(0.0)
    for got, expected in zip(restore(path, into), BEST, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert into.variable.numpy() == 2.0


def test_two_are_kept_and_leftovers_go(folder):
    (folder / "phase0_epoch2_step0.part").mkdir()
    (folder / "notes").mkdir()  # not ours
    checkpoints = Checkpoints(folder, "mine")
    checkpoints.newest()
    checkpoints.write(progress(1, 0, 0), state(3.0), [])
    assert names(folder) == {"phase0_epoch1_step12", "phase1_epoch0_step0", "notes"}


def test_order_is_by_numbers_and_not_by_names_or_clocks(tmp_path):
    checkpoints = Checkpoints(tmp_path, "mine")
    for position in ((0, 9, 99), (0, 10, 5), (0, 10, 40)):
        checkpoints.write(progress(*position), state(1.0), [])
    assert names(tmp_path) == {"phase0_epoch10_step5", "phase0_epoch10_step40"}
    assert checkpoints.newest()[0].name == "phase0_epoch10_step40"


@pytest.mark.parametrize("step", [6, 12, 20], ids=["before it", "in its place", "behind it"])
def test_one_that_is_damaged_is_passed_over_told_of_and_removed(folder, capsys, step):
    (folder / "phase0_epoch1_step12" / "state.index").write_bytes(b"x")
    checkpoints = Checkpoints(folder, "mine")
    path, found = checkpoints.newest()
    assert path.name == "phase0_epoch1_step0" and found == progress(0, 1, 0)
    out = capsys.readouterr().out
    assert out.startswith("note: ") and "phase0_epoch1_step12/state.index was changed" in out and out.count("\n") == 1
    checkpoints.write(progress(0, 1, step), state(5.0), [])
    assert names(folder) == {"phase0_epoch1_step0", f"phase0_epoch1_step{step}"}  # the sound one is kept


def test_where_all_are_damaged_training_does_not_begin_anew_in_silence(folder):
    for path in folder.iterdir():
        (path / "manifest.json").unlink()
    with pytest.raises(ExperimentError, match="no checkpoint can be used: .*step12 has no manifest.*step0 has no") as e:
        Checkpoints(folder, "mine").newest()
    assert f"move {folder} away to train from the start" in str(e.value)


def test_one_of_another_experiment_is_not_taken(folder):
    with pytest.raises(ExperimentError, match="belongs to another experiment"):
        Checkpoints(folder, "another").newest()


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError, tf.errors.UnknownError])
def test_a_disk_that_refuses_leaves_those_of_before(folder, error):
    class Full(tf.train.Checkpoint):
        def write(self, *_):
            raise error(None, None, "{{node Save}} a/b; No space left on device [Op:SaveV2]\nmore")

    before = names(folder)
    with pytest.raises(OSError, match="phase0_epoch2_step0 cannot be written: a/b; No space left on device$"):
        Checkpoints(folder, "mine").write(progress(0, 2, 0), Full(variable=tf.Variable(1.0)), [])
    assert names(folder) == before
    assert Checkpoints(folder, "mine").newest()[1] == progress(0, 1, 12)
