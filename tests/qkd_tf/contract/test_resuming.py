import pytest

from qkd_tf.contract.resuming import to_its_end


@pytest.mark.parametrize(
    "flags, told",
    [
        (None, "run python -m qkd_tf.train to its end first"),
        (
            "--run_dir=elsewhere\n--student=resnet8",  # the folder was moved
            "run python -m qkd_tf.train --flagfile={run}/flags.txt --run_dir={run} to its end first",
        ),
        ("--seed=1\n--student=resnet8", "run python -m qkd_tf.train --flagfile={run}/flags.txt to its end first"),
        ("--student=in_memory:trained:a", "make the call of qkd_tf.fit with run_dir='{run}' again, which resumes"),
    ],
)
def test_unfinished_run_is_finished_as_it_was_begun(tmp_path, flags, told):
    if flags:
        (tmp_path / "flags.txt").write_text(flags)
    assert to_its_end(tmp_path) == told.format(run=tmp_path)
