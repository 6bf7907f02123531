"""Reads what a finished run recorded."""

import json
import pathlib
from typing import Any

from qkd_tf.console.counting import counted
from qkd_tf.console.nearest import meant_path
from qkd_tf.contract.resuming import runs_in, to_its_end
from qkd_tf.storage import durable
from tflite_export.export_error import ExportError

DIAGNOSIS_FORMAT = 1


def results_of(run_dir: pathlib.Path) -> dict[str, Any]:
    """The contents of results.json.

    Raises:
      ExportError: there is no such folder, it is a part of a run, or the file is missing or was changed.
    """
    is_run = (run_dir / "results.json").exists()
    if not is_run and (run_dir.parent / "results.json").exists():
        raise ExportError(f"{run_dir} is a part of the run {run_dir.parent}; give {run_dir.parent}")
    if run_dir.is_file():
        raise ExportError(f"{run_dir} is a file; give the folder of a finished run, which is a flag file's --run_dir")
    if not run_dir.is_dir():
        hint = meant_path(run_dir, pathlib.Path.is_dir, "give the folder of a finished run")
        raise ExportError(f"there is no folder {run_dir}; {hint}")
    if runs := runs_in(run_dir):
        raise ExportError(f"{run_dir} is a folder of {counted(len(runs), 'run')}; give one, such as {runs[0]}")
    if not is_run:
        raise ExportError(
            f"{run_dir} has no results.json: its training has not ended, or ended in an error; {to_its_end(run_dir)}"
        )
    try:
        return durable.read_json(run_dir / "results.json")
    except durable.DamageError as damage:
        raise ExportError(f"{damage}; {to_its_end(run_dir)}, which writes it again") from damage


def diagnosis_of(run_dir: pathlib.Path) -> dict[str, Any] | None:
    """The contents of diagnosis.json; None if there is none, or it is from another version."""
    path = run_dir / "diagnosis.json"
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:  # damaged: report and cautions do without
        return None
    return found if isinstance(found, dict) and found.get("format") == DIAGNOSIS_FORMAT else None
