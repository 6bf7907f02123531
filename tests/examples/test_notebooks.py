"""The notebooks of examples/ are valid and name what is there; `make notebooks` runs them from first cell to last."""

import ast
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# What a cell that is tagged `parameters` has -> in the place of it, so that a run takes seconds.
SHORT = {
    "digits": 'EPOCHS = {"full_precision": 2, "self_studying": 1, "co_studying": 1, "tutoring": 1}',
    "own_keras3_model": 'FLOAT_EPOCHS, EPOCHS, NUM_PICTURES = 4, {"self_studying": 1}, {"train": 48, "test": 8}',
}
AT_THE_END = "assert len(matplotlib.pyplot.get_fignums()) == 4"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path):
    """(source, cell) of each cell of code; what only a notebook can run, such as %pip, is left out."""
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            yield re.sub(r"^[%!].*$", "", "".join(cell["source"]), flags=re.MULTILINE), cell


def imported(source):
    """(module, name) of all that is imported; the name of `import module` is ""."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


@each_notebook
def test_notebook_is_valid_and_was_run(path):
    notebook = json.loads(path.read_text())
    assert notebook["nbformat"] == 4 and {cell["cell_type"] for cell in notebook["cells"]} == {"markdown", "code"}
    counts = [cell["execution_count"] for _, cell in cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run it anew, from its first cell to its last"
    outputs = [output for _, cell in cells(path) for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert sum("verified: " in "".join(output.get("text", "")) for output in outputs) == 3
    assert re.findall(r"/(?:tmp|home|root|work)/", path.read_text()) == []


@each_notebook
def test_code_compiles_and_what_it_imports_is_there(path):
    for source, _ in cells(path):
        compile(source, path.name, "exec")
        for module, name in imported(source):
            assert not name or hasattr(importlib.import_module(module), name), (module, name)
            assert importlib.util.find_spec(module), module


@each_notebook
def test_a_cell_says_how_long_it_trains(path):
    (parameters,) = [source for source, cell in cells(path) if "parameters" in cell["metadata"].get("tags", ())]
    assert names_set_by(parameters) == names_set_by(SHORT[path.stem])


def names_set_by(source):
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


@pytest.mark.notebooks
@each_notebook
def test_notebook_runs_from_its_first_cell_to_its_last(path, tmp_path):
    parts = ["import matplotlib.pyplot"]
    parts += [SHORT[path.stem] if "parameters" in cell["metadata"].get("tags", ()) else s for s, cell in cells(path)]
    script = tmp_path / f"{path.stem}.py"
    script.write_text("\n".join([*parts, AT_THE_END]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("verified: ") == 3  # said of a file that passed alone
