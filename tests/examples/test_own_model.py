import pathlib
import runpy

import pytest

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "own_model.py"


@pytest.mark.slow
def test_example_runs_from_its_first_cell_to_a_verified_file():
    told = runpy.run_path(str(EXAMPLE))
    assert told["verification"]["passed"]
    assert told["run"].student_top1 > 80
    assert (told["run_dir"] / "export" / "micro" / "model.cc").exists()
