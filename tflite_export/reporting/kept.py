"""Whether a run's student is trained, or as calibration left it."""

from collections.abc import Mapping
from typing import Any


def untrained(results: Mapping[str, Any]) -> str:
    """Why the quantized student is as calibration left it; "" if an epoch of its training was kept.

    Args:
      results: as in results.json.
    """
    phases = [phase for phase in results["phases"] if phase["phase"] != "full_precision"]
    if not phases:
        return "it was only calibrated, not trained (--phases)"
    if any(phase["best_epoch"] for phase in phases):
        return ""
    num_epochs = sum(phase["epochs"] for phase in phases)
    return f"no epoch was kept: none of {num_epochs} was better than calibration alone"
