"""What a finished run tells of itself."""

import pathlib
from typing import Any

from qkd_tf.storage import durable
from tflite_export.export_error import ExportError


def results_of(run_dir: pathlib.Path) -> dict[str, Any]:
    """What results.json tells.

    Raises:
      ExportError: it is missing, or was changed.
    """
    if not (run_dir / "results.json").exists():
        raise ExportError(f"{run_dir} has no results.json; run python -m qkd_tf.train to its end first")
    try:
        return durable.read_json(run_dir / "results.json")
    except durable.DamageError as damage:
        raise ExportError(f"{damage}; run python -m qkd_tf.train again, which writes it again") from damage
