"""Flag files that commands write."""

import os

import pytest

from qkd_tf.experiment import ExperimentError
from qkd_tf.storage.flag_file import run_of


def test_a_flag_file_or_a_run_that_is_there_is_left_alone(tmp_path, monkeypatch):
    run, output = tmp_path / "runs" / "base", tmp_path / "small.flags"
    other = tmp_path / "other.flags"
    assert run_of(output, run) == tmp_path / "runs" / "small"
    (tmp_path / "runs" / "small").mkdir(parents=True)
    with pytest.raises(ExperimentError, match="runs/small is there already"):
        run_of(output, run)
    with monkeypatch.context() as patch:  # root writes whatever modes say
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(ExperimentError, match=f"--output={other}: the folder {tmp_path} cannot be written; give"):
            run_of(other, run)
    output.write_text("mine")
    with pytest.raises(ExperimentError, match="small.flags is there already"):
        run_of(output, run)
