"""Reads what a finished run recorded."""

import json
import pathlib
from typing import Any

from qkd_tf.storage import durable
from tflite_export.export_error import ExportError

DIAGNOSIS_FORMAT = 1


def results_of(run_dir: pathlib.Path) -> dict[str, Any]:
    """The contents of results.json.

    Raises:
      ExportError: it is missing, or was changed.
    """
    if not (run_dir / "results.json").exists():
        raise ExportError(f"{run_dir} has no results.json; run python -m qkd_tf.train to its end first")
    try:
        return durable.read_json(run_dir / "results.json")
    except durable.DamageError as damage:
        raise ExportError(f"{damage}; run python -m qkd_tf.train again, which writes it again") from damage


def diagnosis_of(run_dir: pathlib.Path) -> dict[str, Any] | None:
    """The contents of diagnosis.json; None if there is none, or it is from another version."""
    path = run_dir / "diagnosis.json"
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:  # damaged: report and cautions do without
        return None
    return found if isinstance(found, dict) and found.get("format") == DIAGNOSIS_FORMAT else None
