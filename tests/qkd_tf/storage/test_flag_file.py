"""Flag files that commands write."""

import pytest

from qkd_tf.experiment import ExperimentError
from qkd_tf.storage.flag_file import run_of


def test_a_flag_file_or_a_run_that_is_there_is_left_alone(tmp_path):
    run, output = tmp_path / "runs" / "base", tmp_path / "small.flags"
    assert run_of(output, run) == tmp_path / "runs" / "small"
    (tmp_path / "runs" / "small").mkdir(parents=True)
    with pytest.raises(ExperimentError, match="runs/small is there already"):
        run_of(output, run)
    output.write_text("mine")
    with pytest.raises(ExperimentError, match="small.flags is there already"):
        run_of(output, run)
